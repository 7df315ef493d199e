"""The pre-tokenizer is recognised by what it does: which one each family gets, and what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from agent.errors import UnsupportedError, VocabError
from pipeline.vocab.patterns import CANDIDATES
from pipeline.vocab.pretokenizers import splitter
from pipeline.vocab.probes import PROBES
from pipeline.vocab.vocabulary import load_vocabulary
from tests.fixtures.corpus import hard_strings
from tests.fixtures.llama_vocab import llama_vocab
from tests.fixtures.tokenizers import LLAMA3, QWEN2, make_tokenizer, split

EXPECTED = {
    "llama3": "llama-bpe", "smollm3": "llama-bpe", "olmo2": "smaug-bpe", "qwen2": "qwen2", "deepseek-r1-qwen": "qwen2",
    "qwen35": "qwen35", "smollm2": "smollm", "granite": "refact", "olmo": "trillion", "gpt2-files": "trillion",
    "phi4-mini": "granite-embed-multi-97m", "tekken": "tekken", "falcon": "falcon", "minicpm5": "minicpm5",
    "deepseek-v3": "deepseek-v3", "deepseek-coder": "deepseek-coder", "deepseek-llm": "deepseek-llm", "tiny-aya": "tiny_aya",
    "command-r": "smollm", "bloom": "poro-chat", "viking": "viking", "seed-oss": "seed-coder", "phi2": "trillion",
    "glm4": "smaug-bpe", "tekken-json": "tekken", "fine-cuts": "smollm", "gemma4": "gemma4", "llama2": None, "gemma3": None,
}  # fmt: skip


def spec_of(family: str, folder: Path) -> dict[str, Any]:
    make_tokenizer(family, folder)
    spec: dict[str, Any] = json.loads((folder / "tokenizer.json").read_bytes())
    return spec


def load(spec: dict[str, Any]) -> Any:
    return load_vocabulary({"tokenizer.json": json.dumps(spec).encode()}, 540, {})


def with_split(spec: dict[str, Any], pattern: str, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {**spec, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [step, level]}}


@pytest.mark.parametrize("family", EXPECTED)
def test_each_family_gets_its_pre_tokenizer(family: str, tmp_path: Path) -> None:
    make_tokenizer(family, tmp_path)
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    vocabulary = load_vocabulary(files, 540, json.loads(files.get("config.json", b"{}")))
    assert vocabulary.keys.get("tokenizer.ggml.pre") == EXPECTED[family]


def test_the_probes_tell_all_candidates_apart() -> None:
    """Two candidates with different steps differ on a probe; those with equal steps differ in what is done with pieces."""
    seen: dict[tuple[tuple[str, ...], ...], tuple[str, ...]] = {}
    for candidate in CANDIDATES:
        split_all = tuple(tuple(splitter(candidate.steps)(probe)) for probe in PROBES)
        assert seen.setdefault(split_all, candidate.steps) == candidate.steps, candidate.pre
    kinds = [(c.steps, c.really, c.ignore_merges, c.clean_up) for c in CANDIDATES]
    assert len(set(kinds)) == len(kinds)


def test_another_spelling_of_the_same_rule_is_the_same_rule(tmp_path: Path) -> None:
    """Qwen's expression as some converters write it: what does not match is removed, and nothing does not match."""
    spec = spec_of("qwen2", tmp_path)
    spelled = QWEN2.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])")
    assert load(with_split(spec, QWEN2, "Removed", invert=True)).keys["tokenizer.ggml.pre"] == "qwen2"
    assert load(with_split({**spec, "normalizer": None}, spelled)).keys["tokenizer.ggml.pre"] == "qwen2"


def test_a_rule_that_llama_cpp_lacks_is_refused_with_an_example(tmp_path: Path) -> None:
    spec = spec_of("llama3", tmp_path)
    with pytest.raises(UnsupportedError) as caught:
        load(with_split(spec, r"\p{N}+"))
    assert "that Sprig knows splits like this one; 'a ' becomes" in str(caught.value)
    assert "in the nearest, '" in str(caught.value)


def test_a_rule_that_llama_cpp_lacks_is_taken_for_the_nearest_where_that_hardly_changes_ids(tmp_path: Path) -> None:
    """What counts are the ids: a cut that no merge reaches over changes none."""
    vocabulary = load(with_split(spec_of("llama3", tmp_path), LLAMA3.replace("{1,3}", "{1,2}")))
    assert vocabulary.keys["tokenizer.ggml.pre"] == "llama-bpe"
    assert any("by the nearest, 'llama-bpe'" in note for note in vocabulary.notes)
    assert vocabulary.exact("In 42 years")
    with llama_vocab(vocabulary.keys, tmp_path / "v.gguf") as llama:
        texts = hard_strings()[::3]
        assert [t for t in texts if vocabulary.exact(t) and llama.encode(t) != vocabulary.encode(t)] == []


@pytest.mark.parametrize(
    "normalizer",
    [{"type": "Lowercase"}, {"type": "NFKC"}, {"type": "NFD"}, {"type": "Prepend", "prepend": "x"}, {"type": "StripAccents"}],
)
def test_a_normalizer_that_llama_cpp_lacks_is_refused_with_an_example(normalizer: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="normalizer turns"):
        load({**spec_of("llama3", tmp_path), "normalizer": normalizer})


def test_a_prefix_space_is_refused(tmp_path: Path) -> None:
    spec = spec_of("olmo", tmp_path)
    spec["pre_tokenizer"]["add_prefix_space"] = True
    with pytest.raises(UnsupportedError, match="splits like this one"):
        load(spec)


def test_ignore_merges_decides_between_two_candidates_of_one_rule(tmp_path: Path) -> None:
    spec = spec_of("llama3", tmp_path)
    assert load(spec).keys["tokenizer.ggml.pre"] == "llama-bpe"
    spec["model"]["ignore_merges"] = False
    assert load(spec).keys["tokenizer.ggml.pre"] == "smaug-bpe"


def test_where_only_the_other_kind_exists_it_is_taken_when_it_makes_no_difference(tmp_path: Path) -> None:
    """Tekken's rule exists only with whole tokens first. Merges that make every token make that harmless, others not."""
    spec = spec_of("tekken", tmp_path)
    spec["model"]["ignore_merges"] = False
    assert not any("whole pieces" in note for note in load(spec).notes)
    vocab = spec["model"]["vocab"]
    word = next(w for w in ("Ġthe", "Ġand", "Ġwas") if w in vocab)
    spec["model"]["merges"] = [m for m in spec["model"]["merges"] if "".join(m) != word]
    assert any("whole pieces" in note for note in load(spec).notes)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(?:a|aa)+c", r"(\p{L}+)*\d$", r"((\s|\S)+)+z"])
def test_an_expression_without_end_is_stopped(pattern: str, tmp_path: Path) -> None:
    spec = spec_of("llama3", tmp_path)
    start = time.monotonic()
    with pytest.raises((VocabError, UnsupportedError)):
        load(with_split(spec, pattern))
    assert time.monotonic() - start < 60


@pytest.mark.slow
def test_llama_cpp_splits_as_the_reference_does(tmp_path: Path) -> None:
    """A vocabulary of characters and whole pieces, without merges to speak of: the ids show where llama.cpp cut."""
    texts = hard_strings()[::3]
    pieces = sorted({piece for text in texts for piece in splitter((LLAMA3,))(text)})
    letters = sorted({c for piece in pieces for c in piece} | set(map(chr, range(33, 127))))
    vocab = {text: i for i, text in enumerate(dict.fromkeys([*letters, *pieces, "!!"]))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("!", "!")], ignore_merges=True))
    tokenizer.pre_tokenizer = split(LLAMA3)
    tokenizer.add_special_tokens(["<stop>"])
    vocabulary = load_vocabulary({"tokenizer.json": tokenizer.to_str().encode()}, len(vocab) + 1, {})
    with llama_vocab(vocabulary.keys, tmp_path / "v.gguf") as llama:
        assert [t for t in texts if vocabulary.exact(t) and llama.encode(t) != vocabulary.encode(t)] == []
        assert sum(map(vocabulary.exact, texts)) > len(texts) * 0.9
