"""Which part of a file or folder a model is shown, against a simple model of it; and that all of it stays bounded."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.tools.builtin import files
from agent.tools.builtin.changes import MAX_WRITE
from agent.tools.builtin.files import FileTools
from agent.tools.builtin.root import Root
from agent.tools.result import ToolContext, ToolError
from tests.fixtures.generated import runs


@pytest.fixture
def folder(tmp_path: Path, home: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def tools(folder: Path) -> FileTools:
    return FileTools(Root(folder))


class Watched(io.BytesIO):
    """A file of which no read may be longer than a bound: a line may have no end."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.longest = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 < size <= 1 << 20
        self.longest = max(self.longest, size)
        return super().readline(size)


def shown(data: bytes, start: int, count: int, most: int, scan: int) -> str:
    """What is shown of a file whose lines are all known."""
    lines = data.splitlines(keepends=True)
    if len(b"".join(lines[: start - 1])) > scan:
        return f"[line {start} lies beyond the first {scan} bytes of the file, which is as far as this reads]"
    if start > max(1, len(lines)):
        return f"[the file has {len(lines)} lines]"
    rest = b"".join(lines[start - 1 :])
    part = b"".join(lines[start - 1 : start - 1 + count])[:most]
    if part == rest:
        return part.decode("utf-8", "replace") or "[the file is empty]"
    ended = part.count(b"\n")
    more = f"[more from line {start + ended} on]" if ended else "[more within this long line]"
    return part.decode("utf-8", "replace") + ("" if part.endswith(b"\n") else "\n") + more


@settings(max_examples=runs(400), derandomize=True, database=None)
@given(
    st.text("ab\n\n\u00e9", max_size=30).map(str.encode),
    st.integers(1, 8),
    st.sampled_from([1, 2, 3, 8, 200]),
    st.sampled_from([2, 5, 60_000]),
    st.sampled_from([3, 8, 999]),
)
@example(b"", 1, 200, 60_000, 999)
@example(b"", 2, 200, 60_000, 999)
@example(b"a\n", 2, 1, 60_000, 999)
@example(b"a\nb\n", 3, 1, 60_000, 999)
@example(b"a\nb", 3, 1, 60_000, 999)
@example(b"a\nb\nc\n", 2, 1, 60_000, 2)
@example(b"a\nbb\nc\n", 3, 1, 60_000, 3)
@example(b"abcdefgh", 1, 1, 5, 999)
@example(b"a\nbcdefgh\n", 1, 3, 5, 999)
def test_a_part_of_a_file_is_the_lines_that_were_asked_for(data: bytes, start: int, count: int, most: int, scan: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "MAX_READ", most)
        patch.setattr(files, "MAX_SCAN", scan)
        assert files._numbered(Watched(data), start, count) == shown(data, start, count, most, scan)


def test_a_line_of_any_length_is_passed_over_in_pieces() -> None:
    file = Watched(b"x" * 300_000 + b"\nsecond\n")
    assert files._numbered(file, 2, 1) == "second\n"
    assert files._numbered(Watched(b"x" * 300_000), 2, 1) == "[the file has 1 lines]"


@pytest.mark.parametrize(("start", "lines"), [(0, 1), (-1, 1), (1, 0), (1, -1), (-3, -3)])
def test_lines_are_counted_from_one(tools: FileTools, folder: Path, start: int, lines: int) -> None:
    (folder / "f").write_text("a\nb\nc\n")
    with pytest.raises(ToolError, match="count from 1"):
        tools.read_file("f", start, lines)
    assert tools.read_file("f", 1, 1) == "a\n[more from line 2 on]"
    assert tools.read_file("f", 3, 1) == "c\n"
    assert tools.read_file("f", 2, 7) == "b\nc\n"
    assert tools.read_file("f") == "a\nb\nc\n"


# Listing.


def fill(folder: Path, tree: dict[str, Any]) -> None:
    for name, inner in tree.items():
        if isinstance(inner, dict):
            (folder / name).mkdir()
            fill(folder / name, inner)
        elif isinstance(inner, Path):
            (folder / name).symlink_to(inner)
        else:
            (folder / name).write_bytes(b"x" * inner)


def test_a_folder_is_listed_by_name_with_kinds_and_sizes_and_links_stay_links(
    tools: FileTools, folder: Path, tmp_path: Path
) -> None:
    fill(tmp_path, {"outside": {"secret.py": 7}})
    fill(
        folder,
        {
            "b": 1,
            "a": {"x.py": 2, "deep": {"y.py": 0, "z.txt": 1}},
            "out": tmp_path / "outside",
            "c": Path("b"),
            "none": Path("no"),
        },
    )
    fill(folder, {".git": {"g.py": 1}, "node_modules": {"n.py": 1}, "empty": {}})
    assert tools.list_files().split("\n") == [
        ".git/", "a/", "b (1 byte)", "c (link)", "empty/", "node_modules/", "none (link)", "out (link)"
    ]  # fmt: skip
    assert tools.list_files("a/deep") == "y.py (0 bytes)\nz.txt (1 byte)"
    assert tools.list_files("empty") == "the folder is empty"
    everywhere = "a/x.py (2 bytes)\na/deep/y.py (0 bytes)"
    for pattern in ("*.py", "**/*.py", "./*.py", "./**/*.py"):
        assert tools.list_files(pattern=pattern) == everywhere
    assert tools.list_files("a", "*.py") == "x.py (2 bytes)\ndeep/y.py (0 bytes)"
    assert tools.list_files(pattern="a/*.txt") == "a/deep/z.txt (1 byte)"
    assert tools.list_files(pattern="[bc]") == "b (1 byte)\nc (link)"
    for pattern in ("secret*", "x.py/*", "B", "deep"):
        assert tools.list_files(pattern=pattern) == "nothing matches"


@pytest.mark.parametrize("pattern", ["", "*"])
def test_of_a_full_folder_the_first_are_listed_and_the_rest_counted(
    tools: FileTools, folder: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_ENTRIES", 4)
    for count in range(1, 8):
        (folder / f"f{count}").touch()
        names = [f"f{n} (0 bytes)" for n in range(1, min(count, 4) + 1)]
        assert tools.list_files(pattern=pattern).split("\n") == names + [f"[{count - 4} more]"] * (count > 4)


@pytest.mark.parametrize("most", range(3, 14))
@pytest.mark.parametrize("listed", [1, 2, 200])
def test_of_a_deep_tree_a_part_is_looked_at_and_that_is_said(
    tools: FileTools, folder: Path, most: int, listed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three folders within one another, of four entries each."""
    fill(folder, {"a": 0, "b": 0, "c": 0, "d": {"a": 0, "b": 0, "c": 0, "d": {"a": 0, "b": 0, "c": 0, "d": {}}}})
    monkeypatch.setattr(files, "MAX_SEEN", most)
    monkeypatch.setattr(files, "MAX_ENTRIES", listed)
    looked = min(most // 4 + 1, 3)
    stopped = [f"[stopped after {4 * looked} entries: look in a smaller folder]"] if most < 12 else []
    all_found = [f"{'d/' * n}a (0 bytes)" for n in range(looked)]
    more = [f"[{looked - listed} more]"] if looked > listed else []
    assert tools.list_files(pattern="a").split("\n") == [*all_found[:listed], *more, *stopped]
    assert tools.list_files(pattern="none").split("\n") == ["nothing matches", *stopped]


def test_what_goes_while_it_is_listed_is_a_name(tools: FileTools, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "here").touch()

    def gone(*arguments: object, **named: object) -> os.stat_result:
        raise FileNotFoundError

    monkeypatch.setattr(os, "stat", gone)
    assert tools.list_files() == "here"


# Searching: the process that does it has tests of its own.


def test_a_search_ends_by_itself_before_it_is_ended(tools: FileTools, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what it has found by then is not lost; and a path or text that makes no sense starts nothing."""
    asked: list[Any] = []

    def ask(function: str, job: dict[str, Any], root: Root, **limits: Any) -> str:
        asked.append((job, limits))
        return "found"

    monkeypatch.setattr(files, "ask_child", ask)
    with pytest.raises(ToolError, match="empty"):
        tools.search_files("", ToolContext())
    assert not asked
    assert tools.search_files("x", ToolContext(), "sub") == "found"
    ((job, limits),) = asked
    assert (job["path"], job["text"]) == ("sub", "x")
    assert 0.5 <= limits["seconds"] - job["seconds"] < limits["seconds"] - 1
    assert limits["cpu"] >= job["seconds"]


# Writing and editing.


@pytest.fixture
def edited(tools: FileTools, folder: Path) -> Iterator[Any]:
    def edit(before: str, old: str, new: str) -> str:
        (folder / "f").write_bytes(before.encode())
        result = tools.edit_file("f", old, new, ToolContext())
        assert result.data["created"] is False
        return (folder / "f").read_bytes().decode()

    return edit


@pytest.mark.parametrize(
    ("before", "old", "new", "after"),
    [
        ("a\nb\nc\n", "b", "B", "a\nB\nc\n"),
        ("a\r\nb\r\nc\r\n", "a\nb", "1\n2", "1\r\n2\r\nc\r\n"),
        ("a\nb\nc\r\n", "a\nb", "1\n2", "1\n2\nc\r\n"),  # of mixed line ends those stay that were named
        ("a\nb\r\nc\r\n", "b\nc", "2\n3", "a\n2\r\n3\r\n"),
        ("a\nb\n", "a\nb\n", "", ""),
        ("aXbXc", "aX", "\\1", "\\1bXc"),
    ],
)
def test_an_edit_replaces_the_passage_and_nothing_else(edited: Any, before: str, old: str, new: str, after: str) -> None:
    assert edited(before, old, new) == after


@pytest.mark.parametrize(
    ("before", "old", "told"),
    [
        ("a\na\na\n", "a", "the text occurs 3 times: give more of it, so that it is found once"),
        ("x\nb = 1\ny\nb = 1\n", "  b = 1\nc", "the text does not occur; its first line is at line 2, compare"),
        ("b = 1\n", "\n\n b = 1 \nc", "the text does not occur; its first line is at line 1, compare"),
        ("page\x0cbreak\u2028here\nb = 1\n", "b = 1\nc", "its first line is at line 2,"),  # lines as read_file counts them
        ("a\r\n b\r\n", "b\nc", "its first line is at line 2,"),
        ("a\n", "b", "the text does not occur"),
        ("a\n", "\n\n", "the text does not occur"),
        ("a\n", "", "old is empty"),
    ],
)
def test_a_passage_that_is_not_found_once_changes_nothing_and_where_it_may_be_is_said(
    edited: Any, folder: Path, before: str, old: str, told: str
) -> None:
    with pytest.raises(ToolError) as error:
        edited(before, old, "z")
    assert told in str(error.value)
    assert ("line" in str(error.value)) == ("line" in told)
    assert (folder / "f").read_bytes() == before.encode()


@pytest.mark.parametrize(
    ("content", "lines"),
    [("", "0 lines"), ("a", "1 line"), ("a\n", "1 line"), ("a\nb", "2 lines"), ("a\nb\nc", "3 lines"), ("\n\n", "2 lines")],
)
def test_a_result_says_what_was_done(tools: FileTools, folder: Path, content: str, lines: str) -> None:
    for verb in ("created", "wrote"):
        result = tools.write_file("f", content, ToolContext())
        assert result.text == f"{verb} f ({lines})"
        assert result.data["created"] == (verb == "created")
        assert result.data["path"] == "f"
        assert bool(result.data["diff"]) == (verb == "created" and bool(content))
        assert result.data["diff_cut"] == 0
    assert (folder / "f").read_text() == content


def test_as_much_is_written_as_can_be_edited_and_no_byte_more(tools: FileTools, folder: Path) -> None:
    whole = "é" + "x" * (MAX_WRITE - 2)
    tools.write_file("f", whole, ToolContext())
    tools.edit_file("f", "éx", "xé", ToolContext())
    assert (folder / "f").read_text() == "xé" + whole[2:]
    for use in (lambda: tools.write_file("f", whole + "x", ToolContext()), lambda: tools.edit_file("f", "é", "éx", ToolContext()),
                lambda: tools.preview_write_file("f", whole + "x"), lambda: tools.preview_edit_file("f", "é", "éx")):  # fmt: skip
        with pytest.raises(ToolError, match="a file may get 1 MB at once"):
            use()
    assert (folder / "f").stat().st_size == MAX_WRITE
    tools.write_file("odd", "a\udc80b", ToolContext())
    assert (folder / "odd").read_bytes() == b"a?b"
