"""`sprig sessions`: what was said can be found again, taken along and thrown away."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.messages import Message, ToolCall
from agent.sessions.store import Store
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


def sprig(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sprig", "sessions", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


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
    assert sprig("delete", kept).returncode == 0
    assert kept not in sprig().stdout


@pytest.mark.parametrize("command", ["show", "delete"])
def test_one_that_is_not_there_is_one_line(command: str) -> None:
    done = sprig(command, "zzzzzz")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_a_file_that_cannot_be_written_is_one_line(kept: str, tmp_path: Path) -> None:
    done = sprig("export", kept, str(tmp_path / "nowhere" / "talk.md"))
    assert done.returncode == 1
    assert "there is no folder" in done.stderr
