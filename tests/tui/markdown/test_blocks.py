"""An answer is cut into blocks as CommonMark says, line by line, and the same way however it arrives."""

from __future__ import annotations

import re

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len

from tests.fixtures.generated import runs
from tui.markdown.blocks import LeafBlock, split_row
from tui.markdown.document import Document
from tui.markdown.reader import BlockReader

Block = tuple[str, str, int, str]  # kind, containers ("q" or "i" each), how many of them begin here, text

FRAGMENTS = [
    "- ", "* ", "+ ", "1. ", "2. ", "1) ", "> ", ">", "# ", "## ", "#", "```", "```py", "~~~", "---", "***", "===", "=", "-", "*",
    "a", "b c", "word", "|", "a | b", "|---|---|", "--- | ---", "|:-|", "1.", "    ", "   ", "  ", " ",
    "\n", "\n", "\n\n", "\\", "`",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=24).map("".join)
REFERENCE = MarkdownIt("commonmark", {"html": False}).enable("table").disable("reference")

# Where markdown-it leaves the specification: an indented line right after a quote, and a table whose first line begins
# with the marker of another block.
QUIRKS = re.compile(r"(?:^|\n) *>[^\n]*\n {4}|(?:^|\n)[ >]*(?:[-*+>#`~]|\d+[.)])[^\n]*\|[^\n]*\n[ >]*[-:|]")


def stripped(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().split("\n"))


def ours(text: str) -> list[Block]:
    reader = BlockReader()
    for line in text.removesuffix("\n").split("\n"):
        reader.read(line)
    reader.end()
    return [_block(leaf) for leaf in reader.leaves]


def _block(leaf: LeafBlock) -> Block:
    if leaf.kind in ("fence", "code"):
        content = leaf.code().rstrip()
    elif leaf.kind == "table":
        rows = [leaf.lines[0], *leaf.lines[2:]]
        width = len(split_row(rows[0]))
        content = "\n".join("/".join((split_row(row) + [""] * width)[:width]) for row in rows)
    else:
        content = stripped("\n".join(leaf.lines))
    kind = f"heading{leaf.level}" if leaf.kind == "heading" else leaf.kind
    return kind, "".join("q" if f.quote else "i" for f in leaf.frames), leaf.opens, content


def theirs(text: str) -> list[Block]:
    """markdown-it's tokens in the same shape."""
    blocks: list[Block] = []
    path, pending, kind, cells = "", 0, "paragraph", 0
    table: list[list[str]] = []
    for token in REFERENCE.parse(text):
        if token.type in ("blockquote_open", "list_item_open"):
            path, pending = path + ("q" if token.type[0] == "b" else "i"), pending + 1
        elif token.type in ("blockquote_close", "list_item_close"):
            if pending:
                blocks.append(("paragraph", path, pending, ""))
                pending = 0
            path = path[:-1]
        elif token.type == "table_open":
            table, cells = [], 1
        elif token.type == "tr_open":
            table.append([])
        elif token.type == "inline" and cells:
            table[-1].append(token.content)
        elif token.type in ("heading_open", "paragraph_open"):
            kind = f"heading{token.tag[1]}" if token.type[0] == "h" else "paragraph"
        elif token.type in ("inline", "fence", "code_block", "hr", "table_close"):
            content = stripped(token.content)
            if token.type in ("fence", "code_block"):
                kind, content = token.type.removesuffix("_block"), token.content.rstrip()
            elif token.type == "hr":
                kind, content = "rule", ""
            elif token.type == "table_close":
                kind, content, cells = "table", "\n".join("/".join(row) for row in table), 0
            blocks.append((kind, path, pending, content))
            pending = 0
    return blocks


@given(TEXTS)
@settings(max_examples=runs(600), deadline=None)
@example("- a\n\n  b\n- \n\n      code\n")
@example("1. a\n2. b\n   - c\n\n> q\nlazy\n===\n")
@example("a | b\n--- | ---\n1 | 2 | 3\nx\n\n-\n  a\n")
def test_blocks_are_those_of_a_whole_parser(text: str) -> None:
    assume(not QUIRKS.search(text))
    assert ours(text) == theirs(text)


def document(chunks: list[str], width: int) -> Document:
    made = Document()
    made.resize(width)
    for chunk in chunks:
        made.append(chunk)
    made.finish()
    return made


def screen(made: Document) -> list[object]:
    return [made.text(), made.height, *(made.row(y) for y in range(made.height))]


INLINE = [
    "**b**", "*i*", "`c`", "[l](http://x.y)", "[r][1]", "[1]", "[1]: http://d.e\n", "![i](s)", "&amp;", "&#27;", "<b>", "日本語",
    "❤️",     "~~s~~", "https://a.b/c", "\r", "\r\n", "\t", "\x1b", "- [ ] ", "| 日 | ", "\u202e", "e\u0301", " word word word ",
]  # fmt: skip
RICH = st.lists(st.sampled_from(FRAGMENTS + INLINE), max_size=40).map("".join)


@given(RICH, st.data(), st.sampled_from([8, 20, 80]))
@settings(max_examples=runs(400), deadline=None)
def test_an_answer_looks_the_same_however_it_came(text: str, data: st.DataObject, width: int) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert screen(document(chunks, width)) == screen(document([text], width))


@given(RICH)
@settings(max_examples=runs(100), deadline=None)
def test_letter_by_letter_and_with_the_width_changed_on_the_way(text: str) -> None:
    made = Document()
    for i, letter in enumerate(text):
        made.resize(20 + 30 * (i % 2))
        made.append(letter)
    made.finish()
    made.resize(33)
    assert screen(made) == screen(document([text], 33))


@given(RICH, st.data())
@settings(max_examples=runs(200), deadline=None)
def test_only_rows_said_to_have_changed_did(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    made = Document()
    made.resize(24)
    for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True):
        before = [made.row(y)[0] for y in range(made.height)]
        first = made.append(text[a:b])
        after = [made.row(y)[0] for y in range(made.height)]
        assert before[:first] == after[:first]


@given(RICH, st.integers(8, 60))
@settings(max_examples=runs(200), deadline=None)
def test_no_row_is_wider_than_the_screen(text: str, width: int) -> None:
    made = document([text], width)
    for y in range(made.height):
        assert cell_len("".join(piece.text for piece in made.row(y)[0].pieces)) <= width


WORDS = ["a", "word", "日本語。", "❤️", "longerthantheroom", "👍🏽", "x-y", "、"]


@given(st.lists(st.sampled_from(WORDS), min_size=1), st.integers(8, 30))
@settings(max_examples=runs(300), deadline=None)
def test_wrapping_loses_nothing_but_the_spaces_at_its_breaks(words: list[str], width: int) -> None:
    text = " ".join(words)
    made = document([text], width)
    rows = ["".join(piece.text for piece in made.row(y)[0].pieces) for y in range(made.height)]
    assert "".join(rows).replace(" ", "") == text.replace(" ", "")
    assert made.text() == text


def test_a_text_without_any_room_has_no_rows_and_comes_back() -> None:
    document = Document()
    document.append("one\n\ntwo\n")
    document.finish()
    document.resize(20)
    height = document.height
    document.resize(0)
    assert document.height == 0
    document.resize(20)
    assert document.height == height > 0
