"""Makes a tokenizer of a checkpoint's files: of tokenizer.json, or of older and other forms as transformers would convert them.

What goes into the library is looked at first: it is untrusted.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from tokenizers import Tokenizer

from agent.errors import UnsupportedError, VocabError
from pipeline.vocab.files import (
    MAX_ROWS,
    Json,
    TokenizerSource,
    check_text,
    check_vocabulary,
    extra_tokens,
    guarded,
    homeless_notes,
    parse_json,
    text_of,
)  # fmt: skip
from pipeline.vocab.patterns import QWEN2
from pipeline.vocab.sentencepiece import UNIGRAM, parse_model
from pipeline.vocab.trial import is_plain, try_tokenizer

MAX_TEKKEN_BYTES = 512  # of one token; the time to find its merges grows with the square
_TEKKEN_MARKS = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_ROBERTA = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
_XLM_ROBERTA = ("<s>", "<pad>", "</s>", "<unk>")  # in this order; the model's own first three pieces are left out
_EMPTY_SPEC: Json = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
    "post_processor": None, "decoder": None,
}  # fmt: skip
_FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


def read_source(files: Mapping[str, bytes], n_rows: int) -> TokenizerSource:
    """Read the tokenizer from tokenizer.json, or build it from the older files.

    Added tokens that the checkpoint has no row for are left out, with a note: a model that has no embedding for a token
    cannot have learnt it (the image tokens of a text-only export).

    Raises:
        VocabError: broken files, or base tokens beyond ``n_rows``.
        UnsupportedError: no tokenizer that Sprig knows.
    """
    given: str | None = None
    if "tokenizer.json" in files:
        origin, spec = "tokenizer.json", parse_json(files, "tokenizer.json")
        given = files["tokenizer.json"].decode("utf-8", "replace")
    else:
        origin, spec = _made_spec(files)
    spec, dropped = _without_homeless(spec, n_rows, origin)
    text = json.dumps(spec) if given is None or dropped else given
    if not is_plain(spec):
        try_tokenizer("json", text.encode("utf-8", "replace"), origin)
    with guarded(f"{origin} cannot be loaded"):
        tokenizer = Tokenizer.from_str(text)
        tokenizer.no_truncation()
        tokenizer.no_padding()
    for number, token in sorted(extra_tokens(files).items()):
        check_text(token.content, "tokenizer_config.json")
        if tokenizer.token_to_id(token.content) is not None:
            continue
        if number >= n_rows:
            dropped.append(token.content)
            continue
        with guarded("tokenizer_config.json: added_tokens_decoder"):
            (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
            got = tokenizer.token_to_id(token.content)
        if got != number:
            raise VocabError(f"tokenizer_config.json gives token {token.content[:40]!r} the id {number}, {origin} {got}")
    return TokenizerSource(tokenizer, spec, origin, homeless_notes(dropped))


def _without_homeless(spec: Json, n_rows: int, origin: str) -> tuple[Json, list[str]]:
    """The tokenizer's JSON without added tokens beyond the embedding, and their texts."""
    model = spec.get("model")
    if not isinstance(model, dict):
        raise VocabError(f"{origin} has no model; download it again")
    vocab = model.get("vocab")
    if isinstance(vocab, dict):
        base = check_vocabulary(vocab, origin)
        top = max(base.values())
    elif isinstance(vocab, list) and vocab:
        base, top = {}, len(vocab) - 1
    else:
        raise VocabError(f"{origin} has no vocabulary; download it again")
    if top >= n_rows:  # the library would walk through every id up to the largest
        what = f"{origin} has token id {top}, but the embedding has only {n_rows} rows"
        raise VocabError(f"{what}; the files do not fit together")
    added = spec.get("added_tokens") or []
    if not isinstance(added, list):
        raise VocabError(f"{origin}: added_tokens is not a list; download it again")
    kept, dropped = [], []
    ids: dict[int, str] = {}
    for entry in added:
        text = text_of(entry)
        number = entry.get("id") if isinstance(entry, dict) else None
        if text is None or not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise VocabError(f"{origin}: added token {str(entry)[:60]} is broken; download it again")
        check_text(text, origin)
        if ids.setdefault(number, text) != text:
            raise VocabError(f"{origin}: added tokens {ids[number][:40]!r} and {text[:40]!r} share the id {number}")
        if number >= n_rows and text not in base:
            dropped.append(text)
        else:
            kept.append(entry)
    return ({**spec, "added_tokens": kept} if dropped else spec), dropped


def _made_spec(files: Mapping[str, bytes]) -> tuple[str, Json]:
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
    named = str(config.get("tokenizer_class"))
    qwen, roberta = "Qwen2" in named, named.startswith("Roberta")
    vocab = check_vocabulary(parse_json(files, "vocab.json"), "vocab.json")
    marks = _named_marks({**parse_json(files, "special_tokens_map.json"), **config}, vocab, _ROBERTA if roberta else {})
    split = {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False}
    steps = {"type": "Sequence", "pretokenizers": [split, {**level, "use_regex": False}]}
    return {
        **_EMPTY_SPEC,
        "normalizer": {"type": "NFC"} if qwen else None,
        "pre_tokenizer": steps if qwen else level,
        "added_tokens": [
            {"id": vocab[text], "content": text, **_FLAGS, "lstrip": roberta and role == "mask", "special": True}
            for role, text in marks.items()
        ],
        "post_processor": _framed("<s> $A </s>", "<s> $A </s> </s> $B </s>", vocab) if roberta else None,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }


def _named_marks(config: Json, vocab: Mapping[str, int], defaults: Mapping[str, str]) -> dict[str, str]:
    """Role -> special token, of those that the vocabulary has; each token once."""
    found: dict[str, str] = {}
    for role in _ROLES:
        text = text_of(config.get(f"{role}_token")) or defaults.get(role)
        if text and text in vocab and text not in found.values():
            found[role] = text
    return found


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
