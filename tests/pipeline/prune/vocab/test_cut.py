"""A smaller vocabulary is the old one without some tokens: in every family, for every text, in the library and in llama.cpp."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from agent.errors import SprigError, UnsupportedError
from pipeline.prune.vocab.cut import VocabularyCut, cut_files
from pipeline.prune.vocab.needed import literals
from pipeline.vocab.vocabulary import Vocabulary, load_vocabulary
from tests.fixtures.corpus import SCRIPTS, hard_strings
from tests.fixtures.generated import runs
from tests.fixtures.llama_vocab import llama_vocab
from tests.fixtures.tokenizers import FAMILIES, make_tokenizer

ROWS = 540
ENGLISH = "The water was cold and the stone was dark. There is nothing that the other one would not have done with it.\n"
# Their only vocabulary file is one that is not written again.
REFUSED = ("tekken-json",)
QUICK = ("llama3", "smollm2", "gpt2-files", "llama2", "llama2-model-only", "gemma3", "xlm-roberta", "bert-vocab-txt")
CUT = [family for family in FAMILIES if family not in REFUSED]
# What the tokenizer changes by design: the first space, lower case, normalized Unicode.
CHANGING = ("llama2", "gemma2", "tinyllama", "mistral", "phi3", "t5", "xlm", "bert", "hf-trained", "helium")


def files_of(family: str, folder: Path) -> dict[str, bytes]:
    make_tokenizer(family, folder)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def config_of(files: Mapping[str, bytes]) -> dict[str, Any]:
    return {"vocab_size": ROWS, **json.loads(files.get("config.json", b"{}"))}


def smaller(files: Mapping[str, bytes], size: int | None = None, text: str = ENGLISH) -> VocabularyCut:
    config = config_of(files)
    if size is None:
        size = least(files, text)
    return cut_files(files, config, ROWS, {"english": text}, size, held_out={})


def least(files: Mapping[str, bytes], text: str = ENGLISH) -> int:
    """The smallest size that there can be, which the refusal of a smaller one names."""
    with pytest.raises(SprigError, match="has no room") as refusal:
        cut_files(files, config_of(files), ROWS, {"english": text}, 32, held_out={})
    return int(str(refusal.value).rsplit(" ", 1)[1])


def loaded(files: Mapping[str, bytes], cut: VocabularyCut | None = None) -> Vocabulary:
    config = config_of(files)
    if cut is None:
        return load_vocabulary(files, ROWS, config)
    changes = dict(cut.config)
    generation = changes.pop("generation_config", None)
    files = {**files, **cut.files}
    if generation:
        files["generation_config.json"] = json.dumps({**json.loads(files["generation_config.json"]), **generation}).encode()
    return load_vocabulary(files, len(cut.kept), {**config, **changes})


@pytest.mark.parametrize("family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in CUT])
def test_a_text_of_kept_tokens_has_the_same_tokens_and_every_text_its_characters(family: str, tmp_path: Path) -> None:
    files = files_of(family, tmp_path / "m")
    cut = smaller(files, min(ROWS - 60, least(files) + 32))
    assert len(cut.kept) <= ROWS - 60
    before, after = loaded(files), loaded(files, cut)
    kept = set(cut.kept)
    same = {text: ids for text in (ENGLISH, *hard_strings()[::7]) if set(ids := before.encode(text)) <= kept}
    assert len(same) > 5
    assert [text for text, ids in same.items() if [cut.kept[i] for i in after.encode(text)] != ids] == []
    with llama_vocab(after.keys, tmp_path / "v.gguf", name=f"x {after.name_needs}") as llama:
        texts = hard_strings()[::11]
        assert [t for t in texts if after.exact(t) and llama.encode(t) != after.encode(t)] == []
        if not family.startswith(CHANGING):
            assert [t for t in texts if llama.text(llama.encode(t)) != t.encode()] == []


@pytest.mark.parametrize("family", REFUSED)
def test_a_form_that_is_not_written_again_is_refused(family: str, tmp_path: Path) -> None:
    files = files_of(family, tmp_path / "m")
    with pytest.raises(UnsupportedError, match="let transformers write a"):
        smaller(files, 300)


def with_config(files: dict[str, bytes], name: str = "tokenizer_config.json", **changes: Any) -> dict[str, bytes]:
    return {**files, name: json.dumps({**json.loads(files.get(name, b"{}")), **changes}).encode()}


def framed(files: Mapping[str, bytes]) -> list[list[str]]:
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    return [tokenizer.encode("a b").tokens, tokenizer.encode("a", "b").tokens]


@pytest.mark.parametrize("family", ["llama3", "glm4", "roberta", "modernbert", "xlm-roberta", "bert-cased", "t5-json"])
def test_what_is_put_around_a_text_is_the_same_under_its_new_ids(family: str, tmp_path: Path) -> None:
    files = files_of(family, tmp_path / "m")
    cut = smaller(files)
    assert framed({**files, **cut.files}) == framed(files)
    tokenizer = Tokenizer.from_str(cut.files["tokenizer.json"].decode())
    for number, token in zip(tokenizer.encode("the").ids, tokenizer.encode("the").tokens, strict=True):
        assert tokenizer.token_to_id(token) == number


@pytest.mark.parametrize("family", ["smollm2", "qwen2", "gemma3", "gemma2-model-only"])
def test_generated_texts_go_there_and_back(family: str, tmp_path: Path) -> None:
    files = files_of(family, tmp_path / "m")
    after = loaded(files, smaller(files))
    with llama_vocab(after.keys, tmp_path / "v.gguf") as llama:

        @settings(max_examples=runs(60), deadline=None)
        @given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
        def back(text: str) -> None:
            ids = llama.encode(text, special=False)
            if "▁" not in text or not family.startswith("gemma"):  # there a ▁ in the text is a space
                assert llama.text(ids) == text.encode()
            if after.exact(text):
                assert llama.encode(text) == after.encode(text)

        back()


def test_a_text_alone_keeps_all_that_it_uses_and_fills_up_to_a_multiple_of_256(tmp_path: Path) -> None:
    files = files_of("smollm2", tmp_path / "m")
    text = ENGLISH + SCRIPTS[1]
    cut = cut_files(
        files, config_of(files), ROWS, {"a": ENGLISH, "b": SCRIPTS[1]}, None, held_out={"de": SCRIPTS[1], "zh": SCRIPTS[13]}
    )
    assert len(cut.kept) == 512
    assert set(loaded(files).encode(text)) <= set(cut.kept)
    assert [(g.name, g.before == g.after, g.percent) for g in cut.text] == [("a", True, 0.0), ("b", True, 0.0)]
    assert [g.name for g in cut.held_out if g.after >= g.before > 0] == ["de", "zh"]


def test_of_what_the_text_does_not_use_the_tokens_learned_first_stay(tmp_path: Path) -> None:
    files = files_of("smollm2", tmp_path / "m")
    size = least(files) + 64
    by_own_text = cut_files(files, config_of(files), ROWS, None, size, held_out={})
    assert len(by_own_text.kept) == size
    assert by_own_text.text[0].name == "Sprig's own text"
    cut = smaller(files, size, "water")
    assert [g.before for g in cut.text] == [g.after for g in cut.text]
    learned = [number for number in cut.kept if number < 500]
    assert learned[:300] == list(range(300)), "a vocabulary is learned the most frequent first"


def test_reserved_tokens_go_and_what_a_configuration_names_stays_under_its_new_id(tmp_path: Path) -> None:
    files = files_of("gemma3", tmp_path / "m")  # which has <unused7> and ends at two tokens
    old = loaded(files)
    config = {
        "model_type": "gemma3", "vocab_size": 99, "image_token_index": old.encode("\u2581the")[0],
        "text_config": {"model_type": "gemma3_text", "vocab_size": ROWS, "eos_token_id": [1, 5]}, "bos_token_id": 2,
    }  # fmt: skip
    files = with_config(files, "generation_config.json", suppress_tokens=[5, 6, 7], bad_words_ids=[[5], [6, 7]], pad_token_id=-1)
    cut = cut_files(files, config, ROWS, {"english": ENGLISH}, least(files) + 32, held_out={})
    unused = old.encode("<unused7>")[0]
    assert unused == 6
    assert unused not in cut.kept
    assert config["image_token_index"] in cut.kept
    assert cut.kept[:6] == tuple(range(6))
    new = cut.kept.index(config["image_token_index"])
    assert cut.config == {
        "image_token_index": new,
        "text_config": {"model_type": "gemma3_text", "vocab_size": len(cut.kept), "eos_token_id": [1, 5]},
        "generation_config": {"suppress_tokens": [5, 6], "bad_words_ids": [[5]]},
    }
    assert any("held in reserve" in note and "<unused7>" in note for note in cut.notes)
    assert b"<unused7>" not in cut.files["tokenizer.json"]


def test_a_chat_template_writes_as_many_tokens_as_before_and_marks_of_calls_are_one(tmp_path: Path) -> None:
    files = files_of("qwen2", tmp_path / "m")
    words = "Ты помощник <unused3>"
    files["chat_template.jinja"] = (
        "{# not this: Съешь #}{%- if tools %}{{ '<|im_start|>system\\n" + words + "\\n' }}{% endif -%}\n<tool_call>\n"
    ).encode()
    assert words + "\n" in "".join(literals(files["chat_template.jinja"].decode()))
    before, after = loaded(files), loaded(files, smaller(files))
    for text in (words, "<tool_call>", "</think>", "<|im_start|>system"):
        assert len(after.encode(text)) == len(before.encode(text)), text
    assert literals("{{ 'open <|x|> <y>") == ["<|x|>", "<y>"], "a template that cannot be read still has marks"


def test_marks_that_are_ordinary_tokens_stay_whole(tmp_path: Path) -> None:
    files = files_of("smollm2", tmp_path / "m")
    spec = json.loads(files["tokenizer.json"])
    vocab, merges = spec["model"]["vocab"], spec["model"]["merges"]
    rare = [text for text, number in vocab.items() if 440 < number < 500][:12]
    text = "<tool_call>"
    for end in range(2, len(text) + 1):  # the mark as a chain of merges, in the places of rare tokens
        if text[:end] not in vocab and rare:
            gone = rare.pop()
            vocab[text[:end]] = vocab.pop(gone)
            merges = [m for m in merges if gone not in (*m, "".join(m))]
            merges.append([text[: end - 1], text[end - 1 : end]])
    spec["model"]["merges"] = [m for m in merges if m[0] in vocab and m[1] in vocab]
    files["tokenizer.json"] = json.dumps(spec).encode()
    if text not in vocab:
        pytest.skip("the tiny vocabulary has no room for the mark")
    after = loaded(files, smaller(files))
    tokens: list[str] = after.keys["tokenizer.ggml.tokens"]  # type: ignore[assignment]
    assert text in tokens


def test_the_name_of_the_pre_tokenizer_is_carried_over_where_fewer_tokens_would_show_another(tmp_path: Path) -> None:
    """A token that no merge makes tells gpt-4o from granite's; a cut drops it."""
    files = files_of("phi4-mini", tmp_path / "m")
    spec = json.loads(files["tokenizer.json"])
    word = next(w for w in ("\u0120the", "\u0120and", "\u0120was") if w in spec["model"]["vocab"])
    spec["model"]["merges"] = [m for m in spec["model"]["merges"] if "".join(m) != word]
    files["tokenizer.json"] = json.dumps(spec).encode()
    before = loaded(files)
    assert before.keys["tokenizer.ggml.pre"] == "gpt-4o"
    cut = smaller(files)
    assert loaded(files, cut).keys["tokenizer.ggml.pre"] == "gpt-4o"
    config = json.loads(cut.files["tokenizer_config.json"])
    assert config.pop("gguf_tokenizer") == {"model": "gpt2", "pre": "gpt-4o"}
    bare = {**cut.files, "tokenizer_config.json": json.dumps(config).encode()}
    assert load_vocabulary(bare, len(cut.kept), {}).keys["tokenizer.ggml.pre"] == "granite-embed-multi-97m"


def test_what_cannot_be_done_is_one_line(tmp_path: Path) -> None:
    files = files_of("smollm2", tmp_path / "m")
    config = config_of(files)
    for texts, size, why in (
        (None, None, "give a text"),
        ({"a": ""}, 320, "no words in it"),
        ({"a": "x"}, 64, "no room for the 2\\d\\d without which"),
        ({"a": "x"}, ROWS + 32, "already, which is no more"),
    ):
        with pytest.raises(SprigError, match=why):
            cut_files(files, config, ROWS, texts, size, held_out={})
    with pytest.raises(SprigError, match="cannot be cut"):
        cut_files(files, {**config, "vision_config": {"vocab_offset": 400}}, ROWS, {"a": "x"}, 320, held_out={})
    assert any("multiple of 32" in note for note in smaller(files, least(files) + 5).notes)


def test_a_tokenizer_model_that_numbers_otherwise_is_refused(tmp_path: Path) -> None:
    files = files_of("llama2", tmp_path / "m")
    spec = json.loads(files["tokenizer.json"])
    vocab = spec["model"]["vocab"]
    a, b = sorted(vocab, key=vocab.__getitem__)[300:302]
    vocab[a], vocab[b] = vocab[b], vocab[a]
    with pytest.raises(SprigError, match="so they cannot be cut as one"):
        smaller({**files, "tokenizer.json": json.dumps(spec).encode()}, 440)
