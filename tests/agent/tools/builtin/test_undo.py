"""What a person said yes to is what is written, and it can be taken back: whole runs, and undo."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.agent import Agent
from agent.approval.policy import Answer, ApprovalRequest, Policy
from agent.sessions import changes
from agent.sessions.store import Store
from agent.tools.builtin.catalogue import builtin
from agent.tools.builtin.changes import MAX_WRITE
from agent.tools.builtin.undo import undo
from agent.tools.define import Tool
from agent.tools.result import ToolContext
from tests.fixtures.fake_engine import FakeEngine, call_text

pytestmark = pytest.mark.usefixtures("home", "kept_templates")


def meanwhile(change: Callable[[], object]) -> Callable[[ApprovalRequest], Answer]:
    """A person who says yes, while something happens."""

    def approve(request: ApprovalRequest) -> Answer:
        change()
        return Answer.yes()

    return approve


@pytest.mark.parametrize("before", [None, b"one\n", b"\0one", b"x" * (MAX_WRITE + 1)])
@pytest.mark.parametrize("then", [None, b"two\n", b"y" * (MAX_WRITE + 2)])
def test_what_was_shown_is_what_is_written(root: Path, before: bytes | None, then: bytes | None) -> None:
    """A whole run: what changed between the question and the write is not written over."""
    file = root / "f"
    if before is not None:
        file.write_bytes(before)

    def change() -> None:
        if then is None:
            file.unlink(missing_ok=True)
        else:
            file.write_bytes(then)

    call = call_text("write_file", {"path": "f", "content": "mine"})
    engine = FakeEngine([call, "ok", call, "ok"])
    with Agent(engine, tools=["write_file"], root=root, approve=meanwhile(change)) as agent:
        (done,) = agent.run("Go").calls
        if before is None and then is None:
            assert done.ok
            return
        assert not done.ok
        assert "changed after the question was shown" in done.text
        assert (file.read_bytes() if file.exists() else None) == then
        agent.approve = lambda request: Answer.yes()
        assert agent.run("Again").calls[0].ok
        assert file.read_text() == "mine"


def test_a_rule_asks_nobody_and_no_preview_is_made(root: Path) -> None:
    from agent.approval.policy import Rule

    agent_tool = builtin(["write_file"], root=root)[0]
    agent_tool.preview = lambda arguments: pytest.fail("nobody was asked")
    engine = FakeEngine([call_text("write_file", {"path": "f", "content": "mine"}), "ok"])
    with Agent(engine, tools=[agent_tool], policy=Policy([Rule("allow", "write_file")])) as agent:
        assert agent.run("Go").calls[0].ok


# Undo.


@pytest.fixture
def store(home: Path) -> Any:
    with Store() as store:
        yield store


def change(tool: Tool, run: str, session: str, **arguments: Any) -> None:
    result = tool.invoke(arguments, ToolContext(session=session, run=run))
    assert result.ok, result.text


def test_files_go_back_run_by_run(tools: dict[str, Tool], root: Path) -> None:
    (root / "a").write_text("one\n")
    (root / "a").chmod(0o640)
    change(tools["write_file"], "1", "abcd", path="a", content="two\n")
    change(tools["write_file"], "2", "abcd", path="new", content="x")
    change(tools["edit_file"], "2", "abcd", path="a", old="two", new="three")
    change(tools["edit_file"], "2", "abcd", path="a", old="three", new="four")
    assert {(u.path, u.done) for u in undo("abcd")} == {("a", True), ("new", True)}
    assert (root / "a").read_text() == "two\n"
    assert not (root / "new").exists()
    assert [(u.path, u.how) for u in undo("abcd")] == [("a", "put back")]
    assert (root / "a").read_text() == "one\n"
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o640
    assert undo("abcd") == ()


def test_what_is_no_longer_what_the_tool_wrote_stays(tools: dict[str, Tool], root: Path) -> None:
    for name in ("edited", "gone", "linked", "was"):
        (root / name).write_text("one\n")
    for name in ("edited", "gone", "linked", "was", "made"):
        change(tools["write_file"], "1", "abcd", path=name, content="two\n")
    (root / "edited").write_text("three\n")
    (root / "gone").unlink()
    (root / "linked").unlink()
    (root / "linked").symlink_to("edited")
    (root / "was").write_text("one\n")
    (root / "made").unlink()
    told = {u.path: u for u in undo("abcd")}
    assert {name: u.done for name, u in told.items()} == {
        "edited": False, "gone": False, "linked": False, "was": True, "made": True
    }  # fmt: skip
    assert "was changed since" in told["edited"].how
    assert (root / "edited").read_text() == "three\n"
    copy = Path(told["edited"].how.rpartition(" is in ")[2])
    assert copy.read_text() == "one\n", "and what it held before is not lost"


def test_a_file_that_went_back_halfway_by_hand_goes_back_the_rest(tools: dict[str, Tool], root: Path) -> None:
    (root / "a").write_text("one\n")
    change(tools["write_file"], "1", "abcd", path="a", content="two\n")
    change(tools["write_file"], "1", "abcd", path="a", content="three\n")
    (root / "a").write_text("two\n")  # what the first call wrote
    assert [(u.path, u.done) for u in undo("abcd")] == [("a", True)]
    assert (root / "a").read_text() == "one\n"


def test_copies_are_private_bounded_and_gone_with_the_session(
    tools: dict[str, Tool], root: Path, store: Store, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, other = store.create(title="a"), store.create(title="b")
    for name in (session.id, other.id):
        change(tools["write_file"], "1", name, path="a", content=name)
    for path in (home / "undo").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    monkeypatch.setattr(changes, "MOST_CHANGES", 3)
    monkeypatch.setattr(changes, "MOST_BYTES", 25)
    for i in range(8):
        change(tools["write_file"], str(i), session.id, path="a", content=f"number {i}")
    copies = list((home / "undo" / session.id).glob("*.old"))
    assert 2 <= len(copies) <= 3
    store.delete(session.id[:6])
    assert not (home / "undo" / session.id).exists()
    assert (home / "undo" / other.id).exists()


def test_without_room_for_a_copy_the_file_is_written_all_the_same(tools: dict[str, Tool], root: Path, home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "undo").write_text("no folder")
    change(tools["write_file"], "1", "abcd", path="a", content="x")
    assert (root / "a").read_text() == "x"
    assert undo("abcd") == ()


def test_a_damaged_record_is_passed_over(tools: dict[str, Tool], root: Path, home: Path) -> None:
    change(tools["write_file"], "1", "abcd", path="a", content="x")
    change(tools["write_file"], "2", "abcd", path="a", content="y")
    newest = max((home / "undo" / "abcd").glob("*.json"))
    for damage in (b"", b"{", b"[]", b'{"root": 1}', b"\xff"):
        newest.write_bytes(damage)
        assert [c.run for c in changes.last_changes("abcd")] == ["1"]
    assert [u.done for u in undo("abcd")] == [False], "the file is no longer what that call wrote"


@pytest.mark.slow
def test_an_agent_takes_back_what_its_last_run_wrote(root: Path, store: Store) -> None:
    (root / "a").write_text("one\n")
    script = [
        call_text("write_file", {"path": "a", "content": "two\n"}), "ok",
        call_text("edit_file", {"path": "a", "old": "two", "new": "three"}),
        call_text("write_file", {"path": "b", "content": "b"}), "ok",
    ]  # fmt: skip
    session = store.create()
    with Agent(
        FakeEngine(script), tools=["write_file", "edit_file"], root=root, session=session, approve=lambda r: True
    ) as agent:
        agent.run("Go")
        agent.run("More")
        assert sorted(u.path for u in agent.undo() if u.done) == ["a", "b"]
        assert (root / "a").read_text() == "two\n"
        assert [u.done for u in agent.undo()] == [True]
        assert (root / "a").read_text() == "one\n"
        assert agent.undo() == ()
