"""What was acknowledged is on the disk: after kill -9, after a loss of power, with a full, a read-only or a damaged disk."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, NoReturn

import pytest

from agent.messages import Message
from agent.sessions.database import refuse_others
from agent.sessions.salvage import salvage
from agent.sessions.store import SessionError, Store
from tests.fixtures.disk import small_disk


def talk(path: Path, out: IO[str]) -> NoReturn:
    """Talk without end, answers growing in steps, and say what was acknowledged: "A id" appended, "U id length" updated."""
    store = Store(path)
    session = store.latest() or store.create(title="talk")
    while True:
        print("A", session.append(Message("user", "question " * 50), tokens=range(100)), file=out, flush=True)
        id = session.append(Message("assistant", ""), state="partial")
        print("A", id, file=out, flush=True)
        for length in range(1, 6):
            session.update(id, Message("assistant", "word " * length * 40), state="complete" if length == 5 else "partial")
            print("U", id, length, file=out, flush=True)


def start_talking(path: Path) -> tuple[int, IO[str]]:
    """A process that talks, and what it says. A fork: to start Python for each of thirty takes longer than all they do."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as out:
                talk(path, out)
        finally:
            os._exit(1)
    os.close(writing)
    return child, os.fdopen(reading)


def intact(path: Path) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.execute("INSERT INTO messages_search (messages_search, rank) VALUES ('integrity-check', 1)")
    connection.close()


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """30 children that talk in one store, each killed after a different number of acknowledgements and a random moment more."""
    path, drawn = tmp_path / "s.db", random.Random(3)
    appended: set[int] = set()
    grown: dict[int, int] = {}
    for _ in range(30):
        child, said = start_talking(path)
        with said:
            lines = [said.readline() for _ in range(drawn.randrange(1, 40))]
            os.kill(child, signal.SIGKILL)
            lines += said.read().splitlines()  # what it had said before the signal reached it
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        for line in lines:
            kind, *numbers = line.split()
            if kind == "A":
                appended.add(int(numbers[0]))
            elif len(numbers) == 2:
                grown[int(numbers[0])] = int(numbers[1])
        with Store(path) as store:
            session = store.latest()
            assert session is not None
            there = {one.id: one for one in session.all_messages()}
            assert appended <= there.keys()
            for id, length in grown.items():
                assert len(there[id].message.text) >= len("word ") * length * 40
                assert (there[id].state == "complete") or length < 5
            assert [one.id for one in session.messages()] == sorted(there), "one conversation without a gap"
    assert len(appended) > 60
    intact(path)


@pytest.mark.slow
def test_any_torn_end_of_the_log_leaves_a_prefix_of_what_was_said(tmp_path: Path) -> None:
    """Loss of power before an acknowledgement: the last write to the log is there in part, or was replaced by old bytes."""
    path = tmp_path / "s.db"
    with Store(path) as store:
        session = store.create(title="x")
    with Store(path) as store:
        session = store.open(session.id)
        sizes = []
        log = Path(f"{path}-wal")
        for n in range(8):
            session.append(Message("user", f"message {n} " * 20))
            sizes.append(log.stat().st_size)
        saved = {name: Path(f"{path}{name}").read_bytes() for name in ("", "-wal")}
    states = [(cut, noise) for cut in range(0, sizes[-1] + 1, 701) for noise in (b"", b"\x5a" * 3000)]
    for number, (cut, noise) in enumerate(states):
        place = tmp_path / "after.db"
        for ending in ("", "-wal", "-shm"):
            Path(f"{place}{ending}").unlink(missing_ok=True)
        place.write_bytes(saved[""])
        Path(f"{place}-wal").write_bytes(saved["-wal"][:cut] + noise)
        with Store(place) as store:
            texts = [one.message.text for one in store.open(session.id).messages()]
        certain = sum(size <= cut for size in sizes)
        assert len(texts) >= certain, "what was synced before the power went is there"
        assert texts == [f"message {n} " * 20 for n in range(len(texts))]
        if number % 40 == 0:
            intact(place)
    assert len(states) > 100


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "512k") as place:
        yield place


def test_a_full_disk_is_one_line_and_loses_nothing(disk: Path) -> None:
    with Store(disk / "s.db") as store:
        session, kept = store.create(title="x"), []

        def fill() -> None:
            for n in range(1000):
                kept.append(session.append(Message("user", f"{n} " * 2000)))

        with pytest.raises(SessionError, match=r"^the disk is full: .*s\.db could not be written; make room") as told:
            fill()
        assert "\n" not in str(told.value)
        assert len(kept) > 5
        assert [one.id for one in session.messages()] == kept
    with Store(disk / "s.db") as store:
        assert [one.id for one in store.open(session.id).messages()] == kept
        session = store.open(session.id)
        with pytest.raises(SessionError, match="the disk is full"):
            fill()
        assert [one.id for one in session.messages()] == kept


def test_a_read_only_disk_can_be_read_and_says_why_it_cannot_be_written(disk: Path) -> None:
    with Store(disk / "s.db") as store:
        session = store.create(title="x")
        session.append(Message("user", "kept on a card"))
    remount = ["mount", "-o", "remount,ro", str(disk)]
    subprocess.run(remount, check=True)
    with Store(disk / "s.db") as store:
        assert store.read_only
        assert [one.message.text for one in store.open(session.id).messages()] == ["kept on a card"]
        assert [hit.snippet for hit in store.search("card")] == ["kept on a card"]
        assert "kept on a card" in store.open(session.id).export_markdown()
        with pytest.raises(SessionError, match="can only be read: its file or disk is read-only"):
            store.open(session.id).append(Message("user", "more"))
        store.open(session.id).close()
    with pytest.raises(SessionError, match="cannot be made: Read-only file system"):
        Store(disk / "new.db")


def test_a_store_of_a_newer_sprig_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(
        SessionError, match=r"written by a newer Sprig \(version 7 of the store, this one knows 1\): update Sprig"
    ):
        Store(path)
    assert path.read_bytes() == before


def test_a_store_that_another_process_is_just_making_is_taken_for_what_it_is(tmp_path: Path) -> None:
    path, made = tmp_path / "s.db", []

    def made_meanwhile(statement: str) -> None:
        if "sqlite_master" in statement and not made:
            made.append(statement)
            Store(path).close()

    with closing(sqlite3.connect(path)) as connection:
        connection.set_trace_callback(made_meanwhile)
        refuse_others(connection, path)
    assert made


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    with pytest.raises(SessionError, match="is a database of something else"):
        Store(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)
    connection.close()


def test_a_place_where_no_file_can_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "s.db", tmp_path):
        with pytest.raises(SessionError, match="cannot be made"):
            Store(path)


def filled(path: Path, sessions: int = 6, messages: int = 30) -> None:
    with Store(path) as store:
        for s in range(sessions):
            session = store.create(title=f"session {s}", system="system")
            for n in range(messages):
                session.append(Message("user" if n % 2 == 0 else "assistant", f"{s}.{n} " + "words " * 60), tokens=range(200))


def test_a_file_that_is_no_database_is_never_touched_by_opening_it(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"these are no sessions " * 500)
    before = path.read_bytes()
    with pytest.raises(SessionError, match=r"s\.db is damaged .* was left as it is: `sprig sessions repair .*s\.db` sets it"):
        Store(path)
    assert path.read_bytes() == before
    saved = salvage(path)
    assert (saved.sessions, saved.messages) == (0, 0)
    assert saved.set_aside.read_bytes() == before
    with Store(path) as store:
        assert store.sessions() == []
    assert sorted(f.name for f in tmp_path.iterdir()) == ["s.db", "s.db.damaged-1"]


@pytest.mark.slow
def test_what_can_be_read_of_a_damaged_store_is_saved(tmp_path: Path) -> None:
    """One page after the other is overwritten: what lay on the others comes back, and the damaged file is kept."""
    whole = tmp_path / "whole.db"
    filled(whole)
    size, page = whole.stat().st_size, 4096
    totals = []
    for number in range(1, size // page, 3):
        path = tmp_path / f"{number}.db"
        shutil.copyfile(whole, path)
        with path.open("r+b") as f:
            f.seek(number * page)
            f.write(random.Random(number).randbytes(page))
        damaged = path.read_bytes()
        saved = salvage(path)
        assert saved.set_aside.read_bytes() == damaged
        with Store(path) as store:
            infos = store.sessions(100)
            assert sum(info.messages for info in infos) == saved.messages
            for info in infos:
                texts = [one.message.text for one in store.open(info.id).messages()]
                assert len(texts) == info.messages, "the thread is mended around the gap"
                numbers = [int(text.split()[0].split(".")[1]) for text in texts]
                assert numbers == sorted(numbers)
            if infos and infos[0].messages:
                store.open(infos[0].id).append(Message("user", "goes on"))
        intact(path)
        totals.append(saved.messages)
    assert len(totals) > 20
    assert sum(count > 150 for count in totals) / len(totals) > 0.6, totals
    assert max(totals) == 180


def test_there_must_be_something_to_save(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="there is no store"):
        salvage(tmp_path / "none.db")
