"""Layouts that read a weight twice, whole, or for its value alone come out of a stream as out of a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.gguf.reader import read_header
from pipeline import quantize
from tests.fixtures.checkpoints import save
from tests.fixtures.loopback_hub import LoopbackHub
from tests.fixtures.tokenizers import make_tokenizer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["gpt2", "gemma3n", "apertus"])
def test_a_stream_gives_the_same_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    folder = tmp_path / name
    save(name, folder)
    make_tokenizer("smollm2", folder, 512)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path / "sprig-home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    local = quantize(str(folder), "Q8_0", tmp_path / "local.gguf", threads=1).path
    with LoopbackHub({f"sprig-test/{name}": folder}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        streamed = quantize(f"sprig-test/{name}", "Q8_0", tmp_path / "streamed.gguf", stream=True, threads=1).path
    assert contents(streamed) == contents(local)


def contents(path: Path) -> tuple[dict[str, object], dict[str, bytes]]:
    """The keys of the architecture, and the bytes of each tensor."""
    header, raw = read_header(path), path.read_bytes()
    own = (f"{header.keys['general.architecture']}.", "xielu.")
    keys = {key: np.asarray(value).tolist() for key, value in header.keys.items() if key.startswith(own)}
    return keys, {name: raw[t.offset : t.offset + t.nbytes] for name, t in header.tensors.items()}
