"""The whole job from the Hub: found, pinned, downloaded or streamed, proved, converted; and what a bad Hub does to it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import BrokenOffError, SprigError
from agent.gguf.reader import read_header
from pipeline import Progress, quantize
from pipeline.quantize import dry_run
from pipeline.sources.checkpoint import read_safetensors_header
from tests.fixtures.loopback_hub import LoopbackHub
from tests.fixtures.random_llama import SMALL, write_checkpoint
from tests.fixtures.safetensors_edit import copy_tensor
from tests.pipeline.test_faults import run_and_kill

pytestmark = pytest.mark.slow

REPO = "sprig-test/tiny-llama"
CARD = "---\nlicense: apache-2.0\nlanguage:\n- en\ntags:\n- tiny\n---\n# Tiny\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_checkpoint(tmp_path_factory.mktemp("hf") / "tiny-llama", SMALL, shards=3)
    (made / "README.md").write_text(CARD)
    (made / "modeling_tiny.py").write_text("raise SystemExit('this must never be downloaded')\n")
    return made


@pytest.fixture(scope="module")
def unbroken(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    result = quantize(str(folder), "Q4_K_M", tmp_path_factory.mktemp("ref") / "out.gguf")
    return tensors(result.path)


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path / "sprig-home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with LoopbackHub({REPO: folder}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def tensors(path: Path) -> dict[str, bytes]:
    raw = path.read_bytes()
    return {n: raw[t.offset : t.offset + t.nbytes] for n, t in read_header(path).tensors.items()}


def test_a_hub_id_becomes_a_gguf_with_its_origin_inside(hub: LoopbackHub, unbroken: dict[str, bytes], tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = quantize(REPO, "Q4_K_M", tmp_path / "out.gguf", on_progress=seen.append)
    assert tensors(result.path) == unbroken
    keys = read_header(result.path).keys
    commit = hub.commit(REPO)
    assert keys["sprig.source.name"] == REPO
    assert keys["sprig.source.commit"] == commit
    assert keys["general.base_model.0.repo_url"].endswith(REPO)
    assert keys["general.license"] == "apache-2.0"
    card = result.card.read_text()
    assert f"base_model: {REPO}" in card
    assert str(commit) in card
    assert "license: apache-2.0" in card
    assert {p.stage for p in seen} == {"download", "quantize", "check"}
    assert not [r for r in hub.requests if r.path.endswith(".py")]
    again = len(hub.requests)
    assert quantize(REPO, "Q4_K_M", tmp_path / "again.gguf", offline=True).path.read_bytes() == result.path.read_bytes()
    assert len(hub.requests) == again, "the cache is enough"


def test_a_dry_run_fetches_headers_and_no_weight(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    plan = dry_run(REPO, "Q4_K_M", tmp_path / "out.gguf")
    weights = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    assert plan.download == weights
    assert hub.sent("*.safetensors") <= 3 * (128 << 10), "one small read for each header"
    assert quantize(REPO, "Q4_K_M", tmp_path / "out.gguf").size == plan.size


def test_a_stream_leaves_nothing_on_the_disk_but_the_output(
    hub: LoopbackHub, folder: Path, unbroken: dict[str, bytes], tmp_path: Path
) -> None:
    result = quantize(REPO, "Q4_K_M", tmp_path / "out.gguf", stream=True)
    assert tensors(result.path) == unbroken
    kept = sum(p.stat().st_size for p in (tmp_path / "hf-home").rglob("*") if p.is_file() and not p.is_symlink())
    assert kept < 100_000
    weights = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    assert hub.sent("*.safetensors") <= weights + 6 * (128 << 10), "each byte once, and the headers for the plan"


@pytest.mark.parametrize("at", [1, 9, 17, 30, 39])
def test_a_killed_stream_goes_on_where_it_was(
    at: int, hub: LoopbackHub, folder: Path, unbroken: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    run_and_kill(os, "pwrite", at, lambda: quantize(REPO, "Q4_K_M", out, stream=True, threads=1))
    assert not out.exists()
    before = hub.sent("*.safetensors")
    result = quantize(REPO, "Q4_K_M", out, stream=True, resume=True, threads=1)
    assert tensors(out) == unbroken
    assert result.resumed > 0 or at < 2
    weights = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    if at > 30:
        assert hub.sent("*.safetensors") - before < 0.5 * weights, "what was read and proved is not read again"


@pytest.mark.parametrize("stream", [False, True])
def test_a_connection_cut_in_mid_file_is_taken_up_again(
    stream: bool, hub: LoopbackHub, unbroken: dict[str, bytes], tmp_path: Path
) -> None:
    hub.fail("*model-00002*", cut_after=300_000, times=3)
    assert tensors(quantize(REPO, "Q4_K_M", tmp_path / "out.gguf", stream=stream).path) == unbroken


def test_a_stream_that_breaks_off_for_good_can_be_taken_up_by_a_later_run(
    hub: LoopbackHub, unbroken: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.hub.client.time.sleep", lambda seconds: None)
    out = tmp_path / "out.gguf"
    hub.fail("*model-00003*.safetensors", skip=4, status=503, times=1000)
    with pytest.raises(BrokenOffError, match=r"--resume goes on") as caught:
        quantize(REPO, "Q4_K_M", out, stream=True)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    hub.heal()
    assert quantize(REPO, "Q4_K_M", out, stream=True, resume=True).resumed > 0
    assert tensors(out) == unbroken
    assert not list(tmp_path.glob("*.part*"))


@pytest.mark.parametrize("stream", [False, True])
def test_weights_that_are_not_what_the_hub_lists_are_never_used(stream: bool, hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "out.gguf").write_bytes(b"finished")
    hub.fail("*model-00003*", corrupt_at=400_000, times=1000)
    with pytest.raises(SprigError, match=r"model-00003-of-00003\.safetensors.*expected") as caught:
        quantize(REPO, "Q4_K_M", tmp_path / "out.gguf", stream=stream)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "out.gguf").read_bytes() == b"finished"
    assert not list(tmp_path.glob("out.gguf.*"))


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
@pytest.mark.parametrize("stream", [False, True])
def test_a_hub_that_refuses_ends_in_one_clear_line(
    status: int, stream: bool, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.hub.client.time.sleep", lambda seconds: None)
    hub.fail("*", status=status, times=1000)
    with pytest.raises(SprigError) as caught:
        quantize(REPO, "Q4_K_M", tmp_path / "out.gguf", stream=stream)
    assert "\n" not in str(caught.value)
    assert REPO in str(caught.value) or hub.url in str(caught.value)
    assert not list(tmp_path.glob("out.*"))


def test_a_streamed_duplicate_head_is_proved_in_passing(hub: LoopbackHub, tmp_path: Path) -> None:
    twin = write_checkpoint(tmp_path / "twin", SMALL)
    config = json.loads((twin / "config.json").read_text())
    (twin / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    copy_tensor(twin / "model.safetensors", "model.embed_tokens.weight", "lm_head.weight")
    hub.publish("sprig-test/twin", twin)
    local = quantize(str(twin), "Q8_0", tmp_path / "local.gguf")
    streamed = quantize("sprig-test/twin", "Q8_0", tmp_path / "streamed.gguf", stream=True)
    assert streamed.preflight.model.tied_head is not None
    assert tensors(streamed.path) == tensors(local.path)


def test_a_killed_stream_with_a_duplicate_head_is_not_read_twice(hub: LoopbackHub, tmp_path: Path) -> None:
    twin = write_checkpoint(tmp_path / "twin", SMALL, shards=2)
    config = json.loads((twin / "config.json").read_text())
    (twin / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True, "num_hidden_layers": 4}))
    embedding = read_safetensors_header(twin / "model-00001-of-00002.safetensors")["model.embed_tokens.weight"]
    head = read_safetensors_header(twin / "model-00002-of-00002.safetensors")["lm_head.weight"]
    raw = bytearray((twin / "model-00002-of-00002.safetensors").read_bytes())
    source = (twin / "model-00001-of-00002.safetensors").read_bytes()
    raw[head.offset : head.offset + head.nbytes] = source[embedding.offset : embedding.offset + embedding.nbytes]
    (twin / "model-00002-of-00002.safetensors").write_bytes(raw)
    hub.publish("sprig-test/twin", twin)
    local = quantize(str(twin), "Q8_0", tmp_path / "local.gguf")
    out = tmp_path / "r.gguf"
    run_and_kill(os, "pwrite", 34, lambda: quantize("sprig-test/twin", "Q8_0", out, stream=True, threads=1))
    before = hub.sent("*.safetensors")
    assert quantize("sprig-test/twin", "Q8_0", out, stream=True, resume=True, threads=1).resumed > 0
    assert out.exists()
    assert tensors(out) == tensors(local.path)
    weights = sum(p.stat().st_size for p in twin.glob("*.safetensors"))
    assert hub.sent("*.safetensors") - before < 0.6 * weights
    # The same with a head that is another: found out at the end, and nothing is published.
    raw[head.offset + 100_000] ^= 1
    (twin / "model-00002-of-00002.safetensors").write_bytes(raw)
    hub.publish("sprig-test/twin", twin)
    with pytest.raises(SprigError, match=r"lm_head\.weight differs"):
        quantize("sprig-test/twin", "Q8_0", tmp_path / "other.gguf", stream=True)
    assert not list(tmp_path.glob("other*"))
