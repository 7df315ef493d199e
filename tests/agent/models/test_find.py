"""A model is found by what a person calls it; what is not found is answered with what is near, and how to get it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.errors import GGUFError, SprigError
from agent.models.file import read_model
from agent.models.find import find_model, needs_pipeline
from agent.models.origin import Origin, write_origin
from tests.fixtures import tiny

SOURCE = {"sprig__source__name": "Qwen/Qwen3-0.6B", "sprig__source__commit": "ab" * 20}


@pytest.fixture
def store(home: Path) -> Path:
    folder = home / "models"
    folder.mkdir(parents=True)
    tiny.llama(folder / "Qwen3-0.6B-Q4_K_M.gguf", sprig__recipe="Q4_K_M", **SOURCE)
    tiny.llama(folder / "Qwen3-0.6B-Q8_0.gguf", sprig__recipe="Q8_0", **SOURCE)
    tiny.llama(folder / "SmolLM2-360M-Q4_0.gguf", sprig__recipe="Q4_0", sprig__source__name="HuggingFaceTB/SmolLM2-360M")
    return folder


def found(text: str | Path) -> str:
    return find_model(text).name


def refusal(text: str | Path) -> str:
    with pytest.raises(SprigError) as caught:
        find_model(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    "text",
    ["SmolLM2-360M-Q4_0", "SmolLM2-360M-Q4_0.gguf", "smollm2-360m-q4_0", " SMOLLM2-360M-Q4_0.gguf ", "smol", "360m", "q4_0"],
)
def test_a_name_may_be_short_and_in_any_case(text: str) -> None:
    assert found(text) == "SmolLM2-360M-Q4_0.gguf"


@pytest.mark.usefixtures("store")
def test_what_may_mean_several_is_listed_and_none_is_chosen() -> None:
    assert refusal("qwen") == "'qwen' may mean Qwen3-0.6B-Q4_K_M and Qwen3-0.6B-Q8_0; name one of them"
    assert found("qwen3-0.6b-q8") == "Qwen3-0.6B-Q8_0.gguf"


def test_a_whole_name_comes_before_the_beginning_of_another(store: Path) -> None:
    tiny.llama(store / "smol.gguf")
    assert found("smol") == "smol.gguf"
    assert found("SMOL") == "smol.gguf"
    assert found("smoll") == "SmolLM2-360M-Q4_0.gguf"


@pytest.mark.usefixtures("store")
def test_a_name_of_the_hub_finds_what_was_made_of_it() -> None:
    assert found("HuggingFaceTB/SmolLM2-360M") == "SmolLM2-360M-Q4_0.gguf"
    assert found("https://huggingface.co/huggingfacetb/smollm2-360m/tree/main") == "SmolLM2-360M-Q4_0.gguf"
    assert found("Qwen/Qwen3-0.6B:q8_0") == "Qwen3-0.6B-Q8_0.gguf"
    assert "may mean" in refusal("Qwen/Qwen3-0.6B@" + "ab" * 20)
    assert "no model of Qwen/Qwen3-0.6B" in refusal("Qwen/Qwen3-0.6B@" + "cd" * 20)
    assert "no model of Qwen/Qwen3-0.6B" in refusal("Qwen/Qwen3-0.6B:Q4_0")


@pytest.mark.usefixtures("store")
def test_what_is_not_here_is_answered_with_the_command_that_brings_it() -> None:
    far = refusal("org/Other-1B")
    assert "`sprig quantize org/Other-1B` makes a GGUF of it" in far
    assert "`sprig pull org/Other-1B-GGUF`" in far
    ready = refusal("org/Other-1B-GGUF:Q4_0")
    assert "`sprig pull org/Other-1B-GGUF:Q4_0` brings it" in ready
    assert "quantize" not in ready
    assert "(there is Qwen3-0.6B-Q4_K_M and Qwen3-0.6B-Q8_0)" in refusal("unsloth/Qwen3-0.6B-GGUF")


@pytest.mark.usefixtures("store")
def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    assert "(there is SmolLM2-360M-Q4_0)" in refusal("SmolML2-360M-Q4_0")
    assert "(there is demo)" in refusal("dmeo")
    assert "there is no model" in refusal("nothing like it")
    assert "there is no model" in refusal("x" * 5000)
    assert len(refusal("x" * 5000)) < 1000
    for name in ("", ".", "../SmolLM2-360M-Q4_0", "~nobody-of-this-name/x", "a\0b"):
        assert "there is no model" in refusal(name)


def test_a_folder_that_holds_one_model_means_it(tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    assert "holds no GGUF" in refusal(folder)
    (folder / "config.json").write_text("{}")
    assert f"`sprig quantize {folder}` makes one of it" in refusal(folder)
    tiny.llama(folder / "one-00001-of-00002.gguf")
    tiny.llama(folder / "one-00002-of-00002.gguf")
    assert found(folder) == "one-00001-of-00002.gguf"
    tiny.llama(folder / "two.gguf")
    assert "holds 2 models; name one of them: one-00001-of-00002.gguf and two.gguf" in refusal(folder)
    assert not home.exists()


def test_only_a_checkpoint_needs_the_pipeline(tmp_path: Path, store: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "ggufs").mkdir()
    tiny.llama(tmp_path / "ggufs" / "m.gguf")
    assert needs_pipeline("org/name")
    assert needs_pipeline("hf.co/org/name")
    assert needs_pipeline(str(tmp_path / "checkpoint"))
    assert not needs_pipeline(str(tmp_path / "ggufs"))
    assert not needs_pipeline(str(store / "Qwen3-0.6B-Q8_0.gguf"))
    assert not needs_pipeline("Qwen3-0.6B-Q8_0")


def test_a_checkpoint_beside_a_gguf_is_the_model_of_the_folder(tmp_path: Path) -> None:
    tiny.llama(tmp_path / "m.GGUF")
    assert find_model(tmp_path) == tmp_path / "m.GGUF"
    assert not needs_pipeline(str(tmp_path))
    (tmp_path / "model.safetensors").touch()
    assert needs_pipeline(str(tmp_path))


def test_what_was_pulled_is_inspected_as_the_file_that_it_is(store: Path) -> None:
    write_origin(
        store / "SmolLM2-360M-Q4_0.gguf",
        Origin(
            "org/smol-GGUF", "main", "ab" * 20, ("s-Q4_0.gguf",), ("cd" * 32,), (store / "SmolLM2-360M-Q4_0.gguf").stat().st_size
        ),
    )
    assert not needs_pipeline("org/smol-GGUF")
    assert not needs_pipeline("org/smol-GGUF:Q4_0")
    assert needs_pipeline("org/smol-GGUF:Q8_0")
    assert found("org/smol-GGUF") == "SmolLM2-360M-Q4_0.gguf"


def test_a_file_whose_keys_do_not_fit_hides_no_other(store: Path) -> None:
    tiny.llama(store / "odd.gguf", llama__attention__head_count=np.zeros(0, np.uint32))
    with pytest.raises(GGUFError, match=r"attention\.head_count is .* and must be a whole number"):
        read_model(store / "odd.gguf")
    assert found("HuggingFaceTB/SmolLM2-360M") == "SmolLM2-360M-Q4_0.gguf"


def test_a_command_in_a_message_can_be_copied_as_it_stands(tmp_path: Path) -> None:
    folder = tmp_path / "a; b"
    folder.mkdir()
    (folder / "config.json").touch()
    assert f"is a checkpoint, not a GGUF; `sprig quantize '{folder}'`" in refusal(folder)
    (folder / "adapter_config.json").touch()
    assert f"is an adapter (LoRA), not a GGUF; `sprig quantize '{folder}'`" in refusal(folder)


@pytest.mark.usefixtures("store")
def test_models_of_other_programs_are_used_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "models--org--basil-GGUF" / "snapshots" / ("ab" * 20)
    studio = tmp_path / ".lmstudio" / "models" / "org" / "thyme-GGUF"
    for folder in (cached, studio):
        folder.mkdir(parents=True)
    tiny.llama(cached / "basil-Q4_0.gguf")
    tiny.llama(cached / "basil-Q8_0.gguf")
    tiny.llama(studio / "thyme-Q4_0.gguf")
    assert find_model("org/basil-GGUF:Q8_0") == cached / "basil-Q8_0.gguf"
    assert "may mean basil-Q4_0 and basil-Q8_0" in refusal("hf.co/org/basil-GGUF")
    assert find_model("lmstudio:org/thyme-GGUF/thyme-Q4_0.gguf") == studio / "thyme-Q4_0.gguf"
    assert "holds 2 models" in refusal(cached)
