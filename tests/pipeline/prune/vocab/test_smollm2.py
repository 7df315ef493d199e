"""The cut of a real vocabulary: SmolLM2's 49,152 tokens become 16,384."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pipeline.prune.vocab.cut import cut_files
from pipeline.vocab.vocabulary import load_vocabulary
from tests.fixtures.corpus import hard_strings
from tests.fixtures.generated import runs
from tests.fixtures.llama_vocab import llama_vocab
from tests.fixtures.smollm2 import small_files

ROOT = Path(__file__).parents[4]
SIZE = 16_384
MOST_GROWTH = 2.5  # percent, on English of the same kind that nothing was chosen by


@pytest.mark.slow
def test_sixteen_thousand_tokens_serve_english_and_every_text_goes_there_and_back(tmp_path: Path) -> None:
    """The user's text is two thirds of this repository's documents; the other third tells how well it was chosen."""
    files = small_files()
    config = json.loads(files["config.json"])
    documents = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
    texts = [path.read_text(encoding="utf-8") for path in documents if ".zh-" not in path.name]
    unseen = "\n".join(text for number, text in enumerate(texts) if number % 3 == 2)
    chosen_by = {"mine": "\n".join(text for number, text in enumerate(texts) if number % 3 != 2)}
    cut = cut_files(files, config, config["vocab_size"], chosen_by, SIZE, held_out={"unseen": unseen})
    assert len(cut.kept) == cut.config["vocab_size"] == SIZE
    assert [growth.percent for growth in cut.text] == [0.0]
    assert 0 <= cut.held_out[0].percent <= MOST_GROWTH
    before = load_vocabulary(files, config["vocab_size"], config)
    after = load_vocabulary({**files, **cut.files}, SIZE, {**config, **cut.config})
    for mark in ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>"):
        assert len(after.encode(mark)) == 1
    assert len(after.encode("<tool_call>")) == len(before.encode("<tool_call>"))
    whole, small = (Tokenizer.from_str(made["tokenizer.json"].decode()) for made in (files, cut.files))
    with llama_vocab(before.keys, tmp_path / "w.gguf") as theirs, llama_vocab(after.keys, tmp_path / "s.gguf") as ours:

        def there_and_back(text: str) -> None:
            """As with the whole vocabulary, which lacks the letters of a few control characters."""
            ids = small.encode(text, add_special_tokens=False).ids
            if (
                theirs.encode(text) == whole.encode(text, add_special_tokens=False).ids
            ):  # llama.cpp splits letters without a token
                assert ids == ours.encode(text)
            assert ours.text(ids) == theirs.text(theirs.encode(text))
            told = whole.decode(whole.encode(text, add_special_tokens=False).ids, skip_special_tokens=False)
            assert small.decode(ids, skip_special_tokens=False) == told
            if text.isprintable():
                assert told == text

        for text in hard_strings()[::3]:
            there_and_back(text)
        settings(max_examples=runs(400), deadline=None)(
            given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60))(there_and_back)
        )()
