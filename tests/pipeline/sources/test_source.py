"""From a model's name to proved files on this disk: only what is needed, only from one commit, whatever the network does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.errors import CheckpointError, SourceError, SprigError
from agent.hub import client as hub_module
from agent.hub.client import WeightFile
from agent.hub.download import Digest
from pipeline.sources import cache as source_cache
from pipeline.sources.checkpoint import read_safetensors_header
from pipeline.sources.source import Source, cached_bytes, fetch, headers, open_checkpoint, open_source
from tests.fixtures.loopback_hub import LoopbackHub
from tests.fixtures.paths import ROOT
from tests.fixtures.small_checkpoints import NEEDED, shard_name, write_checkpoint

pytestmark = pytest.mark.slow

REPO = "org/small"
FIRST, SECOND = shard_name(0, 2), shard_name(1, 2)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache and a home of its own for each test, and no patience."""
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path / "sprig"))
    monkeypatch.setattr(hub_module, "BACKOFF_SECONDS", 0.001)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model")


@pytest.fixture
def server(model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub({REPO: model}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def refusal(model: str | Path, **options: object) -> str:
    with pytest.raises(SprigError) as caught:
        open_source(str(model), **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def blobs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "hf").glob("hub/*/blobs/*"))


def in_child(code: str) -> subprocess.Popen[str]:
    """Another process with the same home, cache and Hub."""
    first = "from pipeline.sources.source import *\nfrom agent.hub import client\nclient.BACKOFF_SECONDS = 0.01\n"
    return subprocess.Popen(
        [sys.executable, "-c", first + code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def same_weights(source: Source, paths: dict[str, Path], model: Path) -> bool:
    return list(paths) == [w.name for w in source.weights] and all(
        paths[n].read_bytes() == (model / n).read_bytes() for n in paths
    )


# What a person types.


def test_a_folder_is_read_with_its_small_files_and_its_shards(model: Path) -> None:
    source = open_source(str(model))
    assert (source.kind, source.name, source.format, source.path) == ("folder", "model", "safetensors", model)
    assert set(source.files) == {*NEEDED, "model.safetensors.index.json"}
    assert [w.name for w in source.weights] == [FIRST, SECOND]
    assert source.index is not None
    assert set(headers(source)) == set(source.index)
    assert fetch(source) == {FIRST: model / FIRST, SECOND: model / SECOND}


def test_what_is_not_there_is_said_with_what_was_looked_for(tmp_path: Path) -> None:
    for name in ("smollm", str(tmp_path / "gone"), "./org/name", "../name", "org/gone.gguf", "~nobody-of-this-name/model"):
        assert "no file, no name in" in refusal(name)
    assert "cannot read" in refusal("x" * 5000)
    assert "no model was named" in refusal(" ")
    assert "no model was named" in refusal("a\0b")
    (tmp_path / "empty").mkdir()
    assert "looked for model.safetensors" in refusal(tmp_path / "empty")
    assert "no revision 'main'" in refusal(tmp_path, revision="main")


def test_a_folder_of_the_hubs_cache_is_the_model_and_not_a_hash(server: LoopbackHub, model: Path, tmp_path: Path) -> None:
    fetch(open_source(REPO))
    commit = server.commit(REPO)
    root = tmp_path / "hf" / "hub" / "models--org--small"
    for folder in (root, root / "snapshots" / commit):
        source = open_source(str(folder))
        assert (source.kind, source.name, source.repo_id, source.commit) == ("folder", REPO, REPO, commit)
        assert same_weights(source, fetch(source), model)


def test_what_a_trainer_saved_is_named_after_the_folder_around_it(model: Path, tmp_path: Path) -> None:
    saved = tmp_path / "my-assistant" / "checkpoint-500"
    shutil.copytree(model, saved)
    for file in ("optimizer.pt", "rng_state.pth", "scheduler.pt", "training_args.bin"):
        (saved / file).write_bytes(b"x")
    source = open_source(f"{saved}/")
    assert source.name == "my-assistant-checkpoint-500"
    assert [w.name for w in source.weights] == [FIRST, SECOND]


def test_a_pasted_address_is_the_model_at_it(server: LoopbackHub) -> None:
    for text in (f"{server.url}/{REPO}/tree/main", f" {REPO}/ ", f"hf:{REPO}", f"hf.co/{REPO}", f"https://huggingface.co/{REPO}"):
        assert open_source(text).repo_id == REPO


def test_a_name_in_the_store_is_a_source_too(tmp_path: Path) -> None:
    (tmp_path / "sprig" / "models").mkdir(parents=True)
    (tmp_path / "sprig" / "models" / "Small-F16.gguf").write_bytes(b"GGUF")
    assert open_source("small-f16").path == tmp_path / "sprig" / "models" / "Small-F16.gguf"
    assert "no revision 'v1'" in refusal("small-f16", revision="v1")


def test_a_model_of_ollama_is_called_by_its_name_and_not_by_a_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, top = "ab" * 32, tmp_path / "ollama"
    (top / "blobs").mkdir(parents=True)
    (top / "manifests/registry.ollama.ai/me/basil").mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    (top / "manifests/registry.ollama.ai/me/basil/1b").write_text(json.dumps({"layers": [layer]}))
    (top / f"blobs/sha256-{digest}").write_bytes(b"GGUF")
    monkeypatch.setenv("OLLAMA_MODELS", str(top))
    assert open_source("ollama:me/basil:1b").name == "me/basil:1b"


def test_a_gguf_file_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    for typed in (file, tmp_path):
        source = open_source(str(typed))
        assert (source.kind, source.format, source.path, source.name) == ("gguf", "gguf", file, "model.gguf")
    with pytest.raises(SprigError, match="not a checkpoint"):
        headers(source)
    file.write_bytes(b"<html>")
    assert "is not a GGUF file" in refusal(file)
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    assert "name one of them: model.gguf, other.gguf" in refusal(tmp_path)


def test_safetensors_come_before_bin_and_bin_before_gguf(tmp_path: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin", "model.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    assert open_source(str(tmp_path)).format == "safetensors"
    (tmp_path / "model.safetensors").unlink()
    assert open_source(str(tmp_path)).format == "bin"
    (tmp_path / "pytorch_model.bin").unlink()
    assert open_source(str(tmp_path)).kind == "gguf"


def test_an_adapter_is_found_by_itself_and_comes_before_a_gguf_but_not_before_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    (tmp_path / "adapter.gguf").write_bytes(b"GGUF")
    assert open_source(str(tmp_path)).is_adapter
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert not open_source(str(tmp_path)).is_adapter


def test_a_missing_shard_is_named_before_anything_is_read(model: Path) -> None:
    (model / SECOND).unlink()
    assert f"lacks 1 of its 2 weight files: {SECOND}" in refusal(model)
    (model / "model.safetensors.index.json").unlink()
    assert f"lacks 1 of its 2 weight files: {SECOND}" in refusal(model)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "[" * 100_000])
def test_a_broken_index_is_refused(model: Path, content: str) -> None:
    (model / "model.safetensors.index.json").write_text(content)
    assert "is not an index of weights" in refusal(model)


@pytest.mark.parametrize("name", ["../../secret.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "a\nb.safetensors"])
def test_an_index_cannot_lead_out_of_its_folder(model: Path, name: str) -> None:
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert "no honest model" in refusal(model)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "modeling_own.py"}}))
    assert "names 'modeling_own.py' as a weight file" in refusal(model)


def test_two_revisions_or_an_impossible_one_are_refused() -> None:
    assert "two revisions" in refusal(f"{REPO}@a", revision="b")
    for revision in ("../../x", "-x", "a b", "a\nb", "a//b", "x" * 300):
        assert "cannot be a revision" in refusal(REPO, revision=revision)


# The Hub: only what is needed, from one commit.


def test_preflight_reads_headers_and_no_weight(server: LoopbackHub, model: Path) -> None:
    write_checkpoint(model, rows=400)
    server.publish(REPO, model)
    source = open_source(REPO)
    infos = headers(source)
    weights = sum(w.size for w in source.weights)
    assert infos == {n: i for f in (FIRST, SECOND) for n, i in read_safetensors_header(model / f).items()}
    assert server.sent("*.safetensors") < 3 * 128 * 1024 < weights / 10
    assert cached_bytes(source) == 0
    assert source.files["config.json"] == (model / "config.json").read_bytes()


def test_only_the_needed_files_are_asked_for_and_all_from_one_commit(server: LoopbackHub, model: Path) -> None:
    source = open_source(REPO)
    commit = source.commit
    write_checkpoint(model, seed=1)
    assert server.publish(REPO, model) != commit, "the branch moves while we work"
    headers(source)
    with pytest.raises(SourceError):
        fetch(source)
    write_checkpoint(model, seed=0)
    paths = fetch(source)
    assert same_weights(source, paths, model)
    asked = [r.path for r in server.requests if not r.path.startswith("/api/")]
    assert all(f"/{commit}/" in path for path in asked)
    assert {path.split(f"/{commit}/")[1] for path in asked} == {
        *NEEDED, "model.safetensors.index.json", FIRST, SECOND,
    }  # fmt: skip


def test_a_tag_and_a_commit_can_be_asked_for(server: LoopbackHub, model: Path, tmp_path: Path) -> None:
    old = server.publish(REPO, model, "v1.0")
    new = server.publish(REPO, write_checkpoint(tmp_path / "new", seed=1))
    assert old != new
    assert open_source(f"{REPO}@v1.0").commit == old
    assert open_source(REPO, revision="v1.0").revision == "v1.0"
    assert open_source(REPO).commit == new
    assert open_source(f"{REPO}@{old}").commit == old


def test_a_repository_of_ggufs_says_so(server: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "model-Q4_0.gguf").write_bytes(b"GGUF")
    server.publish("org/only-GGUF", tmp_path / "only")
    assert "holds only GGUF files (model-Q4_0.gguf)" in refusal("org/only-GGUF")


@pytest.mark.parametrize("name", ["additional_chat_templates/../../../evil.jinja", "tokenizer\\..\\x.json", "vocab.\0"])
def test_a_listing_cannot_name_a_file_outside(server: LoopbackHub, name: str) -> None:
    server.extra_files[REPO] = [{"rfilename": name, "size": 3, "blobId": "0" * 40}]
    assert "no honest model" in refusal(REPO)


def test_a_small_file_of_gigabytes_is_not_read(server: LoopbackHub) -> None:
    server.extra_files[REPO] = [{"rfilename": "vocab.json", "size": 10**12, "blobId": "0" * 40}]
    assert "no honest size" in refusal(REPO)


def test_a_small_file_is_proved_too(server: LoopbackHub, tmp_path: Path) -> None:
    server.fail("*/tokenizer.json", corrupt_at=3, times=2)
    message = refusal(REPO)
    assert "tokenizer.json from" in message
    assert "git SHA-1" in message
    assert open_source(REPO).files["tokenizer.json"] == b'{"version": "1.0"}'


def test_a_gated_model_opens_with_the_token_that_was_given(server: LoopbackHub) -> None:
    server.gated.add(REPO)
    assert "accept the licence" in refusal(REPO)
    source = open_source(REPO, token=server.token)
    assert len(fetch(source)) == 2
    assert server.token not in repr(source)


# Downloads.


def test_what_is_downloaded_is_proved_shared_and_not_asked_for_again(server: LoopbackHub, model: Path, tmp_path: Path) -> None:
    source = open_source(REPO)
    told: list[tuple[str, int, int]] = []
    paths = fetch(source, lambda *now: told.append(now))
    assert same_weights(source, paths, model)
    assert told[-1] == (SECOND, source.weights[1].size, source.weights[1].size)
    assert cached_bytes(source) == sum(w.size for w in source.weights)
    before = len(server.requests)
    fetch(source)
    headers(source)
    assert len(server.requests) == before
    code = f"from huggingface_hub import snapshot_download as d; d('{REPO}', allow_patterns='*.safetensors')"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert {r.path.rpartition("/")[2] for r in server.requests[before:] if r.sent and r.origin == "cdn"} <= {
        "model.safetensors"
    }, "huggingface_hub finds our shards, and gets only the one in onnx/"


def test_a_download_goes_on_where_it_was_cut(server: LoopbackHub, model: Path) -> None:
    source = open_source(REPO)
    server.fail(f"*{FIRST}", cut_after=200_000, times=3)
    assert same_weights(source, fetch(source), model)
    assert server.sent(f"/cdn/*{FIRST}") == source.weights[0].size


def test_a_download_that_fails_leaves_only_a_part_to_go_on_with(server: LoopbackHub, model: Path, tmp_path: Path) -> None:
    source = open_source(REPO)
    small = blobs(tmp_path)
    server.fail(f"*{FIRST}", cut_after=300_000)
    server.fail("*/resolve/*", status=500, times=1000, skip=1)
    with pytest.raises(SourceError, match=f"cannot read {FIRST}"):
        fetch(source)
    (left,) = set(blobs(tmp_path)) - set(small)
    assert left.name == f"{source.weights[0].sha256}.sprig-part"
    assert left.stat().st_size == 300_000 == cached_bytes(source)
    server.heal()
    assert same_weights(source, fetch(source), model)
    assert server.sent(f"/cdn/*{FIRST}") == source.weights[0].size


def test_after_kill_9_nothing_that_was_written_is_fetched_again(server: LoopbackHub, model: Path, tmp_path: Path) -> None:
    write_checkpoint(model, shards=1, rows=1500)
    (model / "model.safetensors.index.json").unlink()
    server.publish(REPO, model)
    source = open_source(REPO)
    (file,) = source.weights
    server.fail("*model.safetensors", bytes_per_second=12_000_000)
    child = in_child(f"fetch(open_source({REPO!r}))")
    part = source_cache.RepoCache(REPO).part(file)
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 4_000_000) and time.monotonic() < deadline:
        assert child.poll() is None, child.communicate()[1]
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    kept = part.stat().st_size
    assert 4_000_000 < kept < file.size
    before = len(server.requests)
    assert same_weights(source, fetch(source), model)
    assert sum(r.sent for r in server.requests[before:]) == file.size - kept


def test_two_processes_at_once_download_once(server: LoopbackHub, model: Path) -> None:
    open_source(REPO)
    server.fail(f"*{FIRST}", bytes_per_second=1_500_000, times=100)
    children = [in_child(f"print(len(fetch(open_source({REPO!r}))))") for _ in range(3)]
    for child in children:
        out, err = child.communicate(timeout=60)
        assert (out.strip(), child.returncode) == ("2", 0), err
    source = open_source(REPO)
    assert server.sent("/cdn/*") == sum(w.size for w in source.weights)


def test_one_wrong_byte_is_found_and_the_file_fetched_once_more(server: LoopbackHub, model: Path) -> None:
    source = open_source(REPO)
    server.fail(f"*{FIRST}", corrupt_at=500_000)
    assert same_weights(source, fetch(source), model)


def test_a_wrong_file_is_refused_and_not_kept(server: LoopbackHub, tmp_path: Path) -> None:
    source = open_source(REPO)
    server.fail(f"*{FIRST}", corrupt_at=500_000, times=2)
    with pytest.raises(SourceError) as caught:
        fetch(source)
    message = str(caught.value)
    assert FIRST in message
    assert f"expected SHA-256 {source.weights[0].sha256}, got " in message
    assert "\n" not in message
    names = {b.name for b in blobs(tmp_path)}
    assert not {n for n in names if n.startswith(str(source.weights[0].sha256))}


def test_a_part_that_rotted_costs_one_more_download(server: LoopbackHub, model: Path) -> None:
    source = open_source(REPO)
    part = source_cache.RepoCache(REPO).part(source.weights[0])
    part.write_bytes(bytes(100_000))
    assert same_weights(source, fetch(source), model)
    part.write_bytes(bytes(10))
    source_cache.RepoCache(REPO).blob(source.weights[1]).unlink()
    source_cache.RepoCache(REPO).part(source.weights[1]).write_bytes(bytes(source.weights[1].size + 5))
    assert same_weights(source, fetch(source), model)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 401}, {"status": 403}, {"status": 404}, {"status": 429}, {"status": 500}, {"status": 503},
        {"cut_after": 10}, {"extra_length": 5, "cut_after": 7}, {"encoding": "br"}, {"corrupt_at": 9},
    ],
    ids=str,
)  # fmt: skip
def test_every_fault_ends_in_one_line_and_the_next_run_mends_it(
    server: LoopbackHub, model: Path, tmp_path: Path, fault: dict[str, int]
) -> None:
    source = open_source(REPO)
    server.fail(f"*{SECOND}", times=1000, **fault)
    with pytest.raises(SourceError, match=r"^[^\n]{20,400}$"):
        fetch(source)
    assert str(source.weights[1].sha256) not in {b.name for b in blobs(tmp_path)}
    server.heal()
    assert same_weights(source, fetch(source), model)


# The cache of another tool, and no network.


def test_what_another_tool_cached_is_used_after_it_was_proved(server: LoopbackHub, model: Path) -> None:
    code = f"from huggingface_hub import snapshot_download as d; d('{REPO}')"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    before = server.sent("/cdn/*")
    source = open_source(REPO)
    assert same_weights(source, fetch(source), model)
    assert server.sent("/cdn/*") == before
    assert source_cache.RepoCache(REPO).found(str(source.commit), source.weights[0]) is not None


def test_a_cached_file_that_was_tampered_with_is_not_used(server: LoopbackHub, model: Path) -> None:
    source = open_source(REPO)
    path = fetch(source)[FIRST].resolve()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SourceError, match=f"{FIRST} in the cache .* expected SHA-256"):
        fetch(open_source(REPO, offline=True))
    assert path.read_bytes() == bytes(content), "offline it is evidence, and nothing could replace it"
    assert same_weights(source, fetch(source), model)


def test_a_cache_that_may_only_be_read_is_enough_once_all_is_there(
    server: LoopbackHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(REPO)
    fetch(source)

    def read_only(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(source_cache.RepoCache, "locked", read_only)
    assert same_weights(source, fetch(open_source(REPO)), model)


def test_a_link_in_the_cache_to_somebodys_own_file_is_cut_and_the_file_kept(
    server: LoopbackHub, model: Path, tmp_path: Path
) -> None:
    source = open_source(REPO)
    own = tmp_path / "own"
    own.write_bytes(bytes(source.weights[0].size))
    pointer = source_cache.RepoCache(REPO).pointer(str(source.commit), FIRST)
    pointer.symlink_to(own)
    assert same_weights(source, fetch(source), model)
    assert own.read_bytes() == bytes(source.weights[0].size)


def test_a_file_is_hashed_once_and_again_when_it_changed(
    server: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = open_source(REPO)
    paths = fetch(source)
    hashed: list[str] = []
    real = source_cache.fresh_digest

    def counted(file: WeightFile) -> Digest:
        hashed.append(file.name)
        return real(file)

    monkeypatch.setattr(source_cache, "fresh_digest", counted)
    fetch(source)
    assert hashed == []
    stat = paths[FIRST].stat()
    os.utime(paths[FIRST], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    fetch(source)
    assert hashed == [FIRST]
    (tmp_path / "sprig" / "verified.json").write_text("[" * 100_000)
    fetch(source)
    assert hashed == [FIRST, FIRST, SECOND]


def test_offline_the_cache_is_all_there_is(server: LoopbackHub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"{REPO}@main is not in the cache" in refusal(REPO, offline=True)
    online = open_source(REPO)
    assert f"{FIRST}, {SECOND}" in refusal(REPO, offline=True)
    fetch(online)
    before = len(server.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = open_source(REPO)
    assert source.offline
    assert source.files == online.files
    assert [(w.name, w.size, w.sha256) for w in source.weights] == [(w.name, w.size, w.sha256) for w in online.weights]
    assert headers(source) == headers(online)
    assert same_weights(source, fetch(source), model)
    assert open_source(f"{REPO}@{online.commit}").commit == online.commit
    with pytest.raises(SourceError, match="used offline"):
        open_checkpoint(source, stream=True)
    assert len(server.requests) == before


def test_a_cache_that_never_saw_a_weight_is_not_blamed_on_the_model(server: LoopbackHub, tmp_path: Path) -> None:
    single = write_checkpoint(tmp_path / "single", shards=1)
    (single / "pytorch_model.bin").unlink()
    server.publish(REPO, single)
    open_source(REPO)
    assert f"the cache of {REPO}, which is used offline, holds no checkpoint" in refusal(REPO, offline=True)


def test_a_cache_without_links_works_and_stays_proved(server: LoopbackHub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError("this file system has no links")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    source = open_source(REPO)
    assert same_weights(source, fetch(source), model)
    offline = open_source(REPO, offline=True)
    assert same_weights(offline, fetch(offline), model)
    path = fetch(offline)[FIRST]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(SourceError, match="nothing says what"):
        fetch(open_source(REPO, offline=True))


# A disk that is full, and a place that cannot be written.


def test_a_disk_without_room_is_refused_before_the_first_byte(server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(REPO)
    monkeypatch.setattr(source_cache, "free_disk", lambda _: 100_000)
    before = server.sent("/cdn/*")
    with pytest.raises(SourceError, match=f"{FIRST} needs 807 kB in .* where 100 kB are free"):
        fetch(source)
    assert server.sent("/cdn/*") == before


def test_a_disk_that_fills_up_ends_in_one_line_and_is_gone_on_with(server: LoopbackHub, model: Path) -> None:
    code = (
        "import resource\n"
        f"source = open_source({REPO!r})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "try: fetch(source)\n"
        "except Exception as e: print(type(e).__name__, e)\n"
    )
    out, err = in_child(code).communicate(timeout=60)
    assert out.startswith(f"SourceError cannot keep {FIRST}"), err
    assert out.count("\n") == 1
    source = open_source(REPO)
    assert 0 < cached_bytes(source) <= 300_000
    assert same_weights(source, fetch(source), model)
    assert server.sent(f"/cdn/*{FIRST}") < 2 * source.weights[0].size


def test_a_cache_that_is_a_file_is_one_line(server: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "hf").write_text("in the way")
    assert "cannot keep" in refusal(REPO)


# The tensors.


def test_mapped_tensors_are_the_files_own_bytes(server: LoopbackHub, model: Path) -> None:
    local, remote = open_checkpoint(open_source(str(model))), open_checkpoint(open_source(REPO))
    assert local.tensors == remote.tensors
    for name, info in local.tensors.items():
        raw = (model / info.file).read_bytes()[info.offset : info.offset + info.nbytes]
        assert remote.rows(name, 0, info.n_rows).tobytes() == raw == local.rows(name, 0, info.n_rows).tobytes()


def test_a_sharded_bin_checkpoint_comes_through_torch(server: LoopbackHub, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    folder, weight_map = tmp_path / "bin", {}
    folder.mkdir()
    for i in (1, 2):
        torch.save({f"w{i}": torch.full((3, 5), float(i))}, folder / f"pytorch_model-0000{i}-of-00002.bin")
        weight_map[f"w{i}"] = f"pytorch_model-0000{i}-of-00002.bin"
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    server.publish("org/bin", folder)
    for typed in (str(folder), "org/bin"):
        source = open_source(typed)
        assert source.format == "bin"
        assert {n: i.shape for n, i in headers(source).items()} == {"w1": (3, 5), "w2": (3, 5)}
        rows = open_checkpoint(source).rows("w2", 1, 3)
        assert np.array_equal(rows.view(np.float32), np.full((2, 5), 2.0, np.float32))
    with pytest.raises(SourceError, match="cannot be streamed"):
        open_checkpoint(source, stream=True)


def test_what_a_broken_header_says_on_the_hub_is_what_it_says_on_disk(server: LoopbackHub, model: Path) -> None:
    whole = (model / SECOND).read_bytes()
    for content in (whole[:-1], whole[:5], b"version https://git-lfs.github.com/spec/v1\n", whole + b"!"):
        (model / SECOND).write_bytes(content)
        server.publish(REPO, model)
        with pytest.raises(CheckpointError, match=f"{SECOND} is (not a whole safetensors file|a Git LFS pointer)") as local:
            headers(open_source(str(model)))
        with pytest.raises(CheckpointError) as remote:
            headers(open_source(REPO))
        assert str(local.value) == str(remote.value)


def test_no_code_of_a_repository_is_ever_on_this_disk(server: LoopbackHub, tmp_path: Path) -> None:
    fetch(open_source(REPO))
    shutil.rmtree(tmp_path / "model")
    assert list(tmp_path.rglob("*.py")) == []
