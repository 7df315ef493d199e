"""The marks by which a chat template tells roles apart, and texts that must not spell them.

Where a mark is one token of the vocabulary, text of others never becomes it (agent.engine.llama). Where it is plain text, as in
Zephyr's ``<|user|>``, Llama 2's ``[INST]`` or Vicuna's ``USER:``, only its spelling tells it from what somebody says: so in all
that the template did not write itself, a space is put into it.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

from agent.messages import Segment

# A mark in brackets: <|user|>, <<SYS>>, </s>, [INST], [/INST], [|user|], and DeepSeek's and others' wide forms.
_BRACKETED = re.compile(r"<{1,2}[^<>\s]{1,60}>{1,2}|\[[|/]?[^\W\d_][\w|]{1,40}\]")
# A mark of words: USER:, ### Instruction:, GPT4 Correct User:, **Human**; or one of signs, like MiniMax' ]~b]ai
_WORDS = re.compile(r"[^\w\s{}\"']{0,6} ?[^\W\d_][\w /-]{0,40}[^\w\s{}\"']{0,6}|[^\s{}\"']{3,40}")
NEAR = 200  # characters beside a text in which its marks are looked for
_MOST = 32  # marks of one template


@dataclass(frozen=True, slots=True)
class RoleMarks:
    """How a template tells roles apart.

    Attributes:
        texts: the marks, the longest first.
        unprotected: why a text of others may pass for another role, in words that follow "the chat template"; empty, it cannot.
    """

    texts: tuple[str, ...] = ()
    unprotected: str = ""


def role_marks(talk: str, said: Sequence[str], others: Iterable[str] = ()) -> RoleMarks:
    """The marks in a rendered conversation.

    Args:
        talk: as the template wrote it.
        said: the texts of its messages, in order, of a user and an assistant in turn.
        others: what the template wrote in front of, or behind, a text of another role.
    """
    words = [word for word in said if word in talk]
    found: list[str] = []
    bare = [""] if len(words) < 2 else []
    for one, other in pairwise(words):
        stretch = talk.partition(one)[2].partition(other)[0]
        marks, guarded = _between(stretch)
        found += marks
        if not guarded:
            bare.append(stretch.strip()[:20])
    if words:
        head, tail = talk.partition(words[0])[0], talk.rpartition(words[-1])[2]
        found += _BRACKETED.findall(f"{head[:NEAR]} {head[-NEAR:]} {tail[:NEAR]}")
    for near in others:
        found += [mark for mark in _between(near)[0] if mark[0] in "<[" or mark[-1] == ":"]
    texts = sorted({mark for mark in found if len(mark) > 2}, key=lambda m: (-len(m), m))[:_MOST]
    return RoleMarks(tuple(texts), f"writes nothing but {bare[0]!r} between two turns" if bare else "")


def _between(stretch: str) -> tuple[list[str], bool]:
    """The marks between two texts, and whether there is one that opens the second."""
    brackets = _BRACKETED.findall(stretch)
    rest = stretch.strip()
    closing = bool(brackets) and rest.startswith(brackets[0])
    if closing:
        rest = rest[len(brackets[0]) :]
    if _BRACKETED.search(rest):
        return brackets, True
    line = rest.strip().rsplit("\n", 1)[-1].strip()
    if not line:
        return brackets, closing
    if _WORDS.fullmatch(line) and re.search(r"[^\w\s]", line):
        return [*brackets, line], True
    # A bare word is a mark by the one that it stands at: <|im_start|>user
    return brackets, closing and rest[:1] not in ("", "\n")


def plain_marks(marks: Iterable[str], tokenize: Callable[[Segment], Sequence[int]]) -> tuple[str, ...]:
    """Those that are not one token of the vocabulary, or are one that a text of others becomes too."""

    def apart(mark: str) -> bool:
        own = tokenize(Segment(mark, trusted=True))
        return len(own) == 1 and own[0] not in tokenize(Segment(mark, trusted=False))

    return tuple(mark for mark in marks if not apart(mark))


def unforged(segments: Sequence[Segment], marks: Sequence[str]) -> list[Segment]:
    """The same segments, but no mark stands anywhere except where the template wrote it.

    A mark that some untrusted character is a part of gets a space: ``< |user|>``, ``USER :``, ``### Instruction :``. It is found
    in look-alikes too, which a tokenizer may take for it.
    """
    made = list(segments)
    if not marks:
        return made
    pattern = _pattern(tuple(marks))
    while cuts := list(_forged(made, pattern)):  # a space may make another mark, which has one at this place; it gets one too
        places: dict[int, list[int]] = {}
        for number, at in cuts:
            places.setdefault(number, []).append(at)
        for number, ats in places.items():
            text = made[number].text
            made[number] = Segment(" ".join(text[a:b] for a, b in pairwise([0, *ats, len(text)])), trusted=False)
    return made


@lru_cache(maxsize=8)
def _pattern(marks: tuple[str, ...]) -> re.Pattern[str]:
    folded = sorted({_folded(mark)[0] for mark in marks}, key=len, reverse=True)
    return re.compile("(?=(" + "|".join(map(re.escape, folded)) + "))")


def _forged(segments: Sequence[Segment], pattern: re.Pattern[str]) -> Iterable[tuple[int, int]]:
    """Where a space belongs: the number of an untrusted segment and a place in it, in order."""
    text = "".join(segment.text for segment in segments)
    folded, origin = _folded(text)
    starts = list(accumulate((len(segment.text) for segment in segments), initial=0))
    last = -1
    for match in pattern.finditer(folded):
        start, end = origin[match.start()], origin[match.end(1) - 1] + 1
        if start < last:
            continue  # the space that goes there may break this one too; if not, it is found again
        wanted = start + 1 if match[1][0] in "<[" or match[1][-1].isalnum() else end - 1
        for at in (wanted, *range(start + 1, end)):
            for place in (at, at - 1):  # the character behind the space, or the one before it
                number = bisect_right(starts, place) - 1
                if not segments[number].trusted:
                    yield number, at - starts[number]
                    last = end
                    break
            if last == end:
                break


def _folded(text: str) -> tuple[str, Sequence[int]]:
    """The text in its plainest form, and of each character the place that it comes from."""
    if text.isascii():
        return text, range(len(text))
    plain = [_plain(char) for char in text]
    return "".join(plain), [place for place, form in enumerate(plain) for _ in form]


@lru_cache(maxsize=4096)
def _plain(char: str) -> str:
    """What a tokenizer may make of a character: NFKC, SentencePiece's blank as one, and nothing of what cannot be seen."""
    if char == "\u2581":
        return " "
    if (unicodedata.category(char) in ("Cf", "Cc") and not char.isspace()) or "\ufe00" <= char <= "\ufe0f":
        return ""
    return unicodedata.normalize("NFKC", char)
