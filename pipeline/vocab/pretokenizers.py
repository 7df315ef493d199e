"""Finds the ``tokenizer.ggml.pre`` that splits text as a byte-level BPE tokenizer does: by comparing both, not by a name.

llama.cpp knows a fixed list of pre-tokenizers (src/llama-vocab.cpp); the key's value decides the regular expressions and
whether a piece that is itself a token skips the merges. Each candidate here stands for one of them: the splitter as the
original tokenizers write it, and, where llama.cpp only approximates that, what it really does.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers

from agent.errors import UnsupportedError, VocabError
from pipeline.vocab.files import TokenizerSource, guarded
from pipeline.vocab.patterns import CANDIDATES, DIGITS, FALCON, GPT2, Candidate, Steps
from pipeline.vocab.probes import PROBES
from pipeline.vocab.tokenizer_json import encoder
from pipeline.vocab.trial import walk

MAX_DEVIATION = 0.1  # share of the probes that the nearest pre-tokenizer may give other ids
SECONDS = 3.0  # for all probes together; a regular expression that needs more would stall every use of the tokenizer

Splitter = Callable[[str], list[str]]


def _sequence(steps: Steps) -> Any:
    """The steps as the library's pre-tokenizer."""
    parts: list[Any] = []
    for step in steps:
        if step == DIGITS:
            parts.append(pre_tokenizers.Digits(individual_digits=True))
        elif step == FALCON:
            parts.append(pre_tokenizers.Punctuation("contiguous"))
            parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
            parts.append(pre_tokenizers.Digits(individual_digits=False))
            parts.append(pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"))
        elif step != GPT2:
            parts.append(pre_tokenizers.Split(Regex(step), "isolated"))
    if steps[-1] != FALCON:
        parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=steps[-1] == GPT2))
    return pre_tokenizers.Sequence(parts)


@cache
def splitter(steps: Steps) -> Splitter:
    """The function from text to its byte-level pieces."""
    sequence = _sequence(steps)
    return lambda text: [piece for piece, _ in sequence.pre_tokenize_str(text)]


@dataclass(frozen=True, slots=True)
class Recognition:
    """The pre-tokenizer that was found.

    Attributes:
        pre: the value for ``tokenizer.ggml.pre``.
        exact: tells for a text whether llama.cpp splits it as the original does.
        notes: what the user should know.
    """

    pre: str
    exact: Callable[[str], bool]
    notes: tuple[str, ...]


def recognise(
    source: TokenizerSource,
    ignore_merges: bool,
    clean_up: bool,
    merges_suffice: Callable[[], bool],
    carried: str | None = None,
) -> Recognition:
    """The candidate that splits every probe as this tokenizer does, else the one that comes nearest in ids.

    Args:
        source: a byte-level BPE tokenizer.
        ignore_merges: whether this tokenizer takes a piece that is a token whole.
        clean_up: whether it removes spaces before punctuation when it decodes.
        merges_suffice: whether every token is also what the merges make of its text; then ``ignore_merges`` has no effect
            and either kind of candidate will do. Called only when that decides.
        carried: the name that was found before the vocabulary was cut. It only decides between candidates that fit.

    Raises:
        UnsupportedError: no candidate comes near, or the normalizer does more than NFC.
        VocabError: the tokenizer's regular expressions do not end.
    """
    pieces, folded = _split_probes(source)
    matching = [c for c in CANDIDATES if next(_differences(c, pieces), None) is None]
    if not matching:
        return _nearest(source, pieces, clean_up, folded, carried)
    fitting = [c for c in matching if c.ignore_merges == ignore_merges]
    improvable = not fitting or fitting[0].really is not None
    if improvable and len(fitting) < len(matching) and merges_suffice():
        fitting = matching
    notes: list[str] = []
    if not fitting:
        fitting = matching
        notes.append(
            f"llama.cpp {'takes' if matching[0].ignore_merges else 'does not take'} whole pieces that are tokens "
            f"({matching[0].pre}), the original tokenizer does the opposite: rare words may get other ids"
        )
    best = min(fitting, key=lambda c: (c.pre != carried, c.clean_up != clean_up and c.really is None, fitting.index(c)))
    conditions: list[Callable[[str], bool]] = []
    if best.really is not None:
        original, real = splitter(best.steps), splitter(best.really)
        conditions.append(lambda text: original(text) == real(text))
        marks = "" if "M" in best.really[0] else " and splits before combining marks"
        case = f"knows upper and lower case only in ASCII{marks}"
        notes.append(
            f"llama.cpp's {best.pre!r} pre-tokenizer {best.differs or case}: some words get other, equally readable, tokens"
        )
    return _recognition(best, notes, conditions, folded)


def _recognition(best: Candidate, notes: list[str], conditions: list[Callable[[str], bool]], folded: bool) -> Recognition:
    if best.fragile:
        notes.append("llama.cpp's tokenizer crashes on ten thousand or more characters without a break for this pre-tokenizer")
    if folded:
        notes.append("the original tokenizer composes Unicode (NFC) first, llama.cpp does not")
        conditions.append(lambda text: unicodedata.is_normalized("NFC", text))
    return Recognition(best.pre, lambda text: all(holds(text) for holds in conditions), tuple(notes))


def _nearest(
    source: TokenizerSource, pieces: dict[str, list[str]], clean_up: bool, folded: bool, carried: str | None
) -> Recognition:
    """Of the candidates that cut plain words as this tokenizer does, the one whose ids differ least.

    Where merges never reach over a cut, it does not matter whether there is one.
    """
    own = encoder(source)
    plain = {text: cut for text, cut in pieces.items() if re.fullmatch("[a-z]+( [a-z]+)*", text)}
    likely = [c for c in CANDIDATES if next(_differences(c, plain), None) is None]
    wanted = {text: own(text) for text in pieces}
    with guarded(f"{source.origin}: cannot be copied"):
        copy = Tokenizer.from_str(source.tokenizer.to_str())
    copy.normalizer = None

    def become(candidate: Candidate) -> None:
        """Let the copy tokenize as llama.cpp does with this pre-tokenizer."""
        copy.pre_tokenizer = _sequence(candidate.really or candidate.steps)
        copy.model.ignore_merges = candidate.ignore_merges

    def ids(text: str) -> list[int]:
        return list(copy.encode(text, add_special_tokens=False).ids)

    wrong: dict[str, list[str]] = {}
    for candidate in likely:
        become(candidate)
        wrong[candidate.pre] = [text for text, numbers in wanted.items() if ids(text) != numbers]
    best = min(likely, key=lambda c: (c.pre != carried, len(wrong[c.pre]), c.clean_up != clean_up), default=None)
    if best is None or len(wrong[best.pre]) > MAX_DEVIATION * len(wanted):
        raise UnsupportedError(_explain(source, pieces))
    lost = wrong[best.pre]
    become(best)
    example = f", {min(lost, key=lambda t: (not t.isascii(), len(t)))!r} for one" if lost else ""
    note = (
        f"none of llama.cpp's pre-tokenizers that Sprig knows cuts just like this one; by the nearest, {best.pre!r}, {len(lost)} "
        f"of {len(wanted)} short texts get other ids{example}"
    )
    return _recognition(best, [note], [lambda text: ids(text) == own(text)], folded)


def _split_probes(source: TokenizerSource) -> tuple[dict[str, list[str]], bool]:
    """The tokenizer's pieces of each normalized probe, and whether it composes Unicode."""
    pre, normalizer = source.tokenizer.pre_tokenizer, source.tokenizer.normalizer
    pieces: dict[str, list[str]] = {}
    folded = False
    start = time.monotonic()
    for text in PROBES:
        with guarded(f"{source.origin}: its pre-tokenizer fails on {text!r}"):
            normal = normalizer.normalize_str(text) if normalizer is not None else text
            pieces[normal] = [piece for piece, _ in pre.pre_tokenize_str(normal)]
        if time.monotonic() - start > SECONDS:
            raise VocabError(f"{source.origin}: its regular expressions need more than {SECONDS:.0f} s for a few words")
        if normal != text:
            if normal != unicodedata.normalize("NFC", text):
                raise UnsupportedError(
                    f"{source.origin}: its normalizer turns {text!r} into {normal!r}, which llama.cpp does not do for BPE"
                )
            folded = True
    for node in walk(source.spec.get("normalizer")):
        kind = str(node.get("type"))[:40]
        if kind not in ("NFC", "Sequence"):
            raise UnsupportedError(f"{source.origin}: its normalizer has a step {kind!r}, which llama.cpp does not do for BPE")
    return pieces, folded


def _differences(candidate: Candidate, pieces: Mapping[str, list[str]]) -> Iterator[str]:
    """The texts that a candidate splits otherwise."""
    split = splitter(candidate.steps)
    return (text for text, own in pieces.items() if split(text) != own)


def _explain(source: TokenizerSource, pieces: dict[str, list[str]]) -> str:
    """The message: the closest candidate, and a text, in plain letters if possible, that it splits otherwise."""
    nearest = min(CANDIDATES, key=lambda c: len(list(_differences(c, pieces))))
    text = min(_differences(nearest, pieces), key=lambda t: (not t.isascii(), len(t)))
    return (
        f"{source.origin}: none of llama.cpp's pre-tokenizers that Sprig knows splits like this one; {text!r} becomes "
        f"{_show(pieces[text])} here and {_show(splitter(nearest.steps)(text))} in the nearest, {nearest.pre!r}"
    )


def _show(pieces: Sequence[str]) -> str:
    decoder = decoders.ByteLevel()
    return repr("|".join(decoder.decode([piece]) for piece in pieces)[:80])
