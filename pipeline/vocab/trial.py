"""Tries a tokenizer in a child process, which may die of it and reaches nothing meanwhile.

The tokenizers library aborts its process on some files that parse well, and a regular expression may never end. Tokenizers
made only of known parts are spared the trial.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from agent.children.computing import confine_to
from agent.children.launch import cause, run_module
from agent.errors import VocabError
from pipeline.vocab.patterns import KNOWN_EXPRESSIONS
from pipeline.vocab.probes import PROBES

SECONDS = 3.5  # for starting Python and for all probes
SECONDS_PER_MEGABYTE = 0.5  # a vocabulary of 250,000 tokens is 30 MB and takes its time

_KNOWN_PARTS = frozenset({
    "Sequence", "NFC", "Replace", "Prepend", "BertNormalizer", "Precompiled", "ByteLevel", "Digits", "Split", "Metaspace",
    "Punctuation", "WhitespaceSplit", "BertPreTokenizer", "TemplateProcessing", "BertProcessing",
    "RobertaProcessing",
})  # fmt: skip


def is_plain(spec: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is made only of parts and expressions that are known to behave."""
    model = spec.get("model")
    if not isinstance(model, dict) or model.get("type") not in ("BPE", "WordPiece", "Unigram"):
        return False
    if model["type"] == "BPE" and any(model.get(k) for k in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")):
        return False
    return all(_known(part) for name in ("normalizer", "pre_tokenizer", "post_processor") for part in walk(spec.get(name)))


def _known(part: Mapping[str, Any]) -> bool:
    if str(part.get("type")) not in _KNOWN_PARTS:
        return False
    pattern = part.get("pattern")
    return not isinstance(pattern, dict) or "Regex" not in pattern or str(pattern["Regex"]) in KNOWN_EXPRESSIONS


def walk(part: Any) -> Iterator[dict[str, Any]]:
    """A normalizer, pre-tokenizer or post-processor of a tokenizer.json and all that it is made of; nothing for null."""
    if part is None:
        return
    part = part if isinstance(part, dict) else {}
    yield part
    for name in ("normalizers", "pretokenizers", "processors"):
        children = part.get(name) or []
        for child in children if isinstance(children, list) else [children]:
            yield from walk(child)


def try_tokenizer(kind: str, raw: bytes, origin: str) -> None:
    """Load a tokenizer and use it on PROBES in a child process.

    Args:
        kind: "json" for a tokenizer.json, "sentencepiece" for a tokenizer.model.
        raw: the file.
        origin: its name, for the message.

    Raises:
        VocabError: the tokenizer cannot be loaded, kills the process, or does not end.
    """
    timeout = SECONDS + SECONDS_PER_MEGABYTE * len(raw) / 1e6
    ended = run_module("pipeline.vocab.trial", [kind], raw, timeout, {"RUST_BACKTRACE": "0", "TOKENIZERS_PARALLELISM": "false"})
    if ended.timed_out:
        raise VocabError(f"{origin}: it needs more than {timeout:.0f} s for a few words; use another revision")
    if ended.status == 0 and ended.output == b"ok":
        return
    reason = ended.output.decode("utf-8", "replace") or cause(ended.status) or "it cannot be loaded"
    raise VocabError(f"{origin} does not work: {' '.join(reason.split())[:200]}; download it again or use another revision")


def _use(kind: str, raw: bytes) -> None:
    if kind == "sentencepiece":
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_proto=raw)
        for text in PROBES:
            processor.encode(text)
        return
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(raw.decode("utf-8"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for text in PROBES:
        normal = text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)
        if tokenizer.pre_tokenizer is not None:
            tokenizer.pre_tokenizer.pre_tokenize_str(normal)
        tokenizer.encode(text)
    json.dumps(sorted(tokenizer.get_vocab(with_added_tokens=True).values())[-1:])


def main() -> None:
    """The child: the file on standard input, "ok" or the reason on standard output."""
    try:
        confine_to([])
        _use(sys.argv[1], sys.stdin.buffer.read())
        answer = "ok"
    except BaseException as e:  # the library's panics are no Exceptions
        answer = str(e) or type(e).__name__
    sys.stdout.buffer.write(answer.encode("utf-8", "replace")[:1000])


if __name__ == "__main__":
    main()
