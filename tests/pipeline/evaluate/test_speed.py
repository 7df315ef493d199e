"""What a file costs here, measured in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import SprigError
from pipeline.evaluate.speed import measure_speed
from tests.fixtures.chat_ggufs import chat_model


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_a_file_is_measured(tmp_path: Path) -> None:
    model = chat_model(tmp_path / "chat.gguf", "chatml")
    found = measure_speed(model, threads=1, prompt=32, generate=4, repeat=2)
    assert (found.model, found.threads) == ("chat.gguf", 1)
    assert min(found.prefill.value, found.decode.value) > 0
    assert found.prefill.error is not None
    assert found.load_seconds > 0
    assert found.peak_memory > 10_000_000
    assert measure_speed(model, threads=1, prompt=8, generate=2, repeat=1).decode.error is None


@pytest.mark.usefixtures("home")
def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"no model")
    with pytest.raises(SprigError, match=r"no\.gguf"):
        measure_speed(tmp_path / "no.gguf")
