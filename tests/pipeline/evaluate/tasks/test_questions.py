"""A file of questions: the fields of the Hub's data sets and a user's own, and what is wrong with a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import SprigError
from pipeline.evaluate.tasks.questions import ChoiceQuestion, Question, ShortQuestion, read_exam

ARC = {"id": "Q1", "question": "What barks?", "choices": {"text": ["a dog", "a stone"], "label": ["A", "B"]}, "answerKey": "A"}
OWN = {"question": "What barks?", "choices": ["a stone", "a dog"], "answer": 1}
MMLU = {"question": "What barks? ", "subject": "high_school_biology", "choices": ["a", "b", "c", "d"], "answer": 2}
HELLASWAG = {"ctx": "A man sits. He", "activity_label": "Roof", "endings": ["sings.", "a [header] b"], "label": "1"}
HELLASWAG_PARTS = {**HELLASWAG, "ctx_a": "A man sits.", "ctx_b": "he"}
WINOGRANDE = {"sentence": "The cup is in the box, so _ is full.", "option1": "the cup", "option2": "the box", "answer": "2"}
PIQA = {"goal": "boil water", "sol1": "heat it", "sol2": "cool it", "label": 0}
BOOLQ = {"passage": "Dogs bark.", "question": "do dogs bark", "answer": True}
GSM8K = {"question": "How many?", "answer": "He has 2 + 3 = <<2+3=5>>5.\n#### 1,005"}
FORMS = (ARC, OWN, MMLU, HELLASWAG, HELLASWAG_PARTS, WINOGRANDE, PIQA, BOOLQ, GSM8K)


def read(folder: Path, *lines: object) -> tuple[Question, ...]:
    path = folder / "exam.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return read_exam(path).questions


def choice(folder: Path, line: object) -> ChoiceQuestion:
    (question,) = read(folder, line)
    assert isinstance(question, ChoiceQuestion)
    return question


def short(folder: Path, line: object) -> ShortQuestion:
    (question,) = read(folder, line)
    assert isinstance(question, ShortQuestion)
    return question


def shown(question: ChoiceQuestion) -> list[tuple[str, str]]:
    return [(one.context, one.continuation) for one in question.choices]


def test_each_form_becomes_what_lm_eval_gives_a_model(tmp_path: Path) -> None:
    barks = "Question: What barks?\nAnswer:"
    assert shown(choice(tmp_path, ARC)) == [(barks, " a dog"), (barks, " a stone")]
    assert shown(choice(tmp_path, OWN)) == [(barks, " a stone"), (barks, " a dog")]
    about = "The following are multiple choice questions (with answers) about high school biology.\n\n"
    listed = f"{about}What barks?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
    assert shown(choice(tmp_path, MMLU)) == [(listed, f" {letter}") for letter in "ABCD"]
    begun = "Roof: A man sits. He"
    for form in (HELLASWAG, HELLASWAG_PARTS):
        assert shown(choice(tmp_path, form)) == [(begun, " sings."), (begun, " a b")]
    assert shown(choice(tmp_path, WINOGRANDE)) == [
        ("The cup is in the box, so the cup", " is full."), ("The cup is in the box, so the box", " is full."),
    ]  # fmt: skip
    assert shown(choice(tmp_path, PIQA))[1] == ("Question: boil water\nAnswer:", " cool it")
    assert shown(choice(tmp_path, BOOLQ)) == [
        ("Dogs bark.\nQuestion: do dogs bark?\nAnswer:", f" {word}") for word in ("no", "yes")
    ]


def test_each_form_says_which_choice_is_right(tmp_path: Path) -> None:
    forms = (ARC, OWN, MMLU, HELLASWAG, WINOGRANDE, PIQA, BOOLQ)
    assert [choice(tmp_path, form).right for form in forms] == [0, 1, 2, 1, 1, 0, 1]
    numbered = {**ARC, "choices": {"text": ["a dog", "a stone"], "label": ["1", "2"]}, "answerKey": "2"}
    assert choice(tmp_path, numbered).right == 1
    for answer in (1, "1", "B", "b", "a dog"):
        assert choice(tmp_path, {**OWN, "answer": answer}).right == 1, answer


def test_short_answers_are_a_text_a_number_several_or_a_pattern(tmp_path: Path) -> None:
    assert short(tmp_path, GSM8K).answers == ("1,005",)
    assert short(tmp_path, {"question": "?", "answer": ["Paris", 7, 2.5]}).answers == ("Paris", "7", "2.5")
    pattern = short(tmp_path, {"question": "?", "answer": "Paris", "regex": r"(?i)\bparis\b"}).pattern
    assert pattern is not None
    assert pattern.search("It is PARIS.")


def test_forms_mix_and_empty_lines_are_left_out(tmp_path: Path) -> None:
    found = read(tmp_path, "", *FORMS, "  ")
    assert [question.line for question in found] == [*range(2, 2 + len(FORMS))]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"question": "a",', "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[1, 2]", "it is [1, 2] and must be a JSON object"),
        ({"prompt": "a"}, "its fields ('prompt') are of no known form"),
        ({}, "its fields (none) are of no known form"),
        ({**ARC, "answerKey": "C"}, "answerKey is 'C', and the labels are 'A', 'B'"),
        ({**ARC, "choices": ["a", "b"]}, "choices is {'text': [...], 'label': [...]}"),
        ({**ARC, "choices": {"text": ["a", "b"], "label": ["A"]}}, "label has 1 entries and must have 2 to 26"),
        ({**OWN, "answer": 2}, "answer is 2: give an index from 0 to 1, a letter, or the text of a choice"),
        ({**OWN, "answer": True}, "answer is True: give an index"),
        ({**OWN, "answer": -1}, "answer is -1: give an index"),
        ({**OWN, "choices": ["a", 3]}, "choices is ['a', 3] and must be a list of texts"),
        ({**OWN, "choices": ["a"]}, "choices has 1 entries and must have 2 to 26"),
        ({**OWN, "question": ""}, "question is '' and must be a text"),
        ({**HELLASWAG, "label": ""}, "label is '': give an index"),
        ({**WINOGRANDE, "sentence": "no blank"}, 'the sentence has no "_" with words behind it'),
        ({**WINOGRANDE, "answer": "3"}, "answer is '3' and must be 1 or 2"),
        ({**BOOLQ, "answer": "yes"}, "must be true or false"),
        ({"question": "a", "answer": None}, "answer is None and must be a text or a number"),
        ({"question": "a", "answer": []}, "answer is an empty list"),
        ({"question": "a", "answer": "b", "regex": "("}, "regex is no regular expression"),
    ],
)  # fmt: skip
def test_a_malformed_line_is_told_with_its_number(tmp_path: Path, line: object, why: str) -> None:
    with pytest.raises(SprigError) as told:
        read(tmp_path, OWN, "", line)
    assert str(told.value).startswith(f"{tmp_path / 'exam.jsonl'}, line 3: ")
    assert why in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_without_questions_and_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SprigError, match="holds no question"):
        read(tmp_path, "", "")
    with pytest.raises(SprigError, match="No such file"):
        read_exam(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "caf\xe9"}')
    with pytest.raises(SprigError, match="line 1: it is not UTF-8"):
        read_exam(tmp_path / "latin.jsonl")


NAMES = st.sampled_from(sorted({name for form in FORMS for name in form} | {"regex", "question_stem"}))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just("#### ") | st.just("A_B"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "label", "a"]), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(FORMS), st.dictionaries(NAMES, VALUES, max_size=4), st.booleans())
def test_whatever_the_fields_hold_is_a_question_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, form: dict[str, Any], changes: dict[str, Any], whole: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        (question,) = read(folder, {**(form if whole else {}), **changes})
    except SprigError as e:
        if len(str(e).splitlines()) != 1:
            raise
        return
    if isinstance(question, ChoiceQuestion):
        assert 0 <= question.right < len(question.choices)
        assert all(one.context and one.continuation for one in question.choices)
    else:
        assert question.question.strip()
        assert question.answers
