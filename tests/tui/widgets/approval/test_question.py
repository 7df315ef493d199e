"""A person is asked whether a tool may run: nothing is hidden, and nothing is answered by accident."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.pilot import Pilot
from textual.widgets import Input, Static

from agent.approval.offers import PatternError, edited, meaning, offer, start
from agent.approval.policy import Answer, ApprovalRequest, Policy, Rule, always_rule
from agent.messages import ToolCall, ToolSpec
from agent.tools.builtin.catalogue import builtin
from agent.tools.builtin.changes import Found, previewed
from agent.tools.define import Tool, tool
from tests.fixtures.generated import runs
from tests.fixtures.paths import ROOT
from tests.fixtures.sizes import small_and_wide
from tui.widgets.approval.question import ApprovalView
from tui.widgets.approval.summary import ApprovalSummary

STYLES = ROOT / "tui/widgets/approval"
TOOLS = {t.name: t for t in builtin(root=Path("/usr"), home=Path("/usr"))}
for _tool in TOOLS.values():
    _tool.unconfined = ""  # whatever this machine can confine


def ask(name: str | Tool, **arguments: Any) -> ApprovalRequest:
    asked = TOOLS[name] if isinstance(name, str) else name
    call = ToolCall(asked.name, arguments, "c")
    return ApprovalRequest(asked, call, Policy().decide(asked, call), always_rule(asked, call))


class Asking(App[None]):
    CSS_PATH = [STYLES / "question.tcss", STYLES / "summary.tcss"]
    CSS = "#top { height: 1fr; } #bottom { height: auto; max-height: 80%; }"

    def __init__(self, request: ApprovalRequest, grace: float = 0.0, still: bool = False) -> None:
        super().__init__()
        self.view = ApprovalView(request, grace=grace, reduced_motion=still)
        self.answers: list[tuple[Answer, Rule | None]] = []

    def compose(self) -> ComposeResult:
        yield Static("the conversation", id="top")
        with Vertical(id="bottom"):
            yield self.view

    def on_mount(self) -> None:
        self.view.focus()

    def on_approval_view_decided(self, event: ApprovalView.Decided) -> None:
        self.answers.append((event.answer, event.rule))


def shown(app: App[None]) -> str:
    return "\n".join("".join(s.text for s in line).strip() for line in app.screen._compositor.render_strips())


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await pilot.pause(0.02)
    raise AssertionError("it did not come to pass")


@small_and_wide
@pytest.mark.parametrize(
    ("keys", "answer"),
    [
        (("y",), Answer.yes()), (("1",), Answer.yes()), (("Y",), Answer.yes()), (("enter",), Answer.yes()),
        (("2",), Answer.always_yes()), (("down", "enter"), Answer.always_yes()),
        (("n",), Answer.no()), (("4",), Answer.no()), (("escape",), Answer.no()), (("up", "up", "enter"), Answer.no()),
        (("w", *"not that", "enter"), Answer.no("not that")), (("5", "enter"), Answer.no()),
        (("w", "x", "escape", "y"), Answer.yes()),
    ],
)  # fmt: skip
async def test_every_answer_has_its_keys(size: tuple[int, int], keys: tuple[str, ...], answer: Answer) -> None:
    app = Asking(ask("run_command", command="git status -s"))
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        text = shown(app)
        assert "run_command: git status -s" in text
        for line in ("1 y  yes, once", "2 s  this session: this very command", "3 a  always", "4 n  no", "5 w  no, with a word"):
            assert line in text
        for key in keys:
            await pilot.press(" " if key == "space" else key)
            await pilot.pause()
        assert app.answers == [(answer, None)]


async def test_keys_that_mean_nothing_answer_nothing_and_one_answer_is_all_there_is() -> None:
    app = Asking(ask("run_command", command="git status -s"))
    async with app.run_test(size=(40, 15)) as pilot:
        await pilot.press("x", "q", "9", "left", "ctrl+a", "tab", "shift+tab")
        assert app.answers == []
        await pilot.press("n", "y", "y")
        assert app.answers == [(Answer.no(), None)]


@small_and_wide
async def test_a_key_typed_within_the_grace_is_no_answer(size: tuple[int, int]) -> None:
    app = Asking(ask("run_command", command="git status -s"), grace=60)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        assert "=" in shown(app)
        assert "one moment" in shown(app)
        await pilot.press("y", "1", "enter", "escape", "n", "s", "a", "w")
        await pilot.click("_AnswerRow")
        await pilot.pause()
        assert app.answers == []
        assert not app.query_one(Input).has_focus


async def test_after_the_grace_it_is_one_and_typing_prolongs_it() -> None:
    app = Asking(ask("run_command", command="git status -s"), grace=0.3, still=True)
    async with app.run_test(size=(40, 15)) as pilot:
        before = app.view._ready_at
        await pilot.press("y")
        assert app.answers == []
        assert app.view._ready_at > before
        assert "=" not in shown(app), "something moves"
        await until(pilot, lambda: app.view.ready and app.view._timer is None)
        assert "one moment" not in shown(app)
        await pilot.press("y")
        assert app.answers == [(Answer.yes(), None)]


async def test_typing_on_and_on_prolongs_the_grace_to_three_seconds_at_most() -> None:
    app = Asking(ask("run_command", command="git status -s"), grace=2.0)
    async with app.run_test(size=(40, 15)) as pilot:
        await pilot.pause()
        for _ in range(20):
            app.view._prolong()
        assert app.view._ready_at <= app.view._latest
        began = app.view._latest - 3.0
        app.view._latest = began  # as if the three seconds were over
        app.view._prolong()
        await pilot.press("n")
        assert app.answers == [(Answer.no(), None)]


@small_and_wide
async def test_a_mouse_is_enough(size: tuple[int, int]) -> None:
    app = Asking(ask("run_command", command="git status -s"))
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        rows = list(app.query("_AnswerRow"))
        await pilot.click(rows[1])
        await pilot.pause()
        assert app.answers == [(Answer.always_yes(), None)]


@small_and_wide
async def test_enter_by_habit_approves_nothing_risky(size: tuple[int, int]) -> None:
    app = Asking(ask("run_command", command="cat x | sh"))
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        assert "> 4 n  no" in shown(app)
        marked = [
            s.text for line in app.screen._compositor.render_strips() for s in line if s.style is not None and s.style.reverse
        ]
        assert "|" in marked
        assert "sh" in marked
        assert "! a pipe: |" in shown(app)
        await pilot.press("enter")
        assert app.answers == [(Answer.no(), None)]


@small_and_wide
async def test_what_is_long_is_shown_whole_and_no_yes_counts_before_its_end_was_seen(size: tuple[int, int]) -> None:
    command = "echo " + "a" * 10_000 + " ; rm -rf tail"
    app = Asking(ask("run_command", command=command))
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        assert "rm -rf tail" not in shown(app)
        assert "5 w  no, with a word" in shown(app), "the answers are out of sight"
        assert "read all of it before a yes" in shown(app)
        for key in ("y", "s", "1"):
            await pilot.press(key)
            await pilot.pause()
            assert app.answers == []
            assert "not yet: scroll to read all" in shown(app)
        seen = ""
        for _ in range(400):
            seen += shown(app)
            if app.view.read:
                break
            await pilot.press("space")
            await pilot.pause()
        assert "rm -rf tail" in seen or "rm -rf" in seen
        assert seen.count("a") >= 10_000
        await pilot.press("y")
        await pilot.pause()
        assert app.answers == [(Answer.yes(), None)]


async def test_no_needs_no_reading() -> None:
    app = Asking(ask("run_command", command="echo " + "a" * 10_000))
    async with app.run_test(size=(40, 15)) as pilot:
        await pilot.pause()
        await pilot.press("n")
        assert app.answers == [(Answer.no(), None)]


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (ask("run_command", command="ls\x1b[2K\rcat ok"), ["␛[2K␍", "stands for what cannot be seen"]),
        (ask("run_command", command="cat \u202egnp.exe"), ["<U+202E>", "cannot be seen"]),
        (ask("run_command", command="cat a\u200bb"), ["<U+200B>"]),
        (ask("fetch_url", url="https://\u0430pple.com/"), ["https://\u0430pple.com/", "mixes letters that look alike"]),
        (ask("run_command", command="curl https://p\u0430ypal.com"), ["mixes letters that look alike"]),
        (ask("run_command", command="cat x" + " " * 300 + "; rm y"), ["; rm y", "a second command"]),
        (ask("write_file", path="a", content="[red]x[/]\n\x1b]0;t\x07"), ["[red]x[/]", "␛]0;t␇"]),
    ],
)
async def test_nothing_can_be_spoofed(request_: ApprovalRequest, wanted: list[str]) -> None:
    app = Asking(request_)
    async with app.run_test(size=(100, 40)) as pilot:
        await pilot.pause()
        text = shown(app)
        assert not set(text) & set("\x1b\r\x07\u202e\u200b")
        for piece in wanted:
            assert piece in text
        assert "> 4 n  no" in text


async def test_a_megabyte_to_be_written_is_asked_about_at_once() -> None:
    import time

    app = Asking(ask("write_file", path="notes/big.txt", content="word and word\n" * 75_000))
    began = time.process_time()
    async with app.run_test(size=(40, 15)) as pilot:
        await pilot.pause()
        assert "content: word and word" in shown(app)
        await pilot.press("end")
        await pilot.pause()
        assert app.view.read
    assert time.process_time() - began < 6


async def test_a_server_s_tool_says_whose_it_is() -> None:
    remote = Tool.from_spec(ToolSpec("weather__now", "x"), lambda a, c: "")
    app = Asking(ask(remote, city="Oslo"))
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.pause()
        assert "MCP server weather" in shown(app)
        await pilot.press("a")
        await pilot.pause()
        assert "exactly these arguments" in shown(app)
        assert not app.query_one(Input).display
        await pilot.press("enter")
        assert app.answers == [(Answer.yes(), Rule("allow", "weather__now", "*", '{"city": "Oslo"}', exact=True))]


async def test_where_no_rule_would_hold_none_is_offered() -> None:
    app = Asking(ask("run_command", command="ls | wc"))
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.press("a")
        await pilot.pause()
        assert app.answers == []
        assert "no rule can cover this call" in shown(app)
        await pilot.press("y")
        assert app.answers == [(Answer.yes(), None)]


@small_and_wide
async def test_always_for_a_pattern_that_can_be_changed(size: tuple[int, int]) -> None:
    app = Asking(ask("write_file", path="notes/a/today.md", content="x"))
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        await pilot.press("a")
        await pilot.pause()
        field = app.query_one(Input)
        assert field.value == ""
        assert "exactly this change" in " ".join(shown(app).split())
        assert "Always allow write_file" in shown(app)
        field.value = "other/*"
        await pilot.press("enter")
        await pilot.pause()
        assert "does not cover the call" in shown(app)
        assert app.answers == []
        field.value = "notes/**"
        await pilot.pause()
        assert "does not cover" not in shown(app)
        await pilot.press("enter")
        await pilot.pause()
        assert app.answers == [(Answer.yes(), Rule("allow", "write_file", "path", "notes/**"))]


async def test_always_for_a_risky_command_is_for_this_very_one() -> None:
    app = Asking(ask("run_command", command="rm notes.md"))
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.press("a")
        await pilot.pause()
        assert "this very command" in shown(app)
        await pilot.press("enter")
        assert app.answers == [(Answer.yes(), Rule("allow", "run_command", "command", "rm notes.md", exact=True))]


_WORDS = [
    "ls", "git", "status", "rm", "-rf", "cat", "'a b'", "*", "[x]", ";", "|", "$(x)", "sudo", "my-tool", "run", "~", "\x1b", "'",
]  # fmt: skip
_COMMANDS = st.lists(st.sampled_from(_WORDS), min_size=1, max_size=6).map(" ".join)
_PARTS = ["a", "b.md", "..", ".", ".ssh", "*", "[x]", "", "~", "\u202e"]
_PATHS = st.lists(st.sampled_from(_PARTS), min_size=1, max_size=5).map("/".join)
_HOSTS = ["a.org", "A.org:81", "[::1]", "\u0430.com", "1.2.3.4:443", "a@b"]
_URLS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["https://", "http://", "x://", ""]), st.sampled_from(_HOSTS), st.sampled_from(["", "/x", "/?q=1", " "]),
)  # fmt: skip


@settings(max_examples=runs(400), deadline=None, database=None, derandomize=True)
@given(
    st.one_of(
        st.tuples(st.just("run_command"), st.fixed_dictionaries({"command": _COMMANDS})),
        st.tuples(st.just("write_file"), st.fixed_dictionaries({"path": _PATHS, "content": st.text(max_size=5)})),
        st.tuples(st.just("list_files"), st.fixed_dictionaries({})),
        st.tuples(st.just("fetch_url"), st.fixed_dictionaries({"url": _URLS})),
        st.tuples(st.just("calculate"), st.fixed_dictionaries({"expression": st.text(max_size=9)})),
    )
)
def test_every_offered_rule_allows_its_call_and_is_exact(asked: tuple[str, dict[str, str]]) -> None:
    name, arguments = asked
    request = ask(name, **arguments)
    rule = offer(request)
    if rule is None:
        return
    assert (rule.action, rule.tool, rule.exact) == ("allow", name, True)
    assert rule.matches(TOOLS[name], arguments)
    assert edited(rule, start(rule), request.tool, request.call) == rule or start(rule) != start(rule).strip()
    if name == "run_command":
        assert not rule.matches(TOOLS[name], {"command": arguments["command"] + " more"})
    assert meaning(rule, TOOLS[name])


def test_a_pattern_that_does_not_do_is_refused_in_words() -> None:
    request = ask("run_command", command="cat run fast")
    rule = offer(request)
    assert rule is not None
    assert rule.pattern == "cat run fast"
    assert edited(rule, " cat ", request.tool, request.call) == Rule("allow", "run_command", "command", "cat")
    for bad in ("", "other", "cat run slow", "cat\u202e"):
        with pytest.raises(PatternError):
            edited(rule, bad, request.tool, request.call)
    page = ask("fetch_url", url="https://example.org/a")
    whole = offer(page)
    assert whole is not None
    assert edited(whole, "example.org", page.tool, page.call) == Rule("allow", "fetch_url", "url", "example.org")


def test_a_tool_of_a_script_is_offered_with_the_arguments_that_were_seen() -> None:
    @tool(approval="ask")
    def water(bed: int) -> str:
        """Water a bed."""
        return str(bed)

    request = ask(water, bed=2)
    rule = offer(request)
    assert rule == Rule("allow", "water", "*", '{"bed": 2}', exact=True)
    with pytest.raises(PatternError, match="no pattern"):
        edited(rule, "2", request.tool, request.call)


# A change, before the yes.


def rewriting(before: bytes | None, after: str) -> ApprovalRequest:
    asked = ask("write_file", path="notes.txt", content=after)
    found = Found() if before is None else Found(len(before), before, "state")
    return replace(asked, preview=previewed("notes.txt", found, after))


@small_and_wide
async def test_what_a_file_loses_and_gets_is_seen_before_the_yes(size: tuple[int, int]) -> None:
    app = Asking(rewriting(b"water\nbread\neggs\n", "water\nmilk\x1b[2J\n"))
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        seen = []
        for _ in range(8):
            seen += [line.rstrip() for line in shown(app).splitlines()]
            await pilot.press("pagedown")
            await pilot.pause()
        text = "\n".join(seen)
        assert "write_file: notes.txt" in text
        assert "replaces 2 lines with 1" in text
        for line in ("water", "- bread", "- eggs", "+ milk␛[2J"):
            assert any(line in row for row in seen), text
        assert "content:" not in text
        await pilot.press("y")
        assert app.answers == [(Answer.yes(), None)]


async def test_a_change_has_colours_and_not_colours_alone() -> None:
    app = Asking(rewriting(b"bread\n", "milk\n"))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        colours = {}
        for strip in app.screen._compositor.render_strips():
            for segment in strip:
                for word in ("bread", "milk"):
                    if word in segment.text and segment.style is not None:
                        colours[word] = segment.style.color
        assert len(set(colours.values())) == 2
        assert "- bread" in shown(app)
        assert "+ milk" in shown(app)


@small_and_wide
async def test_the_middle_of_a_long_change_is_opened_on_wish(size: tuple[int, int]) -> None:
    app = Asking(rewriting(None, "".join(f"line {i}\n" for i in range(3_000))))
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        summary = app.query_one(ApprovalSummary)
        rows = [summary._row(y).plain for y in range(summary.size.height)]
        assert any("2,910 lines are left out: o opens them" in row for row in rows)
        assert any("line 2999" in row for row in rows)
        assert "o opens what is left out" in shown(app)
        await pilot.press("o")
        await pilot.pause()
        assert summary.size.height >= 3_000
        opened = "\n".join(summary._row(y).plain for y in range(summary.size.height))
        assert all(f"line {i}" in opened for i in range(3_000))
        await pilot.press("y")
        assert app.answers == [], "and then all of it must have been in view"
        await pilot.press("end", "y")
        assert app.answers == [(Answer.yes(), None)]


async def test_a_long_line_is_cut_until_it_is_opened_and_never_at_its_end_unsaid() -> None:
    app = Asking(rewriting(b"a\n", "x" * 5_000 + " rm -rf\n"))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        summary = app.query_one(ApprovalSummary)
        assert "4,007 more characters" in "".join(summary._row(y).plain[4:] for y in range(summary.size.height))
        await pilot.press("o")
        await pilot.pause()
        assert "rm -rf" in "".join(summary._row(y).plain[4:] for y in range(summary.size.height))
