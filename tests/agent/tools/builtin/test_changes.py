"""Before a file is overwritten, a person sees what changes; and what is there before is looked at, and kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.approval.policy import Answer, ApprovalRequest, Gate, Policy
from agent.messages import ToolCall
from agent.sessions import changes as kept
from agent.tools.builtin import changes as module
from agent.tools.builtin.changes import MAX_WRITE, Found, digest, look, previewed
from agent.tools.builtin.root import Root
from agent.tools.define import Tool
from agent.tools.result import ToolContext
from tests.fixtures.generated import runs

pytestmark = pytest.mark.usefixtures("home")


def asked(tool: Tool, **arguments: Any) -> ApprovalRequest | str:
    """What a person is asked; or why nobody is."""
    seen: list[ApprovalRequest] = []

    def approve(request: ApprovalRequest) -> Answer:
        seen.append(request)
        return Answer.no()

    verdict = Gate(Policy(), approve).check(tool, ToolCall(tool.name, arguments, "c"))
    return seen[0] if seen else verdict.message


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (None, "a\nb\n", "new file, 2 lines"),
        (None, "", "new file, 0 lines"),
        (b"a\nb\nc\n", "x\n", "replaces 3 lines with 1"),
        (b"a\nb\nc\n", "a\nB\nc\n", "replaces 1 line with 1"),
        (b"a\nb\nc\n", "a\nb\nc\nd\n", "adds 1 line"),
        (b"a\nb\nc\n", "a\nc\n", "removes 1 line"),
        (b"a\nb\nc\n", "", "empties it: removes 3 lines"),
        (b"a\n", "a\n", "changes nothing"),
        (b"a", "a\n", "replaces 1 line with 1"),
        (b"\x00\x01" * 50, "a\n", "replaces a file that is no text (100 bytes) with 1 line"),
        ("caf\u00e9".encode("latin-1"), "a\n", "replaces a file that is no text (4 bytes) with 1 line"),
        (b"x" * (MAX_WRITE + 1), "a\n", "replaces a file of 1 MB, too large to compare, with 1 line"),
    ],
)
def test_the_question_says_what_is_replaced(
    tools: dict[str, Tool], root: Path, before: bytes | None, after: str, said: str
) -> None:
    if before is not None:
        (root / "f").write_bytes(before)
    request = asked(tools["write_file"], path="f", content=after)
    assert isinstance(request, ApprovalRequest)
    assert request.preview is not None
    assert request.preview.change == said
    for line in after.splitlines():
        assert said == "changes nothing" or f"\n+{line}\n" in request.preview.diff or f"\n {line}\n" in request.preview.diff


def test_an_edit_shows_its_place_and_a_long_one_is_whole(tools: dict[str, Tool], root: Path) -> None:
    (root / "f").write_text("".join(f"line {i}\n" for i in range(5_000)))
    request = asked(tools["edit_file"], path="f", old="line 2500\n", new="other\n")
    assert isinstance(request, ApprovalRequest)
    assert request.preview is not None
    assert request.preview.change == "replaces 1 line with 1"
    assert "-line 2500\n+other\n" in request.preview.diff
    assert "line 2400" not in request.preview.diff
    (root / "f").write_text(f"{'z' * 9_000}\n" + (root / "f").read_text())
    long = asked(tools["write_file"], path="f", content="".join(f"{i}{'y' * 300}\n" for i in range(300)))
    assert isinstance(long, ApprovalRequest)
    assert long.preview is not None
    assert all(f"\n+{i}{'y' * 300}\n" in long.preview.diff for i in range(300)), "nothing of it is cut"
    assert all(f"\n-{line}\n" in long.preview.diff for line in (root / "f").read_text().splitlines())


def test_what_cannot_be_done_is_said_and_nobody_is_asked(tools: dict[str, Tool], root: Path) -> None:
    (root / "there").write_text("a a")
    (root / "link").symlink_to("there")
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    (root / "binary").write_bytes(b"\0")
    for arguments, why in (
        ({"path": "link", "content": "x"}, "is a symbolic link"), ({"path": "folder", "content": "x"}, "is a folder"),
        ({"path": "pipe", "content": "x"}, "not a file"), ({"path": "../x", "content": "x"}, "is outside"),
        ({"path": ".git/config", "content": "x"}, "may not be written"),
        ({"path": "no", "old": "a", "new": "b"}, "does not exist"), ({"path": "there", "old": "z", "new": "b"}, "does not occur"),
        ({"path": "there", "old": "a", "new": "b"}, "occurs 2 times"),
        ({"path": "binary", "old": "a", "new": "b"}, "no UTF-8 text"),
        ({"path": "link", "old": "a", "new": "b"}, "is a symbolic link"),
    ):  # fmt: skip
        told = asked(tools["edit_file" if "old" in arguments else "write_file"], **arguments)
        assert isinstance(told, str), arguments
        assert why in told, arguments


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_said(tools: dict[str, Tool], root: Path) -> None:
    (root / "f").write_text("x")
    (root / "f").chmod(0)
    assert "Permission denied" in str(asked(tools["write_file"], path="f", content="y"))


@settings(max_examples=runs(200))
@given(st.text("ab\n\r\t\u00e9", max_size=40), st.text("ab\n\r\t\u00e9", max_size=40))
def test_every_changed_line_is_in_the_diff(before: str, after: str) -> None:
    """Whoever applies the diff by its marks gets the new text."""
    preview = previewed("f", Found(len(before.encode()), before.encode(), digest(before.encode())), after)
    if before == after:
        assert preview.change == "changes nothing"
        return
    lines = preview.diff.split("\n")[2:]
    new = [line[1:] for line in lines if line[:1] in ("+", " ")]
    assert "\n".join(new) in after
    assert preview.diff.count("\n+") - 1 == sum(line[:1] == "+" for line in lines)


# What is looked at, and what is kept of it.


def test_a_file_is_known_whole_up_to_the_limit_and_beyond_by_its_state(root: Path) -> None:
    for size in (0, 1, MAX_WRITE - 1, MAX_WRITE):
        (root / "f").write_bytes(data := b"x" * size)
        assert look(Root(root), "f") == Found(size, data, digest(data))
    (root / "f").write_bytes(b"x" * (MAX_WRITE + 1))
    large = look(Root(root), "f")
    assert (large.size, large.data, large.text) == (MAX_WRITE + 1, None, None)
    (root / "g").write_bytes(b"x" * (MAX_WRITE + 1))
    (root / "g").replace(root / "f")
    assert look(Root(root), "f").state != large.state
    assert look(Root(root), "none") == look(Root(root), "no/folder/none") == Found()
    assert len({Found().state, digest(b""), large.state}) == 3


@pytest.mark.parametrize(("beyond", "whole"), [(-1, False), (0, True), (1, True)])
def test_a_file_that_is_longer_than_it_says_is_not_cut(beyond: int, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that grows meanwhile, and those of /proc, which say that they are empty."""
    data = Path("/proc/version").read_bytes()
    monkeypatch.setattr(module, "MAX_WRITE", len(data) + beyond)
    found = look(Root(Path("/proc")), "version")
    assert found.data == (data if whole else None)
    assert found.size == (len(data) if whole else 0)


def test_nothing_is_written_over_but_what_was_shown(tools: dict[str, Tool], root: Path) -> None:
    (root / "f").write_text("one")
    shown = look(Root(root), "f").state
    for state, name in ((shown, "f"), ("", "f"), (Found().state, "new")):
        result = tools["write_file"].invoke({"path": name, "content": "one"}, ToolContext(shown=state))
        assert result.ok, result.text
    for state, name in ((Found().state, "f"), (digest(b"two"), "f"), (shown, "other")):
        result = tools["write_file"].invoke({"path": name, "content": "mine"}, ToolContext(shown=state))
        assert "changed after the question was shown" in result.text
    assert (root / "f").read_text() == "one"
    assert not (root / "other").exists()


@pytest.mark.parametrize("before", [None, b"", b"a", b"b", b"c", b"\0", b"x" * (MAX_WRITE + 1)])
def test_what_changes_is_kept_and_what_stays_as_it_is_is_not(tools: dict[str, Tool], root: Path, before: bytes | None) -> None:
    if before is not None:
        (root / "f").write_bytes(before)
    assert tools["write_file"].invoke({"path": "./x/../f", "content": "b"}, ToolContext()).ok
    assert kept.last_changes("abcd") == []
    if before is None:
        (root / "f").unlink()
    else:
        (root / "f").write_bytes(before)
    assert tools["write_file"].invoke({"path": "./x/../f", "content": "b"}, ToolContext(session="abcd", run="1")).ok
    found = kept.last_changes("abcd")
    if before == b"b":
        assert found == []
        return
    (change,) = found
    assert (change.root, change.path, change.run, change.after) == (str(root), "f", "1", digest(b"b"))
    assert change.existed == (before is not None)
    assert change.before == (before if before is None or len(before) <= MAX_WRITE else None)


def test_what_cannot_be_kept_is_written_all_the_same(tools: dict[str, Tool], root: Path, home: Path) -> None:
    home.mkdir()
    (home / "undo").write_text("no folder")
    assert tools["write_file"].invoke({"path": "f", "content": "x"}, ToolContext(session="abcd", run="1")).ok
    assert (root / "f").read_text() == "x"
