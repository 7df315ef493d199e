"""The changes of a file, as a person sees them."""

from __future__ import annotations

import difflib

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App, ComposeResult

from agent.text.line_diff import unified
from tests.fixtures.generated import runs
from tests.fixtures.paths import ROOT
from tui.widgets.folding import fold, line_spans
from tui.widgets.messages.diff import DiffView, count, parse

STYLES = ROOT / "tui/widgets/messages"
_TEXTS = ["", "a", "b", "-- a", "++ b", "@@ -1,2 +3,4 @@", "\\ no", " x", "-", "+", "\x1b[2J"]
_LINES = st.lists(st.sampled_from(_TEXTS), max_size=25)


@settings(max_examples=runs(300), deadline=None, database=None, derandomize=True)
@given(_LINES, _LINES, st.integers(0, 4))
def test_every_line_of_a_diff_has_its_kind_its_number_and_its_text(old: list[str], new: list[str], context: int) -> None:
    diff = "\n".join(difflib.unified_diff(old, new, "a/x", "b/x", lineterm="", n=context))
    lines = parse(diff)
    for line in lines:
        assert line.kind in ("same", "added", "removed", "gap")
        if line.number is not None:
            assert (old if line.kind == "removed" else new)[line.number - 1] == line.text
        if line.changed is not None:
            assert 0 <= line.changed[0] <= line.changed[1] <= len(line.text)
    plus, minus = count(lines)
    assert len(new) - len(old) == plus - minus
    shown = [(line.kind, line.text) for line in lines if line.kind != "gap"]
    kinds = {"+": "added", "-": "removed", " ": "same"}
    wanted = diff.split("\n")[2:] if diff else []
    heads = [i for i, text in enumerate(wanted) if text.startswith("@@")]
    assert shown == [(kinds[text[0]], text[1:]) for i, text in enumerate(wanted) if i not in heads]


@settings(max_examples=runs(300), deadline=None, database=None, derandomize=True)
@given(st.text(st.sampled_from("@-+ \\,0123456789\nab"), max_size=120))
def test_no_text_breaks_the_reader(text: str) -> None:
    assert len(parse(text)) <= text.count("\n") + 1


@settings(max_examples=runs(300), deadline=None, database=None, derandomize=True)
@given(st.text(st.sampled_from("ab \n漢é"), max_size=60), st.integers(2, 9))
def test_folded_to_a_width_nothing_is_lost_and_nothing_is_too_wide(text: str, width: int) -> None:
    places = line_spans(text, width)
    assert "".join(text[start:end] for start, end in places) == text.replace("\n", "")
    assert all(cell_len(text[start:end]) <= width for start, end in places)


def test_a_fold_says_what_it_hides() -> None:
    assert fold("a\nb\nc\nd", 2, 100).more == "2 more lines"
    assert fold("a\nb\nc", 2, 100).more == ""
    assert fold("x" * 1_000_000, 2, 100).more == "999,900 more characters"
    assert fold("a\n" * 500_000, 3, 100).text == "a\na\na"


def shown(app: App[None]) -> str:
    return "\n".join("".join(s.text for s in line).rstrip() for line in app.screen._compositor.render_strips())


class Diff(App[None]):
    CSS_PATH = [STYLES / "diff.tcss"]

    def __init__(self, diff: str, fold_after: int = 12) -> None:
        super().__init__()
        self.view = DiffView(diff, fold_after=fold_after)

    def compose(self) -> ComposeResult:
        yield self.view


async def test_a_person_sees_numbers_and_marks_and_no_escape() -> None:
    before = "".join(f"line {i}\n" for i in range(1, 60))
    after = before.replace("line 30\n", "line \x1b[31mthirty\u202e\n")
    app = Diff(unified(before, after, "x")[0])
    async with app.run_test(size=(40, 15)) as pilot:
        await pilot.pause()
        text = shown(app)
        assert "29   line 29\n30 - line 30\n30 + line ␛[31mthirty<U+202E>\n31   line 31" in text
        assert text.startswith(" ⋯")
        assert app.view.summary == "+1 -1"


async def test_what_changed_within_a_line_is_marked() -> None:
    app = Diff(unified("colour = red\n", "colour = rot\n", "x")[0])
    async with app.run_test(size=(40, 6)) as pilot:
        await pilot.pause()
        marked = [
            segment.text
            for line in app.screen._compositor.render_strips()
            for segment in line
            if segment.style is not None and segment.style.underline
        ]
        assert marked == ["ed", "ot"]


async def test_a_long_diff_is_folded_until_it_is_opened_and_wide_lines_wrap() -> None:
    new = "".join(f"{'漢字 ' * 12}{i}\n" for i in range(30))
    app = Diff(unified("", new, "x")[0], fold_after=4)
    async with app.run_test(size=(40, 30)) as pilot:
        await pilot.pause()
        assert "… 26 more lines (Enter opens)" in shown(app)
        assert app.view.size.width == 40
        folded = app.view.size.height
        app.view.opened = True
        await pilot.pause()
        assert app.view.size.height > 5 * folded
