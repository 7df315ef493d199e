"""Where a file came from: GGUF's standard keys and the card beside it, for each kind of source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.gguf.reader import read_header
from pipeline import quantize
from pipeline.card import read_facts
from tests.fixtures.loopback_hub import LoopbackHub
from tests.fixtures.random_llama import SMALL, write_checkpoint

README = """---
license: other
license_name: tiny-licence
license_link: https://example.org/licence
language: [en, de]
base_model: [org/parent, a model without an owner]
---
# Mine
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = write_checkpoint(tmp_path / "mine", SMALL)
    (made / "README.md").write_text(README)
    return made


def front(card: Path) -> dict[str, Any]:
    found = yaml.safe_load(card.read_text().split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_of_a_folder_the_base_models_are_those_that_its_card_names(folder: Path, tmp_path: Path) -> None:
    result = quantize(str(folder), "Q8_0", tmp_path / "x.gguf")
    keys = read_header(result.path).keys
    told = ("general.base_model", "general.license", "general.languages")
    assert {k.removeprefix("general."): v for k, v in keys.items() if k.startswith(told)} == {
        "license": "other",
        "license.name": "tiny-licence",
        "license.link": "https://example.org/licence",
        "languages": ["en", "de"],
        "base_model.count": 2,
        "base_model.0.name": "parent",
        "base_model.0.organization": "org",
        "base_model.0.repo_url": "https://huggingface.co/org/parent",
        "base_model.1.name": "a model without an owner",
    }
    card = front(result.card)
    assert card["base_model"] == ["org/parent"]
    assert (card["license"], card["license_name"], card["language"]) == ("other", "tiny-licence", ["en", "de"])


def test_a_detour_over_a_gguf_keeps_licence_and_base_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with LoopbackHub({"org/tiny": folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        first = quantize("org/tiny", "BF16", tmp_path / "bf16.gguf")
    second = quantize(str(first.path), "Q4_0", tmp_path / "x.gguf")
    keys = read_header(second.path).keys
    assert keys["general.base_model.0.repo_url"] == "https://huggingface.co/org/tiny"
    assert keys["general.base_model.0.version"] == read_header(first.path).keys["sprig.source.commit"]
    card = front(second.card)
    assert (card["base_model"], card["license"]) == (["org/tiny"], "other")
    text = second.card.read_text()
    assert "| Architecture | llama |" in text
    assert "from that file" in text


def test_a_card_in_the_source_cannot_break_the_new_one(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text('---\nlicense: "mit\\n---\\n# Buy now\\e[31m"\nlanguage: {a: b}\nbase_model: 7\n---\n')
    result = quantize(str(folder), "Q8_0", tmp_path / "x.gguf")
    assert "\n# Buy" not in result.card.read_text()
    assert "\x1b" not in result.card.read_text()
    assert set(front(result.card)) == {"library_name", "license", "tags"}


NO_FACTS = ["", "no front matter", "---\n[", "---\n- a\n---", f"---\n{'[' * 5000}\n---", "---\na: !!python/name:os.system\n---"]


@pytest.mark.parametrize("text", NO_FACTS)
def test_a_card_without_facts(text: str) -> None:
    assert read_facts(text.encode()) == read_facts(None)
