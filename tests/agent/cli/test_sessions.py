"""`sprig sessions`: what was said can be found again, taken along and thrown away."""

from __future__ import annotations

import json
import os
import pty
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import SprigError
from agent.messages import Message, ToolCall
from agent.sessions.store import Store
from tests.fixtures import command
from tests.fixtures.command import Done
from tests.fixtures.paths import ROOT


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path))
    with Store() as store:
        session = store.create(model="tiny")
        session.append(Message("user", "Where do beetroots grow?\x1b[2J"))
        session.append(Message("assistant", calls=(ToolCall("look", {"where": "garden"}, "a23456789"),)))
        session.append(Message("tool", "bed 3", call_id="a23456789", name="look"), ok=True)
        session.append(Message("assistant", "In bed 3."))
        other = store.create(title="Other")
        other.append(Message("user", "Something else"))
        return session.id


def sprig(*arguments: str) -> Done:
    return command.sprig("sessions", *arguments, home=Path(os.environ["SPRIG_HOME"]))


def test_they_are_listed_with_their_first_words_the_newest_first(kept: str) -> None:
    first, second = sprig().stdout.splitlines()
    assert first.endswith("Other")
    assert second.startswith(kept)
    assert "Where do beetroots grow?" in second
    assert "\x1b" not in second
    assert [s["id"] for s in json.loads(sprig("--json").stdout)["sessions"]][1] == kept


def test_words_are_found_in_all_of_them(kept: str) -> None:
    assert kept in sprig("--search", "beetroots").stdout
    assert "nothing holds" in sprig("--search", "turnips").stdout
    assert json.loads(sprig("-s", "bed", "--json").stdout)["hits"]


def test_a_conversation_is_shown_and_written(kept: str, tmp_path: Path) -> None:
    shown = sprig("show", kept[:6]).stdout
    assert "In bed 3." in shown
    assert "look" in shown
    assert "\x1b" not in shown
    for name in ("talk.md", "talk.json"):
        assert sprig("export", kept, str(tmp_path / name)).returncode == 0
    assert (tmp_path / "talk.md").read_text().rstrip("\n") == shown.rstrip("\n")
    with Store() as store:
        again = store.import_json(json.loads((tmp_path / "talk.json").read_text()))
        assert [s.message.text for s in again.messages()][-1] == "In bed 3."


def test_they_are_renamed_and_deleted(kept: str) -> None:
    assert sprig("rename", kept, "Beetroots").returncode == 0
    assert "Beetroots" in sprig().stdout
    assert sprig("delete", kept, "--yes").returncode == 0
    assert kept not in sprig().stdout


@pytest.mark.parametrize(("answer", "left"), [("y", 1), ("n", 2), ("", 2)])
def test_before_one_is_deleted_it_is_asked(kept: str, answer: str, left: int) -> None:
    for asked in (sprig("delete", kept), sprig("delete", kept, "--json")):  # nobody can be asked
        assert asked.returncode == 1
        assert "say --yes" in asked.stderr
    keyboard, terminal = pty.openpty()
    try:
        os.write(keyboard, f"{answer}\n".encode())
        done = subprocess.run(
            [sys.executable, "-m", "sprig", "sessions", "delete", kept], stdin=terminal, capture_output=True, text=True,
            timeout=60, cwd=ROOT,
        )  # fmt: skip
    finally:
        os.close(keyboard)
        os.close(terminal)
    assert f"{kept}, " in done.stderr
    assert "Where do beetroots grow?" in done.stderr
    assert "4 messages" in done.stderr
    assert "Delete it?" in done.stderr
    assert done.returncode == (0 if left == 1 else 1)
    assert len(json.loads(sprig("--json").stdout)["sessions"]) == left


@pytest.mark.parametrize("name", ["show", "delete"])
def test_one_that_is_not_there_is_one_line(name: str) -> None:
    done = sprig(name, "zzzzzz")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_a_file_that_cannot_be_written_is_one_line(kept: str, tmp_path: Path) -> None:
    done = sprig("export", kept, str(tmp_path / "nowhere" / "talk.md"))
    assert done.returncode == 1
    assert "there is no folder" in done.stderr


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3 + 100)


def overwritten(path: Path) -> None:
    with path.open("r+b") as f:
        for page in range(3, path.stat().st_size // 4096, 4):
            f.seek(page * 4096)
            f.write(random.Random(page).randbytes(4096))


def scribbled(path: Path) -> None:
    """The pages are sound, what stands in them is not what Sprig writes."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE messages SET calls = '[[' WHERE id IN (3, 5)")
        connection.execute("UPDATE sessions SET settings = '{', tools = '7' WHERE number = 2")
        connection.commit()


def no_database(path: Path) -> None:
    path.write_bytes(b"\x1b[2J these are no sessions " * 500)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [truncated, overwritten, scribbled, no_database])
def test_a_damaged_store_is_repaired_and_kept(damage: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with Store() as store:
        for n in range(6):
            session = store.create(title=f"talk {n}")
            for i in range(30):
                session.append(Message("user" if i % 2 == 0 else "assistant", f"{n}.{i} " + "words " * 60))
        whole = sum(info.messages for info in store.sessions(100))
    damage(path)
    damaged = path.read_bytes()
    done = sprig("repair", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr, told["damaged"]) == (0, "", True)
    assert Path(told["set_aside"]).read_bytes() == damaged
    with Store() as store:
        left = store.sessions(100)
        assert (len(left), sum(info.messages for info in left)) >= (told["sessions"], told["messages"])
        for info in left:
            store.open(info.id).messages()
    if damage is scribbled:
        assert (told["sessions"], told["messages"], told["lost"]) == (8, whole - 2, 2)
    elif damage is no_database:
        assert (told["sessions"], told["messages"]) == (0, 0)
    else:
        assert 0 < told["messages"] < whole
    assert "is sound" in sprig("repair").stdout
    assert json.loads(sprig("repair", "--json").stdout) == {"path": str(path), "damaged": False}


def test_the_message_about_the_damage_is_the_command_that_repairs_it(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    no_database(path)
    refused = sprig()
    assert refused.returncode == 1
    assert "`sprig sessions repair`" in refused.stderr
    done = sprig("repair")
    assert "nothing in it could be read as a session" in done.stdout
    assert "sessions.db.damaged-1" in done.stdout
    assert done.stdout.count("\n") == 1
    elsewhere = tmp_path / "a place" / "talks.db"
    elsewhere.parent.mkdir()
    no_database(elsewhere)
    with pytest.raises(SprigError, match=r"`sprig sessions repair '.*a place/talks\.db'`"):
        Store(elsewhere)
    assert sprig("repair", str(elsewhere)).returncode == 0
    Store(elsewhere).close()


def test_a_store_that_cannot_be_repaired_is_one_line_and_stays(tmp_path: Path) -> None:
    none = sprig("repair", str(tmp_path / "none.db"))
    assert none.returncode == 1
    assert "there is no store" in none.stderr
    assert not (tmp_path / "none.db").exists()
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    before = other.read_bytes()
    refused = sprig("repair", str(other))
    assert refused.returncode == 1
    assert "something else" in refused.stderr
    assert other.read_bytes() == before
    assert json.loads(sprig("repair", str(other), "--json").stdout)["error"]["kind"] == "SessionError"


def test_a_store_that_a_chat_uses_is_not_taken_from_under_it(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with Store() as store:
        overwritten(path)
        first = command.process("sessions", "repair", home=tmp_path)
        assert "sound" not in first.stdout
        assert first.returncode == 1
        assert "in use by another process" in first.stderr
        assert store.path.exists()
    assert sprig("repair").returncode == 0
