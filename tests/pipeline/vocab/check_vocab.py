"""Real vocabularies through Sprig's own eyes: `make check-vocab`, outside the suite.

llama.cpp's source holds vocabularies of real models (``models/ggml-vocab-*.gguf``) with texts (``.inp``) and the ids that the
original tokenizers give (``.out``). Each is taken apart into the files of a Hugging Face repository, converted, and compared:
tokens, merges, types, and the ids, by the library and by llama.cpp. What a vocabulary does not hold, its splitter, is written
here as the original has it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gguf import TokenType
from tokenizers import Regex, normalizers, pre_tokenizers

from agent.errors import SprigError
from agent.gguf.reader import read_header
from pipeline.vocab.draft import looks_special
from pipeline.vocab.vocabulary import Vocabulary, load_vocabulary
from tests.fixtures.llama_vocab import llama_vocab
from tests.fixtures.tokenizers import LLAMA3, QWEN2, QWEN35, deepseek_coder_splitter, deepseek_llm_splitter, gpt2, split

CONTROL, USER_DEFINED, UNKNOWN, NORMAL, BYTE = (
    int(TokenType[name]) for name in ("CONTROL", "USER_DEFINED", "UNKNOWN", "NORMAL", "BYTE")
)
_SEPARATOR = "\n__ggml_vocab_test__\n"
_PADDING = re.compile(r"\[PAD\d+\]")


@dataclass(frozen=True)
class Original:
    """What a tokenizer has beside its vocabulary. ``build`` makes the files of its repository from the GGUF's keys."""

    build: Callable[[Mapping[str, Any], Original], dict[str, bytes]]
    splitter: pre_tokenizers.PreTokenizer | None = None
    nfc: bool = False
    ignore_merges: bool = False
    pre: tuple[str, ...] = ()  # values of tokenizer.ggml.pre that mean the same


def _json(keys: Mapping[str, Any], original: Original, **model: Any) -> dict[str, bytes]:
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    real = [i for i, text in enumerate(tokens) if not _PADDING.fullmatch(text)]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": i, "content": tokens[i], **flags, "special": types[i] != USER_DEFINED or "|" in tokens[i]}
        for i in real
        if types[i] in (CONTROL, USER_DEFINED, UNKNOWN)
    ]
    spec = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": json.loads(normalizers.NFC().__getstate__()) if original.nfc else None,
        "pre_tokenizer": json.loads(original.splitter.__getstate__()) if original.splitter else None,
        "model": {
            "type": "BPE",
            "vocab": {tokens[i]: i for i in real},
            "merges": list(keys.get("tokenizer.ggml.merges", [])),
            "ignore_merges": original.ignore_merges,
        },
    }
    spec["model"] |= model.pop("model", {})  # type: ignore[operator]
    return {"tokenizer.json": json.dumps(spec | model).encode()}


def _gemma4(keys: Mapping[str, Any], original: Original) -> dict[str, bytes]:
    normalizer = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    pre = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    model = {"unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True}
    files = _json(keys, original, normalizer=normalizer, pre_tokenizer=pre, model=model)
    return files | {"config.json": b'{"model_type": "gemma4_text"}'}


def _unigram(keys: Mapping[str, Any], original: Original) -> dict[str, bytes]:
    charsmap = bytes(keys["tokenizer.ggml.precompiled_charsmap"].astype("uint8"))
    tokens, scores = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.scores"]
    last = max(i for i, text in enumerate(tokens) if not _PADDING.fullmatch(text)) + 1
    vocab = [[text, float(score)] for text, score in zip(tokens[:last], scores[:last], strict=True)]
    normalizer = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
    pre = json.loads(
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", "always")]).__getstate__()
    )
    files = _json(keys, original)
    spec = json.loads(files["tokenizer.json"])
    model = {"type": "Unigram", "unk_id": int(keys["tokenizer.ggml.unknown_token_id"]), "vocab": vocab}
    spec |= {"model": model, "normalizer": normalizer, "pre_tokenizer": pre}
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] != "<unk>"]
    return {"tokenizer.json": json.dumps(spec).encode()}


def _wordpiece(keys: Mapping[str, Any], original: Original) -> dict[str, bytes]:
    """BERT's vocab.txt: llama.cpp marks the first piece of a word, BERT the others."""
    pairs = zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"], strict=True)
    lines = [text if kind == CONTROL else text[1:] if text.startswith("▁") else f"##{text}" for text, kind in pairs]
    return {"vocab.txt": ("\n".join(lines) + "\n").encode()}


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _sentencepiece(keys: Mapping[str, Any], original: Original) -> dict[str, bytes]:
    """tokenizer.model up to the last byte or ordinary piece; tokens behind it are added by tokenizer_config.json."""
    tokens, types, scores = (keys[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type", "scores"))
    own = max(i for i, kind in enumerate(types) if kind in (NORMAL, BYTE)) + 1
    kinds = {0: UNKNOWN, 1: CONTROL, 2: CONTROL}
    pieces = b"".join(
        _field(
            1,
            _field(1, tokens[i].encode())
            + b"\x15"
            + struct.pack("<f", scores[i])
            + b"\x18"
            + _varint(kinds.get(i, int(types[i]))),
        )
        for i in range(own)
    )
    raw = pieces + _field(2, b"\x18\x02\x98\x02\x01") + _field(3, _field(1, b"identity") + b"\x18\x01\x20\x00\x28\x01")
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = {
        str(i): {"content": tokens[i], **flags, "special": types[i] == CONTROL}
        for i in range(len(tokens))
        if types[i] in (CONTROL, USER_DEFINED) and not _PADDING.fullmatch(tokens[i])
    }
    config = {"bos_token": tokens[1], "eos_token": tokens[2], "added_tokens_decoder": added}
    return {"tokenizer.model": raw, "tokenizer_config.json": json.dumps(config).encode()}


_FALCON = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Punctuation("contiguous"),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
    ]
)
ORIGINALS = {
    "aquila": Original(_json, gpt2()),
    "baichuan": Original(_sentencepiece),
    "bert-bge": Original(_wordpiece),
    "command-r": Original(_json, gpt2(digits=True), nfc=True, pre=("smollm",)),
    "deepseek-coder": Original(_json, deepseek_coder_splitter()),
    "deepseek-llm": Original(_json, deepseek_llm_splitter()),
    "falcon": Original(_json, _FALCON),
    "gemma-4": Original(_gemma4, pre=("gemma4",)),
    "gpt-2": Original(_json, gpt2(), pre=("trillion",)),
    "gpt-neox": Original(_json, gpt2(), nfc=True),
    "llama-bpe": Original(_json, split(LLAMA3), ignore_merges=True),
    "llama-spm": Original(_sentencepiece),
    "mpt": Original(_json, gpt2(), nfc=True, pre=("trillion",)),
    "nomic-bert-moe": Original(_unigram),
    "phi-3": Original(_sentencepiece),
    "qwen2": Original(_json, split(QWEN2), nfc=True),
    "qwen35": Original(_json, split(QWEN35), nfc=True),
    "refact": Original(_json, gpt2(digits=True), pre=("smollm",)),
    "starcoder": Original(_json, gpt2(digits=True), pre=("smollm",)),
}  # fmt: skip


def compare(path: Path, original: Original) -> tuple[str, list[str]]:
    """What was compared, and what differs, a line each."""
    keys = dict(read_header(path).keys)
    keys["tokenizer.ggml.token_type"] = [int(kind) for kind in keys["tokenizer.ggml.token_type"]]
    tokens = keys["tokenizer.ggml.tokens"]
    files = original.build(keys, original)
    try:
        vocabulary = load_vocabulary(files, len(tokens), json.loads(files.get("config.json", b"{}")))
    except SprigError as e:
        return "refused", [str(e)]
    wrong = [*_tokens(keys, vocabulary), *_merges(keys, vocabulary)]
    pre, theirs = vocabulary.keys.get("tokenizer.ggml.pre"), keys.get("tokenizer.ggml.pre")
    if pre is not None and theirs is not None and pre not in (theirs, *original.pre):  # only BPE has one
        wrong.append(f"the pre-tokenizer is {pre}, not {theirs}")
    texts = path.with_name(path.name + ".inp")
    count = 0
    if texts.exists():
        asked = _texts(texts)
        wanted = [[int(i) for i in line.split()] for line in path.with_name(path.name + ".out").read_text().splitlines()]
        count = len(asked)
        wrong += _ids(asked, wanted, vocabulary)
    merges = len(keys.get("tokenizer.ggml.merges", ()))
    return f"{len(tokens):,} tokens, {merges:,} merges, {count or 'no'} texts, pre {pre}", wrong


def _texts(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as f:
        texts = f.read().split(_SEPARATOR)
    return texts if texts[-1] else texts[:-1]  # most end with a separator


def _tokens(keys: Mapping[str, Any], vocabulary: Vocabulary) -> list[str]:
    """Tokens and types. Rows without a token differ by design: today they are unused, old converters made them otherwise."""
    found = []
    ours = list(zip(vocabulary.keys["tokenizer.ggml.tokens"], vocabulary.keys["tokenizer.ggml.token_type"], strict=True))  # type: ignore[arg-type]
    theirs = list(zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"], strict=True))
    for i, ((text, kind), (their_text, their_kind)) in enumerate(zip(ours, theirs, strict=True)):
        if _PADDING.fullmatch(their_text):
            continue
        if their_kind == USER_DEFINED and looks_special(their_text) and vocabulary.keys["tokenizer.ggml.model"] != "gemma4":
            their_kind = CONTROL  # as today's converter has it
        if text != their_text:
            found.append(f"token {i} is {text!r}, not {their_text!r}")
        elif kind != their_kind and {kind, their_kind} != {UNKNOWN, CONTROL}:  # llama.cpp does the same with both
            found.append(f"token {i} {text!r} has the type {kind}, not {their_kind}")
    return [*found[:3], *([f"{len(found)} tokens differ"] if len(found) > 3 else [])]


def _merges(keys: Mapping[str, Any], vocabulary: Vocabulary) -> list[str]:
    ours, theirs = (list(k.get("tokenizer.ggml.merges", ())) for k in (vocabulary.keys, keys))  # type: ignore[attr-defined]
    return [] if ours == theirs else [f"the merges differ ({len(ours):,} and {len(theirs):,})"]


def _ids(texts: Sequence[str], wanted: Sequence[Sequence[int]], vocabulary: Vocabulary) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        name = f"x {vocabulary.name_needs}"
        with llama_vocab({**vocabulary.keys}, Path(folder) / "v.gguf", name=name) as llama:
            by_llama = [llama.encode(text, special=False) for text in texts]
    found = []
    for text, want, got in zip(texts, wanted, by_llama, strict=True):
        if list(want) != got:
            found.append(f"llama.cpp gives other ids for {text[:30]!r}")
        if list(want) != vocabulary.encode(text) and vocabulary.exact(text):
            found.append(f"the library gives other ids for {text[:30]!r}")
    return found


def models() -> Path:
    """The folder of the vocabularies: LLAMA_CPP's, else that of the source package, fetched into build/."""
    if named := os.environ.get("LLAMA_CPP"):
        return Path(named) / "models"
    release = version("llama-cpp-python")
    kept = Path("build") / f"llama-cpp-python-{release}"
    if not list(kept.glob("*.gguf")):
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            fetch = [
                "pip",
                "download",
                "--no-deps",
                "--no-binary",
                "llama-cpp-python",
                "--dest",
                folder,
                f"llama-cpp-python=={release}",
            ]
            subprocess.run([sys.executable, "-m", *fetch], check=True, stdout=sys.stderr)
            with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
                for member in archive:
                    name = Path(member.name).name
                    if "/models/ggml-vocab-" in member.name and (content := archive.extractfile(member)):
                        (kept / name).write_bytes(content.read())
    return kept


def main() -> int:
    folder = models()
    paths = sorted(folder.glob("ggml-vocab-*.gguf"))
    if not paths:
        print(f"{folder} holds no ggml-vocab-*.gguf; LLAMA_CPP must name llama.cpp's source", file=sys.stderr)
        return 1
    failed = 0
    for path in paths:
        name = path.stem.removeprefix("ggml-vocab-")
        if name not in ORIGINALS:
            print(f"{name:<15} is not known here: add what its tokenizer has to ORIGINALS")
            failed += 1
            continue
        said, wrong = compare(path, ORIGINALS[name])
        print(f"{name:<15} {'DIFFERS: ' if wrong else ''}{said}", flush=True)
        for line in wrong:
            print(f"{'':<15}   {line}")
        failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
