"""A card names every ancestor once, says what the first of them says of itself, and cannot be made to say more."""

from __future__ import annotations

from pathlib import Path

from pipeline.card import read_facts
from pipeline.checkpoint.card import checkpoint_card, mentioned
from pipeline.checkpoint.carried import carried_files
from pipeline.sources.source import Source, open_source
from tests.fixtures.random_llama import SMALL, write_checkpoint


def source(folder: Path, front: str) -> Source:
    write_checkpoint(folder, SMALL)
    (folder / "README.md").write_text(f"---\n{front}---\n# It\n")
    return open_source(str(folder))


def card(*made_of: Source, what: str = "Made.") -> str:
    return checkpoint_card("new", made_of, tag="pruned", what=what, table=[("a", "b"), ("1", "2")], then="Use it.").decode()


def test_both_ancestors_are_named_and_the_nearest_speaks_first(tmp_path: Path) -> None:
    student = source(tmp_path / "student", "base_model: [org/one, org/two]\ntags: [tiny, sprig]\nlanguage: en\n")
    teacher = source(tmp_path / "teacher", "license: mit\nlanguage: de\nbase_model: org/two\ntags: [large]\n")
    facts = read_facts(card(student, teacher).encode())
    assert facts == {
        "base_model": ["org/one", "org/two"], "base_model_relation": "finetune", "language": "en", "license": "mit",
        "library_name": "transformers", "tags": ["tiny", "sprig", "pruned"],
    }  # fmt: skip


def test_a_card_without_facts_is_a_card(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "plain", SMALL)
    made = card(open_source(str(folder)), what=f"{mentioned(open_source(str(folder)))}, pruned.\x1b[31m")
    assert "base_model" not in read_facts(made.encode())
    assert "`plain`, pruned." in made
    assert "\x1b" not in made
    assert "| a | b |\n|---|---|\n| 1 | 2 |\n" in made


def test_what_is_written_anew_or_tells_of_the_old_weights_stays_behind() -> None:
    names = ("config.json", "README.md", "adapter_config.json", "quant_config.json", "model.safetensors.index.json")
    assert carried_files(dict.fromkeys([*names, "tokenizer.json", "a/b.jinja"], b"{}")) == {
        "tokenizer.json": b"{}", "a/b.jinja": b"{}",
    }  # fmt: skip
