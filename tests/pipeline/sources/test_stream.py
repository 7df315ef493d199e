"""Reading straight from the Hub: the same bytes as from disk, nothing on the disk, and every shard proved at its end."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import SourceError
from agent.hub import client as hub_module
from pipeline.sources import digest as source_hash
from pipeline.sources import stream
from pipeline.sources.checkpoint import RawRows
from pipeline.sources.source import Source, open_checkpoint, open_source
from pipeline.sources.stream import StreamCheckpoint
from tests.fixtures.generated import runs
from tests.fixtures.loopback_hub import LoopbackHub
from tests.fixtures.small_checkpoints import ROWS, shard_name, write_checkpoint

pytestmark = pytest.mark.slow

REPO = "org/small"
FIRST, SECOND = shard_name(0, 2), shard_name(1, 2)
STEP = 32
Range = tuple[str, int, int]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path / "sprig"))
    monkeypatch.setattr(hub_module, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(stream, "PIECE_BYTES", 50_000)  # so that a small shard is many pieces
    monkeypatch.setattr(stream, "READ_AHEAD_PIECES", 4)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub({REPO: write_checkpoint(tmp_path / "model")}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def source(server: LoopbackHub) -> Source:
    return open_source(REPO)


def streamed(source: Source) -> StreamCheckpoint:
    checkpoint = open_checkpoint(source, stream=True)
    assert isinstance(checkpoint, StreamCheckpoint)
    return checkpoint


def all_ranges(checkpoint: StreamCheckpoint) -> list[Range]:
    """Every row, in slabs, in the order of the shards."""
    infos = sorted(checkpoint.tensors.values(), key=lambda i: (i.file, i.offset))
    return [(i.name, r, min(r + STEP, i.n_rows)) for i in infos for r in range(0, i.n_rows, STEP)]


def truth(tmp_path: Path) -> Any:
    return open_checkpoint(open_source(str(tmp_path / "model")))


def test_the_same_bytes_come_as_from_the_disk_and_nothing_is_left_there(source: Source, tmp_path: Path) -> None:
    local = truth(tmp_path)
    with streamed(source) as checkpoint:
        ranges = all_ranges(checkpoint)
        assert checkpoint.tensors == local.tensors
        for read, rows in zip(ranges, checkpoint.in_order(iter(ranges)), strict=True):
            assert np.array_equal(rows, local.rows(*read))
        checkpoint.finish()
    assert [p.name for p in (tmp_path / "hf").rglob("*safetensors*")] == ["model.safetensors.index.json"]


def test_each_shard_is_read_once_by_one_request(source: Source, server: LoopbackHub) -> None:
    checkpoint = streamed(source)
    before = len(server.requests)
    for _ in checkpoint.in_order(all_ranges(checkpoint)):
        pass
    checkpoint.finish()
    assert sum(r.sent for r in server.requests[before:]) == sum(w.size for w in source.weights)
    assert [r.path.rpartition("/")[2] for r in server.requests[before:] if r.origin == "cdn"] == [FIRST, SECOND]


def test_rows_in_between_that_nobody_wants_are_read_and_hashed_too(source: Source, tmp_path: Path) -> None:
    checkpoint, local = streamed(source), truth(tmp_path)
    wanted = [("layers.0.weight_1", 5, 7), ("layers.1.weight_2", 90, 96)]
    for read, rows in zip(wanted, checkpoint.in_order(wanted), strict=True):
        assert np.array_equal(rows, local.rows(*read))
    assert checkpoint.position(FIRST) == source.weights[0].size
    assert checkpoint.position(SECOND) == source.weights[1].size


def test_a_shard_that_nobody_reads_is_proved_by_finish_when_it_is_asked_for(source: Source, server: LoopbackHub) -> None:
    checkpoint = streamed(source)
    list(checkpoint.in_order([("layers.0.weight_0", 0, 1)]))
    before = server.sent("/cdn/*")
    checkpoint.finish([FIRST])
    assert server.sent("/cdn/*") == before
    server.fail(f"*{SECOND}", corrupt_at=300_000)
    with pytest.raises(SourceError, match=SECOND):
        checkpoint.finish()


@settings(derandomize=True, deadline=None, max_examples=runs(20), suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, ROWS), st.integers(0, 40)), min_size=1, max_size=12))
def test_any_ascending_ranges_give_the_right_rows(source: Source, tmp_path: Path, picks: list[tuple[int, int, int]]) -> None:
    local, checkpoint = truth(tmp_path), streamed(source)
    names = [f"layers.{i}.weight_{k}" for i in (0, 1) for k in range(3)]
    wanted = [(names[t], start, min(start + count, ROWS)) for t, start, count in sorted(set(picks))]
    for read, rows in zip(wanted, checkpoint.in_order(wanted), strict=True):
        assert np.array_equal(rows, local.rows(*read))


def test_ranges_that_go_back_are_a_mistake_of_the_caller(source: Source) -> None:
    checkpoint = streamed(source)
    with pytest.raises(ValueError, match="in order"):
        list(checkpoint.in_order([("layers.0.weight_1", 0, 4), ("layers.0.weight_0", 0, 4)]))


def test_a_sample_needs_no_order_and_moves_nothing(source: Source, tmp_path: Path, server: LoopbackHub) -> None:
    checkpoint, local = streamed(source), truth(tmp_path)
    before = server.sent("/cdn/*")
    for read in (("layers.1.weight_2", 95, 96), ("layers.0.weight_0", 0, 2)):
        assert np.array_equal(checkpoint.rows(*read), local.rows(*read))
    assert checkpoint.position(FIRST) == checkpoint.position(SECOND) == 0
    assert server.sent("/cdn/*") - before == 3 * 2800


# Faults.


def test_one_wrong_byte_is_found_at_the_end_of_its_shard(source: Source, server: LoopbackHub) -> None:
    checkpoint = streamed(source)
    server.fail(f"*{FIRST}", corrupt_at=700_000)
    got: list[RawRows] = []
    with pytest.raises(SourceError) as caught:
        got.extend(checkpoint.in_order(all_ranges(checkpoint)))
    assert f"{FIRST} of {REPO} is not what the Hub lists: expected {source.weights[0].sha256}, got" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(got) == 3 * (ROWS // STEP), "nothing of the second shard was given"


def test_a_header_that_changes_between_two_reads_is_found_at_once(source: Source, server: LoopbackHub) -> None:
    checkpoint = streamed(source)
    server.fail(f"*{FIRST}", corrupt_at=20)
    with pytest.raises(SourceError, match="changed while it was read"):
        next(checkpoint.in_order(all_ranges(checkpoint)))


def test_a_cut_in_mid_stream_goes_on_at_the_next_byte(source: Source, server: LoopbackHub, tmp_path: Path) -> None:
    checkpoint, local = streamed(source), truth(tmp_path)
    before = len(server.requests)
    server.fail("*.safetensors", cut_after=150_000, times=8)
    server.fail(f"*{SECOND}", ignore_range=True)
    ranges = all_ranges(checkpoint)
    for read, rows in zip(ranges, checkpoint.in_order(ranges), strict=True):
        assert np.array_equal(rows, local.rows(*read))
    answers = [(r.status, r.range is not None) for r in server.requests[before:] if r.origin == "cdn"]
    assert len(answers) == 9
    assert (200, True) in answers, "and one server did not know what a range is"


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 404}, {"cut_after": 10}], ids=str)
def test_a_stream_that_cannot_go_on_ends_in_one_line(source: Source, server: LoopbackHub, fault: dict[str, int]) -> None:
    checkpoint = streamed(source)
    server.fail(f"*{SECOND}", times=1000, **fault)
    got: list[RawRows] = []
    with pytest.raises(SourceError, match=r"^[^\n]{20,400}$"):
        got.extend(checkpoint.in_order(all_ranges(checkpoint)))
    assert len(got) == 3 * (ROWS // STEP)


def test_the_reader_stops_when_nobody_listens_any_more(source: Source) -> None:
    checkpoint = streamed(source)
    rows = checkpoint.in_order(all_ranges(checkpoint))
    next(rows)
    rows.close()
    for thread in threading.enumerate():
        if thread.name == "sprig-stream":
            thread.join(60)
            assert not thread.is_alive()
    assert 0 < checkpoint.position(FIRST) < source.weights[0].size


def test_it_reads_ahead_no_more_than_it_may(source: Source, server: LoopbackHub) -> None:
    checkpoint = streamed(source)
    before = server.sent("/cdn/*")
    rows = checkpoint.in_order(all_ranges(checkpoint))
    next(rows)
    shard = checkpoint._current
    assert shard is not None
    assert shard._pieces.maxsize == 4
    rows.close()
    assert server.sent("/cdn/*") - before <= source.weights[0].size


# A run that was killed.


def interrupted(source: Source, after: int) -> tuple[list[Range], dict[str, Any]]:
    """What a run that died after so many slabs had still to do, and the state in its journal."""
    checkpoint = streamed(source)
    ranges = all_ranges(checkpoint)
    rows = checkpoint.in_order(ranges)
    for _ in range(after):
        next(rows)
    state = json.loads(json.dumps(checkpoint.state()))
    rows.close()
    return ranges[after:], state


@pytest.mark.parametrize("after", [1, 4, 9, 10, 17, 18])
def test_a_killed_run_goes_on_without_reading_anything_again(
    source: Source, server: LoopbackHub, tmp_path: Path, after: int
) -> None:
    todo, state = interrupted(source, after)
    if source_hash._openssl() is None:
        pytest.skip("this Python has no OpenSSL whose hash can be saved")
    local, checkpoint = truth(tmp_path), streamed(source)
    checkpoint.restore({state["file"]: state})
    assert checkpoint.position(state["file"]) == state["position"]
    before = len(server.requests)
    for read, rows in zip(todo, checkpoint.in_order(todo), strict=True):
        assert np.array_equal(rows, local.rows(*read))
    checkpoint.finish()
    sizes = {w.name: w.size for w in source.weights}
    left = sum(sizes.values()) - state["position"] - (sizes[FIRST] if state["file"] == SECOND else 0)
    assert sum(r.sent for r in server.requests[before:]) == left


def test_a_resumed_run_still_finds_a_wrong_byte(source: Source, server: LoopbackHub) -> None:
    todo, state = interrupted(source, 4)
    checkpoint = streamed(source)
    checkpoint.restore({state["file"]: state})
    server.fail(f"*{FIRST}", corrupt_at=800_000)
    with pytest.raises(SourceError, match="not what the Hub lists"):
        list(checkpoint.in_order(todo))


def test_a_wrong_byte_before_the_kill_is_found_after_it(source: Source, server: LoopbackHub) -> None:
    server.fail(f"*{FIRST}", corrupt_at=100_000, skip=1)  # the first request is for the header
    todo, state = interrupted(source, 4)
    checkpoint = streamed(source)
    checkpoint.restore({state["file"]: state})
    with pytest.raises(SourceError, match="not what the Hub lists"):
        list(checkpoint.in_order(todo))


def test_a_shard_whose_rows_were_all_written_is_still_proved(source: Source, server: LoopbackHub) -> None:
    _, state = interrupted(source, 9)
    checkpoint = streamed(source)
    checkpoint.restore({FIRST: state})
    server.fail(f"*{FIRST}", corrupt_at=source.weights[0].size - 1, times=3)
    assert state["position"] == source.weights[0].size
    checkpoint.finish([FIRST])
    fresh = streamed(source)
    with pytest.raises(SourceError, match="not what the Hub lists"):
        fresh.finish([FIRST])
    assert not any(r.path.endswith(SECOND) and r.range is None for r in server.requests), "nobody asked for the second"


def test_rows_from_before_the_saved_state_are_hashed_again(source: Source, server: LoopbackHub, tmp_path: Path) -> None:
    _, state = interrupted(source, 5)
    local, checkpoint = truth(tmp_path), streamed(source)
    checkpoint.restore({FIRST: state})
    before = len(server.requests)
    early = [("layers.0.weight_0", 0, 3)]
    assert np.array_equal(next(checkpoint.in_order(early)), local.rows(*early[0]))
    checkpoint.finish([FIRST])
    assert server.requests[before].range is None


@pytest.mark.parametrize(
    "damage",
    [
        {"sha256": "nonsense"}, {"sha256": None}, {"sha256": "openssl-little:00"}, {"position": "x"}, {"position": 3},
        {"head": "0"},
    ],
    ids=str,
)  # fmt: skip
def test_a_state_that_does_not_fit_costs_a_second_reading_and_nothing_else(
    source: Source, tmp_path: Path, damage: dict[str, Any]
) -> None:
    todo, state = interrupted(source, 4)
    local, checkpoint = truth(tmp_path), streamed(source)
    checkpoint.restore({FIRST: {**state, **damage}, "gone.safetensors": state})
    assert checkpoint.position(FIRST) == 0
    for read, rows in zip(todo, checkpoint.in_order(todo), strict=True):
        assert np.array_equal(rows, local.rows(*read))
    checkpoint.finish()


def test_without_openssl_the_finished_part_is_read_again(
    source: Source, server: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_hash, "_openssl", lambda: None)
    todo, state = interrupted(source, 4)
    assert state["sha256"] is None
    local, checkpoint = truth(tmp_path), streamed(source)
    checkpoint.restore({FIRST: state})
    before = len(server.requests)
    for read, rows in zip(todo, checkpoint.in_order(todo), strict=True):
        assert np.array_equal(rows, local.rows(*read))
    assert sum(r.sent for r in server.requests[before:]) == sum(w.size for w in source.weights)


@settings(derandomize=True, deadline=None, max_examples=runs(60))
@given(st.binary(max_size=400), st.integers(0, 400))
def test_a_hash_that_slept_wakes_up_the_same(data: bytes, cut: int) -> None:
    first = source_hash.sha256()
    first.update(data[:cut])
    saved = source_hash.save(first)
    if saved is None:
        pytest.skip("this Python has no OpenSSL whose hash can be saved")
    second = source_hash.resume(saved)
    assert second is not None
    second.update(memoryview(data)[cut:])
    assert second.hexdigest() == hashlib.sha256(data).hexdigest()
    assert first.hexdigest() == hashlib.sha256(data[:cut]).hexdigest(), "asking for the hash does not end it"
