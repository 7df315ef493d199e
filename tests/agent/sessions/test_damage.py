"""A store that something has damaged: every act ends in an answer or in one line, and what can be read is saved."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.messages import Message, ToolCall
from agent.sessions.records import DamagedStore
from agent.sessions.salvage import repair
from agent.sessions.store import SessionError, Store
from tests.fixtures.generated import runs

SECONDS = 5  # of a processor that others use too
PAGE = 4096


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sessions of some forty messages, with calls, results, token ids and a fork."""
    path = tmp_path_factory.mktemp("whole") / "s.db"
    with Store(path) as store:
        for s in range(2):
            session = store.create(title=f"session {s}", system="be kind", tools=["shell"], settings={"temperature": 0.5})
            for n in range(18):
                call = (ToolCall("shell", {"command": f"echo {n}"}, f"c{n}"),) if n % 6 == 1 else ()
                role = "tool" if n % 6 == 2 else "assistant" if n % 2 else "user"
                id = session.append(
                    Message(role, f"{s}.{n} " + "words " * 60, "thought", call), tokens=range(200), usage={"prompt_tokens": n},
                    data={"n": n} if role == "tool" else None, seconds=0.1,
                )  # fmt: skip
        session.fork(id - 6)
    return path


WORDS = (
    (b'{"temperature"', b'["temperature"'), (b'["shell"]', b'{"shell":'), (b"assistant", b"assassins"),
    (b"user", b"\xff\xfe\xfd\xfc"),
    (b'{"command"', b'{"command,'), (b"complete", b"finished"), (b"CREATE TABLE", b"CREATE TABEL"), (b"messages", b"massages"),
    (b'"prompt_tokens":', b'"prompt_tokens",'),
)  # fmt: skip


def flipped(raw: bytearray, drawn: random.Random) -> None:
    for _ in range(drawn.choice([1, 3, 30])):
        raw[drawn.randrange(len(raw))] ^= 1 << drawn.randrange(8)


def noisy(raw: bytearray, drawn: random.Random) -> None:
    at, size = drawn.randrange(len(raw)), drawn.randrange(1, 300)
    raw[at : at + size] = drawn.randbytes(min(size, len(raw) - at))


def cut(raw: bytearray, drawn: random.Random) -> None:
    del raw[drawn.choice([1, 15, 99, 100, 511, PAGE, drawn.randrange(len(raw)), len(raw) - 1]) :]


def zeroed(raw: bytearray, drawn: random.Random) -> None:
    at = drawn.randrange(len(raw) // PAGE) * PAGE
    raw[at : at + PAGE] = bytes(PAGE)


def torn(raw: bytearray, drawn: random.Random) -> None:
    """A page whose second half is that of another one."""
    a, b = (drawn.randrange(len(raw) // PAGE) * PAGE for _ in "ab")
    raw[a + PAGE // 2 : a + PAGE] = raw[b + PAGE // 2 : b + PAGE]


def swapped(raw: bytearray, drawn: random.Random) -> None:
    a, b = (drawn.randrange(len(raw) // PAGE) * PAGE for _ in "ab")
    raw[a : a + PAGE], raw[b : b + PAGE] = raw[b : b + PAGE], raw[a : a + PAGE]


def other_words(raw: bytearray, drawn: random.Random) -> None:
    """What SQLite cannot notice: the same number of other bytes in the place of a text."""
    old, new = drawn.choice(WORDS)
    raw[:] = raw.replace(old, new)


def junk(raw: bytearray, drawn: random.Random) -> None:
    raw[:] = drawn.choice(
        [b"{}", json.dumps({"messages": [1]}).encode() * 100, drawn.randbytes(9000), b"SQLite format 3\0", b"\0"]
    )


DAMAGE: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flipped, noisy, cut, zeroed, torn, swapped, other_words, junk,
)  # fmt: skip


def acts(path: Path) -> Iterator[Callable[[], object]]:
    """Everything that is done with a store, one after the other; each may fail by itself."""
    opened: list[Store] = []
    yield lambda: opened.append(Store(path))
    if not opened:
        return
    with closing(opened[0]) as store:
        yield store.latest
        yield store.texts
        yield lambda: store.search("words")
        yield lambda: store.search("o", 3)
        found = []
        yield lambda: found.extend(store.sessions())
        for info in found:
            yield lambda info=info: (time.localtime(info.updated), dict(info.settings), info.title.split())
            session = []
            yield lambda info=info, session=session: session.append(store.open(info.id))
            for one in session:
                yield one.messages
                yield one.all_messages
                yield one.export_markdown
                yield lambda one=one: json.dumps(one.export_json())
                yield lambda one=one: one.append(Message("user", "more"))
                yield lambda one=one: one.fork(one.leaf) if one.leaf else None
        yield lambda: store.delete(found[0].id) if found else None


def used(path: Path) -> list[str]:
    """The lines in which a store says that something could not be done."""
    lines = []
    for act in acts(path):
        try:
            act()
        except SessionError as e:
            lines.append(str(e))
    assert not any("\n" in line for line in lines)
    return lines


@pytest.mark.parametrize("damage", DAMAGE)
def test_random_damage_is_said_in_one_line_and_what_can_be_read_is_saved(
    tmp_path: Path, whole: Path, damage: Callable[[bytearray, random.Random], None]
) -> None:
    raws = []
    for seed in range(runs(8)):
        raws.append(bytearray(whole.read_bytes()))
        damage(raws[-1], random.Random(f"{damage.__name__} {seed}"))
    repaired = said = 0
    for number, raw in enumerate(raws):
        path = tmp_path / f"{number}" / "s.db"
        path.parent.mkdir()
        path.write_bytes(raw)
        begun, use = time.process_time(), number % 2 == 0
        said += bool(use and used(path))
        result = repair(path)
        assert time.process_time() - begun < SECONDS
        repaired += result is not None
        assert result is None or use or result.set_aside.read_bytes() == raw
        assert used(path) == [], f"after the repair of {number}, nothing is wrong any more"
        shutil.rmtree(path.parent)
    assert repaired >= len(raws) // 4
    assert said >= len(raws) // 16


def test_an_emptied_store_is_no_new_one(tmp_path: Path, whole: Path) -> None:
    path = tmp_path / "s.db"
    shutil.copyfile(whole, path)
    os.truncate(path, 0)
    for _ in range(2):
        with pytest.raises(
            DamagedStore, match=r"s\.db is damaged \(it is empty, and a store never is\) and was left as it is: `sprig"
        ):
            Store(path)
    result = repair(path)
    assert result is not None
    assert result.set_aside.stat().st_size == 0
    with Store(path) as store:
        assert store.sessions() == []


def test_a_new_store_is_whole_when_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So no crash leaves an empty file that somebody must take for a lost one; and who is slower finds the other's."""
    path, there = tmp_path / "s.db", []

    def link(new: Path, name: Path) -> None:
        there.append(path.exists())
        shutil.copyfile(new, name)
        with Store(path) as faster:
            faster.create(title="of the faster one")
        raise FileExistsError

    monkeypatch.setattr(os, "link", link)
    with Store(path) as store:
        assert [info.title for info in store.sessions()] == ["of the faster one"]
    assert there == [False]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [f.name for f in tmp_path.iterdir()] == ["s.db"]


def test_where_a_file_system_has_no_links_a_store_is_made_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted")))
    with Store(tmp_path / "s.db") as store:
        store.create(title="x")
    with Store(tmp_path / "s.db") as store:
        assert [info.title for info in store.sessions()] == ["x"]


@pytest.mark.parametrize("lost", [["-wal"], ["-shm"], ["-wal", "-shm"]])
def test_a_log_that_is_removed_under_an_open_store_loses_nothing(tmp_path: Path, lost: list[str]) -> None:
    path = tmp_path / "s.db"
    store = Store(path)
    session = store.create(title="x")
    session.append(Message("user", "before"))
    for ending in lost:
        Path(f"{path}{ending}").unlink()
    session.append(Message("user", "after"))
    copy = tmp_path / "copy.db"  # as after kill -9: nothing is tidied up
    for ending in ("", "-wal"):
        shutil.copyfile(f"{path}{ending}", f"{copy}{ending}")
    with Store(copy) as other:
        (info,) = other.sessions()
        assert [one.message.text for one in other.open(info.id).messages()] == ["before", "after"]
    session.append(Message("user", "and on"))
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_log_that_another_program_put_there_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with Store(path) as store:
        session = store.create(title="x")
        log = Path(f"{path}-wal")
        held = log.rename(tmp_path / "held")
        log.touch()
        with pytest.raises(SessionError, match=r"the log of .*s\.db was replaced by another program; end every chat"):
            session.append(Message("user", "x"))
        held.replace(log)
        session.append(Message("user", "x"))


@pytest.mark.parametrize("lost", [["-wal"], ["-shm"], ["-wal", "-shm"]])
def test_a_log_that_is_removed_after_a_crash_leaves_an_older_store(tmp_path: Path, whole: Path, lost: list[str]) -> None:
    path, crashed = tmp_path / "s.db", tmp_path / "crashed.db"
    shutil.copyfile(whole, path)
    with Store(path) as store:
        last = store.latest()
        assert last is not None
        last.append(Message("user", "in the log alone"))
        for ending in ("", "-wal", "-shm"):
            shutil.copyfile(f"{path}{ending}", f"{crashed}{ending}")
    for ending in lost:
        Path(f"{crashed}{ending}").unlink()
    with Store(crashed) as store:
        again = store.latest()
        assert again is not None
        texts = [one.message.text for one in again.messages()]
        assert (texts[-1] == "in the log alone") == ("-wal" not in lost)
    assert used(crashed) == []


@pytest.mark.parametrize("kind", ["folder", "fifo", "link to nowhere", "folder that is a file"])
def test_what_is_no_file_in_its_place_is_said(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s.db"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link to nowhere":
        path.symlink_to(tmp_path / "none" / "s.db")
    else:
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "s.db"
    with pytest.raises(SessionError, match=r"name another place with SPRIG_HOME|check that its folder exists") as said:
        Store(path)
    assert "\n" not in str(said.value)


def test_a_clock_that_is_set_back_changes_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = random.Random(5)
    with Store(tmp_path / "s.db") as store:
        names = []
        for n in range(12):
            monkeypatch.setattr(time, "time", lambda: drawn.uniform(0, 2e9))
            session = store.create(title=f"{n}")
            for word in ("a", "b", "c"):
                session.append(Message("user", f"{n}{word}"))
            names.append(session.id)
            last = store.latest()
            assert last is not None
            assert last.id == session.id
            assert [one.message.text for one in last.messages()] == [f"{n}a", f"{n}b", f"{n}c"]
        assert [info.id for info in store.sessions()] == names[::-1]
        first = store.open(names[0])
        first.append(Message("user", "again"))
        assert [info.id for info in store.sessions()] == [names[0], *names[:0:-1]]
