"""Kept states of system prompts: few, private, of the very same tokens and model, and never the reason for a full disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.engine import prefix_store
from agent.engine.prefix_store import PrefixStore


@pytest.fixture
def store(tmp_path: Path) -> PrefixStore:
    return PrefixStore(tmp_path / "prefix", "model, f16")


def kept(store: PrefixStore) -> list[int]:
    """Which of the one-token prefixes 0 to 99 are there."""
    return [token for token in range(100) if store.load([token]) is not None]


def save(store: PrefixStore, token: int, data: bytes = b"state") -> None:
    """Save a state a second after the one before it, by the clock of its file."""
    store.save([token], data)
    for path in store.folder.glob("*.kv"):
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**9))


def test_eight_states_are_kept_and_those_used_last(store: PrefixStore) -> None:
    for token in range(8):
        save(store, token)
    assert store.load([2]) == b"state", "used now, so it stays"
    for token in range(8, 12):
        save(store, token)
    assert len([*store.folder.glob("*.kv")]) == 8
    assert kept(store) == [2, 5, 6, 7, 8, 9, 10, 11]


def test_they_take_no_more_than_so_many_bytes(store: PrefixStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prefix_store._KEEP_BYTES == 2_000_000_000
    monkeypatch.setattr(prefix_store, "_KEEP_BYTES", 2_500)
    for token in range(4):
        save(store, token, bytes(1_000))
    assert kept(store) == [2, 3]
    save(store, 4, bytes(9_000))
    assert kept(store) == [4], "the newest stays whatever its size"


def test_a_disk_is_not_filled(store: PrefixStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_store, "free_disk", lambda folder: 500_000_004)
    store.save([1], b"state")
    assert kept(store) == []
    store.save([1], b"data")
    assert kept(store) == [1]


def test_they_are_their_owners_and_nobody_elses_are_taken(store: PrefixStore) -> None:
    store.save([1], b"state")
    (path,) = store.folder.glob("*.kv")
    assert store.folder.stat().st_mode & 0o077 == 0
    assert store.load([1]) == b"state"
    path.chmod(0o620)
    assert store.load([1]) is None, "another could have written it"


def test_only_the_same_tokens_of_the_same_model_are_found_and_nothing_damaged(store: PrefixStore) -> None:
    store.save([1, 2], b"state")
    assert store.load([1, 2, 3]) is None
    assert PrefixStore(store.folder, "model, q8_0").load([1, 2]) is None
    (path,) = store.folder.glob("*.kv")
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert store.load([1, 2]) is None, place
        path.write_bytes(whole[:place])
        assert store.load([1, 2]) is None, place
