"""A tokenizer's files, of whatever form, as the tokenizer.json that transformers would make of them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from agent.errors import UnsupportedError, VocabError
from pipeline.vocab.files import MAX_ROWS, Json, parse_json, text_of
from pipeline.vocab.patterns import QWEN2
from pipeline.vocab.sentencepiece import UNIGRAM, parse_model

MAX_TEKKEN_BYTES = 512  # of one token; the time to find its merges grows with the square
_TEKKEN_MARKS = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
_XLM_ROBERTA = ("<s>", "<pad>", "</s>", "<unk>")  # in this order; the model's own first three pieces are left out
_EMPTY_SPEC: Json = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
    "post_processor": None, "decoder": None,
}  # fmt: skip
_FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


def made_spec(files: Mapping[str, bytes]) -> tuple[str, Json]:
    """The file that holds the vocabulary where there is no tokenizer.json, and what that would hold.

    Raises:
        VocabError: broken files.
        UnsupportedError: no tokenizer that Sprig knows.
    """
    for needed, origin, spec in _FORMS:
        if all(name in files for name in needed):
            return origin, spec(files)
    raise UnsupportedError(_unknown(files))


def _unknown(files: Mapping[str, bytes]) -> str:
    advice = "; take a revision of it that has a tokenizer.json, or let transformers write one (save_pretrained of its tokenizer)"
    if ranks := next((name for name in files if fnmatchcase(name, "*.tiktoken") or name == "tiktoken.model"), None):
        return f"the checkpoint has its tokenizer only as {ranks}, whose rules stand in the model's own Python code{advice}"
    own = parse_json(files, "tokenizer_config.json").get("auto_map")
    if isinstance(own, dict) and own.get("AutoTokenizer"):
        return f"the checkpoint's tokenizer is Python code of its own (auto_map in tokenizer_config.json){advice}"
    return (
        "the checkpoint has no tokenizer that Sprig knows: tokenizer.json, tokenizer.model, vocab.json with merges.txt, "
        "vocab.txt, tekken.json or sentencepiece.bpe.model"
    )


def _lines(files: Mapping[str, bytes], name: str) -> list[str]:
    try:
        return files[name].decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise VocabError(f"{name} is not UTF-8 text; download it again") from None


def _gpt2_spec(files: Mapping[str, bytes]) -> Json:
    """GPT-2's files as a tokenizer.json. They do not say how text is split; the tokenizer's class does."""
    merges = []
    for line in _lines(files, "merges.txt"):
        pair = line.rstrip("\r").split(" ")
        if line.startswith("#version") or not line.strip():
            continue
        if len(pair) != 2:
            raise VocabError(f"merges.txt: {line[:60]!r} is not a merge of two tokens; download it again")
        merges.append(pair)
    config = parse_json(files, "tokenizer_config.json")
    prefix = bool(config.get("add_prefix_space"))
    level = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True}
    qwen = "Qwen2" in str(config.get("tokenizer_class"))
    split = {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False}
    steps = {"type": "Sequence", "pretokenizers": [split, {**level, "use_regex": False}]}
    return {
        **_EMPTY_SPEC,
        "normalizer": {"type": "NFC"} if qwen else None,
        "pre_tokenizer": steps if qwen else level,
        "model": {"type": "BPE", "vocab": parse_json(files, "vocab.json"), "merges": merges},
    }


def _bert_spec(files: Mapping[str, bytes]) -> Json:
    """BERT's vocab.txt as a tokenizer.json: one token a line, the line number is the id."""
    lines = [line.rstrip("\r") for line in _lines(files, "vocab.txt")]
    while lines and not lines[-1]:
        lines.pop()
    vocab = {token: number for number, token in enumerate(lines)}
    if len(vocab) != len(lines):
        raise VocabError("vocab.txt has the same token on two lines; download it again")
    config = parse_json(files, "tokenizer_config.json")
    lower = bool(config.get("do_lower_case", True))
    names = {role: text_of(config.get(f"{role}_token")) or f"[{role.upper()}]" for role in ("cls", "sep", "unk", "pad", "mask")}
    known = [text for text in names.values() if text in vocab]
    ends = {role: [names[role], vocab[names[role]]] for role in ("sep", "cls") if names[role] in vocab}
    return {
        **_EMPTY_SPEC,
        "added_tokens": [{"id": vocab[text], "content": text, **_FLAGS, "special": True} for text in known],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": lower,
            "strip_accents": strip if isinstance(strip := config.get("strip_accents"), bool) else None,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", **ends} if len(ends) == 2 else None,
        "model": {
            "type": "WordPiece", "vocab": vocab, "unk_token": names["unk"], "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
    }  # fmt: skip


def _tekken_spec(files: Mapping[str, bytes]) -> Json:
    """Mistral's format: a pattern, tokens by rank, and special tokens, which come first.

    A token's rank is also that of the merges that make it. Format: ``Tekkenizer`` of https://github.com/mistralai/mistral-common.
    """
    tekken = parse_json(files, "tekken.json")
    config, listed = tekken.get("config"), tekken.get("vocab")
    pattern = config.get("pattern") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(pattern, str) or not isinstance(listed, list) or not listed:
        raise VocabError("tekken.json has no pattern or no vocabulary; download it again")
    named = tekken.get("special_tokens")
    entries = named if isinstance(named, list) else []
    marks = [text_of(entry.get("token_str")) if isinstance(entry, dict) else None for entry in entries] or list(_TEKKEN_MARKS)
    if None in marks or not (named is None or isinstance(named, list)):
        raise VocabError("tekken.json: its special tokens are broken; download it again")
    first, size = (config.get(f"default_{name}") for name in ("num_special_tokens", "vocab_size"))
    first = first if isinstance(first, int) and len(marks) <= first < MAX_ROWS else len(marks)
    marks += [f"<SPECIAL_{i}>" for i in range(len(marks), first)]
    if isinstance(size, int) and first < size:
        listed = listed[: size - first]
    ranks = {token: rank for rank, token in enumerate(_tekken_bytes(entry, i) for i, entry in enumerate(listed))}
    merges: list[list[str]] = []
    for token in ranks:
        parts = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        merges += [[_written(a), _written(b)] for a, b in sorted(parts, key=lambda p: (ranks[p[0]], ranks[p[1]]))]
    vocab = {_written(token): first + rank for token, rank in ranks.items()}
    vocab |= {text: number for number, text in enumerate(marks) if text}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {
        **_EMPTY_SPEC,
        "added_tokens": [{"id": number, "content": text, **_FLAGS, "special": True} for number, text in enumerate(marks) if text],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": _framed("<s> $A", "<s> $A <s> $B", vocab),
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": True},
    }


def _tekken_bytes(entry: Any, number: int) -> bytes:
    try:
        token = base64.b64decode(entry["token_bytes"], validate=True)
    except (TypeError, KeyError, ValueError, binascii.Error):
        raise VocabError(f"tekken.json: token {number} is {str(entry)[:60]!r}; download it again") from None
    if not 0 < len(token) <= MAX_TEKKEN_BYTES:
        raise VocabError(f"tekken.json: token {number} has {len(token)} bytes; download it again")
    return token


_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_LETTERS = {byte: chr(byte) for byte in _PRINTABLE} | {
    byte: chr(256 + n) for n, byte in enumerate(b for b in range(256) if b not in _PRINTABLE)
}


def _written(token: bytes) -> str:
    """Bytes as GPT-2's printable characters."""
    return "".join(map(_LETTERS.__getitem__, token))


def _framed(single: str, pair: str, vocab: Mapping[str, int]) -> Json | None:
    """A post-processor: special tokens, ``$A`` and ``$B``, with spaces between. None if the vocabulary lacks one of them."""
    names = {name for name in pair.split() if not name.startswith("$")}
    if not names <= vocab.keys():
        return None

    def parts(template: str) -> list[Json]:
        return [
            {"Sequence": {"id": name[1:], "type_id": 0}} if name.startswith("$") else {"SpecialToken": {"id": name, "type_id": 0}}
            for name in template.split()
        ]

    known = {name: {"id": name, "ids": [vocab[name]], "tokens": [name]} for name in names}
    return {"type": "TemplateProcessing", "single": parts(single), "pair": parts(pair), "special_tokens": known}


def _xlm_roberta_spec(files: Mapping[str, bytes]) -> Json:
    """XLM-RoBERTa's SentencePiece model: four tokens come first, ``<mask>`` last, and every piece lies one id higher."""
    named = str(parse_json(files, "tokenizer_config.json").get("tokenizer_class") or "XLMRobertaTokenizer")
    model = parse_model(files["sentencepiece.bpe.model"], "sentencepiece.bpe.model")
    if not named.startswith("XLMRoberta") or model.kind != UNIGRAM:
        raise UnsupportedError(f"sentencepiece.bpe.model alone is read only for XLM-RoBERTa, and this is for {named[:40]!r}")
    pieces = [*((text, 0.0) for text in _XLM_ROBERTA), *((p.text, p.score) for p in model.pieces[3:]), ("<mask>", 0.0)]
    ids = {text: number for number, text in enumerate(_XLM_ROBERTA)} | {"<mask>": len(pieces) - 1}
    spaces = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    return {
        **_EMPTY_SPEC,
        "added_tokens": [
            {"id": number, "content": text, **_FLAGS, "lstrip": text == "<mask>", "special": True} for text, number in ids.items()
        ],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(model.charsmap).decode()},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, spaces]},
        "post_processor": _framed("<s> $A </s>", "<s> $A </s> </s> $B </s>", ids),
        "model": {"type": "Unigram", "unk_id": 3, "vocab": [list(piece) for piece in pieces], "byte_fallback": False},
    }


_FORMS: tuple[tuple[tuple[str, ...], str, Callable[[Mapping[str, bytes]], Json]], ...] = (
    (("vocab.json", "merges.txt"), "vocab.json", _gpt2_spec),
    (("vocab.txt",), "vocab.txt", _bert_spec),
    (("tekken.json",), "tekken.json", _tekken_spec),
    (("sentencepiece.bpe.model",), "sentencepiece.bpe.model", _xlm_roberta_spec),
)
