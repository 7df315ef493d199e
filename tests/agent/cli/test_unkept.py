"""Where SPRIG_HOME cannot be written, a conversation goes on and is not kept, and that is said in one line."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.agent import Agent
from agent.messages import Message
from agent.sessions.records import UnwritableStore
from agent.sessions.store import Store
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.command import sprig
from tests.fixtures.fake_engine import FakeEngine
from tui.plain import chat_plainly
from tui.talk.setup import Setup


def file_instead(place: Path) -> None:
    place.write_text("this is no folder")


def read_only(place: Path) -> None:
    """A disk that can only be read, or, for who is not root, a folder."""
    place.mkdir()
    if os.geteuid():
        place.chmod(0o500)
    elif subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")


def full(place: Path) -> None:
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as f:
        f.write(bytes(1_000_000))


@pytest.fixture(params=[file_instead, read_only, full])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    place = tmp_path / "home"
    try:
        request.param(place)
        monkeypatch.setenv("SPRIG_HOME", str(place))
        yield place
    finally:
        if place.is_mount():
            subprocess.run(["umount", place], check=True)


def test_a_store_that_cannot_be_written_is_one_in_memory(home: Path) -> None:
    told: list[str] = []
    with Store.or_unkept(told.append) as store:
        session = store.create()
        session.append(Message("user", "remember moss"))
        assert [hit.snippet for hit in store.search("moss")] == ["remember moss"]
        assert not session.kept
    assert len(told) == 1
    assert told[0].startswith("what is said here will not be kept: ")
    assert "\n" not in told[0]
    assert not (home / "sessions.db").exists()  # an empty one would be no store, once there is room
    with pytest.raises(UnwritableStore):
        Store()


def test_a_chat_goes_on(home: Path) -> None:
    out = io.StringIO()
    engine = FakeEngine(["One.", "Two."])
    source = io.StringIO("Hello\nAnd?\n")
    chat_plainly(Setup(model="fake"), source=source, out=out, make_engine=lambda setup: engine)
    said = out.getvalue()
    assert said.count("will not be kept") == 1
    assert "One.\n" in said
    assert "Two.\n" in said


def test_an_answer_is_given(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.cli.ask._agent", lambda settings, session, *rest: Agent(FakeEngine(["Yes."]), session=session))
    done = sprig("ask", "Is it?", "--session", "new", home=home)
    assert (done.returncode, done.stdout) == (0, "Yes.\n")
    assert done.stderr.count("will not be kept") == 1
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_model_is_tried_loaded_and_asked(home: Path, tmp_path: Path) -> None:
    model = chat_model(tmp_path / "tiny.gguf", "hermes")
    done = sprig("ask", "Hi", "-m", model, "--max-tokens", "4", "--threads", "1", "-c", "2048", "--session", "new", home=home)
    assert done.stdout
    assert done.stderr.count("will not be kept") == 1
    assert "Traceback" not in done.stderr


def test_what_can_be_read_of_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path))
    with Store() as store:
        id = store.create(title="Moss").id
    monkeypatch.setattr("agent.sessions.database.free_disk", lambda path: 1000)
    told: list[str] = []
    with Store.or_unkept(told.append) as store:
        session = store.open(id)
        assert session.info.title == "Moss"
        session.append(Message("user", "more"))
        assert [m.message.text for m in session.messages()] == ["more"]
    assert "no room" in told[0]
    with Store() as store:
        assert store.open(id).messages() == []
