"""Questions of a JSONL file, with the fields that the data sets of lm-evaluation-harness have on the Hub, or a user's own.

What a model reads is what lm-evaluation-harness (EleutherAI) gives it without examples, in its tasks arc, mmlu, hellaswag,
winogrande, piqa, boolq and openbookqa. A file may mix the forms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import SprigError
from agent.text import brief

_MOST_BYTES = 1 << 30  # of a file: larger ones are no exam


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several answers: ``context`` is read, and how likely ``continuation`` is after it counts. ``answer`` is what a
    person reads, and whose bytes the normalized accuracy divides by."""

    context: str
    continuation: str
    answer: str


@dataclass(frozen=True, slots=True)
class ChoiceQuestion:
    """A multiple-choice question of a line of the file. ``right`` is the place of the right choice."""

    line: int
    choices: tuple[Choice, ...]
    right: int


@dataclass(frozen=True, slots=True)
class ShortQuestion:
    """A question that the model answers in its own words.

    Attributes:
        answers: any of these is right. A number is compared with the last number of what the model says; a text with all of it,
            without case, punctuation and articles.
        pattern: a regular expression; if there is one, it alone decides: it is searched in what the model says.
    """

    line: int
    question: str
    answers: tuple[str, ...]
    pattern: re.Pattern[str] | None = None


Question = ChoiceQuestion | ShortQuestion
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Exam:
    """The questions of a file; ``name`` is the file's, without its ending."""

    name: str
    questions: tuple[Question, ...]


class _WrongLineError(Exception):
    """Why a line is no question."""


def read_exam(path: Path) -> Exam:
    """All questions of a file; empty lines are left out.

    Raises:
        SprigError: the file cannot be read, holds no question, or one of its lines is malformed; with the line's number.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise SprigError(f"{path} is larger than 1 GB: give it in parts")
        raw = path.read_bytes()
    except OSError as e:
        raise SprigError(f"cannot read {path}: {e.strerror}") from None
    questions = []
    for number, line in enumerate(raw.split(b"\n"), 1):
        if line.strip():
            try:
                questions.append(_question(number, line))
            except _WrongLineError as e:
                raise SprigError(f"{path}, line {number}: {e}") from None
    if not questions:
        raise SprigError(f"{path} holds no question: each line is a JSON object, such as {_EXAMPLE}")
    return Exam(path.stem, tuple(questions))


_EXAMPLE = '{"question": "...", "choices": ["...", "..."], "answer": 0}'


def _question(number: int, line: bytes) -> Question:
    try:
        fields = json.loads(line)
    except UnicodeDecodeError:
        raise _WrongLineError("it is not UTF-8") from None
    except (ValueError, RecursionError) as e:
        raise _WrongLineError(f"it is not JSON: {e}") from None
    if not isinstance(fields, dict):
        raise _WrongLineError(f"it is {brief(fields, 40)} and must be a JSON object, such as {_EXAMPLE}")
    for names, read in _FORMS:
        if names <= fields.keys():
            choices, right = read(fields)
            return ChoiceQuestion(number, choices, right)
    if {"question", "answer"} <= fields.keys():
        return _short(number, fields)
    has = ", ".join(brief(name, 30) for name in list(fields)[:8]) or "none"
    raise _WrongLineError(f"its fields ({has}) are of no known form; the simplest is {_EXAMPLE}")


# The forms. Each gives the choices and the place of the right one.

_Form = tuple[tuple[Choice, ...], int]


def _labelled(fields: Fields) -> _Form:
    """ARC, OpenBookQA: choices {text: [...], label: [...]}, answerKey."""
    held = fields["choices"]
    if not isinstance(held, dict):
        raise _WrongLineError("beside answerKey, choices is {'text': [...], 'label': [...]}")
    texts, labels = _texts(held, "text"), _texts(held, "label")
    if len(labels) != len(texts):
        raise _WrongLineError(f"{len(texts)} choices have {len(labels)} labels")
    key = _text(fields, "answerKey").strip()
    if key not in labels:
        raise _WrongLineError(f"answerKey is {brief(key)}, and the labels are {', '.join(map(brief, labels))}")
    context = _text(fields, "question_stem") if "question_stem" in fields else _asked(_text(fields, "question"))
    return _answers(context, texts), labels.index(key)


def _listed(fields: Fields) -> _Form:
    """MMLU, which has a subject and asks for the letter; and a user's own: choices [...], answer as index, letter or text."""
    question, texts = _text(fields, "question"), _texts(fields, "choices")
    right = _place(fields["answer"], "answer", texts)
    if "subject" not in fields:
        return _answers(_asked(question), texts), right
    letters = [chr(ord("A") + i) for i in range(len(texts))]
    listed = "".join(f"{letter}. {text}\n" for letter, text in zip(letters, texts, strict=True))
    subject = _text(fields, "subject").replace("_", " ")
    about = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
    return _answers(f"{about}{question.strip()}\n{listed}Answer:", letters), right


def _endings(fields: Fields) -> _Form:
    """HellaSwag: ctx (or ctx_a and ctx_b), endings, label."""
    if "ctx_a" in fields:
        begun = f"{_text(fields, 'ctx_a')} {str(fields.get('ctx_b', '')).capitalize()}"
    else:
        begun = _text(fields, "ctx")
    if "activity_label" in fields:
        begun = f"{_text(fields, 'activity_label')}: {begun}"
    texts = [_without_brackets(text) for text in _texts(fields, "endings")]
    return _answers(_without_brackets(begun), texts), _place(fields["label"], "label", texts)


def _pronoun(fields: Fields) -> _Form:
    """Winogrande: the option stands in the place of "_", and how likely the rest of the sentence is counts."""
    before, blank, rest = _text(fields, "sentence").partition("_")
    options = [_text(fields, "option1"), _text(fields, "option2")]
    if not blank or not rest.strip():
        raise _WrongLineError('the sentence has no "_" with words behind it')
    answer = str(fields["answer"])
    if answer not in ("1", "2"):
        raise _WrongLineError(f"answer is {brief(answer)} and must be 1 or 2")
    return tuple(Choice(before + option, f" {rest.strip()}", rest.strip()) for option in options), int(answer) - 1


def _solutions(fields: Fields) -> _Form:
    """PIQA: goal, sol1, sol2, label."""
    texts = [_text(fields, "sol1"), _text(fields, "sol2")]
    return _answers(_asked(_text(fields, "goal")), texts), _place(fields["label"], "label", texts)


def _yes_or_no(fields: Fields) -> _Form:
    """BoolQ: passage, question, answer true or false."""
    if not isinstance(fields["answer"], bool):
        raise _WrongLineError(f"answer is {brief(fields['answer'])}, and beside a passage it must be true or false")
    context = f"{_text(fields, 'passage')}\nQuestion: {_text(fields, 'question')}?\nAnswer:"
    return _answers(context, ["no", "yes"]), int(fields["answer"])


_FORMS: tuple[tuple[frozenset[str], Callable[[Fields], _Form]], ...] = (
    (frozenset({"question", "choices", "answerKey"}), _labelled),
    (frozenset({"question_stem", "choices", "answerKey"}), _labelled),
    (frozenset({"question", "choices", "answer"}), _listed),
    (frozenset({"ctx", "endings", "label"}), _endings),
    (frozenset({"ctx_a", "endings", "label"}), _endings),
    (frozenset({"sentence", "option1", "option2", "answer"}), _pronoun),
    (frozenset({"goal", "sol1", "sol2", "label"}), _solutions),
    (frozenset({"passage", "question", "answer"}), _yes_or_no),
)


def _short(number: int, fields: Fields) -> ShortQuestion:
    """GSM8K, whose answer ends with "#### 42"; and a user's own: answer (one or several) or regex."""
    given = fields["answer"]
    answers = []
    for one in given if isinstance(given, list) else [given]:
        if isinstance(one, bool) or not isinstance(one, str | int | float) or not str(one).strip():
            raise _WrongLineError(f"answer is {brief(given)} and must be a text or a number, or a list of these")
        answers.append(str(one).rpartition("#### ")[2].strip())
    if not answers:
        raise _WrongLineError("answer is an empty list")
    pattern = None
    if fields.get("regex") is not None:
        try:
            pattern = re.compile(_text(fields, "regex"))
        except (re.error, OverflowError, RecursionError) as e:
            raise _WrongLineError(f"regex is no regular expression: {e}") from None
    return ShortQuestion(number, _text(fields, "question"), tuple(answers), pattern)


def _asked(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def _answers(context: str, texts: Sequence[str]) -> tuple[Choice, ...]:
    return tuple(Choice(context, f" {text}", text) for text in texts)


def _without_brackets(text: str) -> str:
    """HellaSwag's sentences from WikiHow carry marks of their page."""
    text = re.sub(r"\[[^\]]*\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _text(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _WrongLineError(f"{name} is {brief(value)} and must be a text")
    return value


def _texts(fields: Fields, name: str) -> list[str]:
    values = fields.get(name)
    if not isinstance(values, list) or not all(isinstance(v, str) and v.strip() for v in values):
        raise _WrongLineError(f"{name} is {brief(values)} and must be a list of texts")
    if not 2 <= len(values) <= 26:
        raise _WrongLineError(f"{name} has {len(values)} entries and must have 2 to 26")
    return values


def _place(answer: Any, name: str, texts: Sequence[str]) -> int:
    """The place of the right choice: its index from 0, itself, or its letter."""
    if isinstance(answer, str):
        if answer in texts:
            return texts.index(answer)
        if len(answer) == 1 and answer.isascii() and answer.isalpha():
            answer = ord(answer.upper()) - ord("A")
        elif answer.isascii() and answer.isdigit() and len(answer) <= 2:
            answer = int(answer)
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(texts):
        raise _WrongLineError(
            f"{name} is {brief(answer)}: give an index from 0 to {len(texts) - 1}, a letter, or the text of a choice"
        )
    return answer
