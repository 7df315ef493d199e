"""The question whether a tool may run, in the place of the prompt: what exactly would run, and the answers."""

from __future__ import annotations

import time
from typing import Literal

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input, Static

from agent.approval.offers import PatternError, editable, edited, meaning, offer, start
from agent.approval.policy import Answer, ApprovalRequest, Rule
from agent.approval.question import KEYS as _KEYS
from agent.approval.question import AnswerChoice, AnswerName, choices, title
from agent.text import display
from tui.widgets.approval.summary import ApprovalSummary

_LONGEST_GRACE = 3.0  # seconds; however long somebody types on
_TICK = 0.1
_PART = 0.8  # of the height that the question may take; tui/screens/chat.tcss says the same
_YES: frozenset[AnswerName] = frozenset({"once", "session", "always"})


class _AnswerRow(Static):
    """One answer; a click on it gives it."""

    def __init__(self, choice: AnswerChoice) -> None:
        super().__init__(markup=False, classes="" if choice.possible else "-impossible")
        more = "…" if choice.name in ("always", "word") else ""
        self.choice, self._label, self.possible = choice.name, f"{' '.join(choice.keys)}  {choice.words}{more}", choice.possible

    def mark(self, on: bool) -> None:
        self.set_class(on, "-on")
        self.update(Content(f"{'>' if on else ' '} {self._label}"))

    def on_click(self, event: events.Click) -> None:
        event.stop()
        view = next(node for node in self.ancestors if isinstance(node, ApprovalView))
        view.choose(self.choice)


class _What(VerticalScroll, can_focus=False):
    """What would run, as high as it is, but never so high that the answers are out of sight."""

    others = 0  # lines of the question that are not this

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        height = super().get_content_height(container, viewport, width)
        return max(1, min(height, int(self._most(viewport.height) * _PART) - self.others))

    def _most(self, screen: int) -> int:
        """Lines of what the question shares: the screen without its bars, where those are laid out already."""
        around = self.parent.parent if self.parent is not None else None
        shared = around.parent if around is not None else None
        return min(screen, shared.size.height or screen) if isinstance(shared, Widget) else screen


class ApprovalView(Vertical, can_focus=True):
    """Asks whether a tool may run.

    A key that is pressed while the question appears was meant for something else: for a moment, which each further key
    prolongs, no key counts. If the call is risky, "no" is marked first, so that Enter by habit approves nothing. A yes counts
    only when the end of what would run has been in view.
    """

    class Decided(Message):
        """A person's word.

        Attributes:
            answer: for the agent.
            rule: to be kept beyond the session, when the answer was "always".
        """

        def __init__(self, answer: Answer, rule: Rule | None = None) -> None:
            self.answer, self.rule = answer, rule
            super().__init__()

    def __init__(self, request: ApprovalRequest, *, grace: float = 0.5, reduced_motion: bool = False) -> None:
        """
        Args:
            request: what is asked; its texts are untrusted.
            grace: seconds in which no key is an answer.
            reduced_motion: say that in words instead of a bar.
        """
        super().__init__()
        self._request, self._grace, self._still = request, grace, reduced_motion
        self._summary = ApprovalSummary(request)
        self._rule = offer(request)
        self._editable = self._rule is not None and editable(self._rule, request.tool)
        self._rows = tuple(map(_AnswerRow, choices(request, self._rule)))
        risky = bool(self._summary.risks or request.tool.unconfined)
        self._at = 3 if risky else 0
        self._seen = self._given = False
        self._ready_at = self._latest = 0.0
        self._timer: Timer | None = None
        self._asking: Literal["", "always", "word"] = ""
        self._problem = ""

    def compose(self) -> ComposeResult:
        yield Static(Content(title(self._request)), markup=False, classes="title")
        with _What(classes="what"):
            yield self._summary
        with Vertical(classes="answers"):
            yield from self._rows
        with Vertical(classes="asking"):
            yield Static("", markup=False, classes="about")
            yield Input(compact=True)
        yield Static("", markup=False, classes="hint")

    def on_mount(self) -> None:
        self._show_asking(False)
        self._mark()
        self._begin_grace()
        self.watch(self.query_one(_What), "scroll_y", self._scrolled, init=False)

    # The moment in which nothing is an answer.

    @property
    def ready(self) -> bool:
        """Whether a key is an answer now."""
        return time.monotonic() >= self._ready_at

    def _begin_grace(self) -> None:
        """From now on."""
        now = time.monotonic()
        self._ready_at, self._latest = now + self._grace, now + max(_LONGEST_GRACE, self._grace)
        if self._timer is None and self._grace > 0:
            self._timer = self.set_interval(_TICK, self._tick)
        self._hint()

    def _prolong(self) -> None:
        self._ready_at = min(time.monotonic() + self._grace, self._latest)

    def _tick(self) -> None:
        if self.ready and self._timer is not None:
            self._timer.stop()
            self._timer = None
        self._hint()

    def on_focus(self) -> None:
        if not self._asking:
            self._begin_grace()

    # Keys and the mouse.

    def on_key(self, event: events.Key) -> None:
        typing = bool(self._asking) and self.query_one(Input).has_focus
        if typing and event.key != "escape":
            return
        event.stop()
        event.prevent_default()
        if self._asking:
            self._asked_key(event.key)
            return
        if not self.ready:
            self._prolong()
        else:
            self._key(event.key, event.character or "")

    def _asked_key(self, key: str) -> None:
        if key == "escape":
            self._back()
        elif key == "enter" and self._rule is not None:  # a rule without a pattern to write: there is only a yes to it
            self._answer(Answer.yes(), self._rule)

    def _key(self, key: str, character: str) -> None:
        scroll = self.query_one(_What)
        match key:
            case "up" | "down" | "tab" | "shift+tab":
                self._at = (self._at + (1 if key in ("down", "tab") else -1)) % len(self._rows)
                self._problem = ""
                self._mark()
            case "enter":
                self.choose(self._rows[self._at].choice)
            case "escape":
                self.choose("no")
            case "space" | "pagedown":
                scroll.scroll_page_down(animate=False)
            case "pageup":
                scroll.scroll_page_up(animate=False)
            case "home":
                scroll.scroll_home(animate=False)
            case "end":
                scroll.scroll_end(animate=False)
            case "o":
                self._summary.open()
                self._hint()
            case _ if character.lower() in _KEYS:
                self.choose(_KEYS[character.lower()])

    def choose(self, choice: AnswerName) -> None:
        """Give an answer, or ask for what it still needs; nothing within the grace, and no yes before all was seen."""
        if not self.ready or self._asking or self._given:
            return
        self._at = next(i for i, row in enumerate(self._rows) if row.choice == choice)
        self._problem = ""
        if not self._rows[self._at].possible:
            self._problem = "no rule can cover this call"
        elif choice in _YES and not self.read:
            self._problem = "not yet: scroll to read all (Space)"
        else:
            self._give(choice)
        self._mark()

    def _give(self, choice: AnswerName) -> None:
        match choice:
            case "once":
                self._answer(Answer.yes())
            case "session":
                self._answer(Answer.always_yes())
            case "no":
                self._answer(Answer.no())
            case "word":
                self._ask("word", "What shall the model be told?", "")
            case "always" if self._rule is not None:
                self._ask("always", self._covers(self._rule), start(self._rule) if self._editable else "")

    def _answer(self, answer: Answer, rule: Rule | None = None) -> None:
        if not self._given:
            self._given = True
            self.post_message(self.Decided(answer, rule))

    # What an answer still needs.

    def _ask(self, what: Literal["always", "word"], about: str, value: str) -> None:
        self._asking = what
        self.query_one(".about", Static).update(Content(about))
        self._show_asking(True)
        field = self.query_one(Input)
        field.value = value
        field.placeholder = "or a pattern, like notes/**" if what == "always" and not value else ""
        field.cursor_position = len(value)
        field.display = what == "word" or self._editable
        (field if field.display else self).focus()
        self._hint()

    def _show_asking(self, asking: bool) -> None:
        self.query_one(".answers").display = not asking
        self.query_one(".asking").display = asking
        what = self.query_one(_What)
        what.others = 3 + (3 if asking else len(self._rows))  # border, title, hint
        what.refresh(layout=True)

    def _covers(self, rule: Rule) -> str:
        return f"Always allow {display(rule.tool)} for: {meaning(rule, self._request.tool)}"

    def _back(self) -> None:
        self._show_asking(False)
        self.focus()
        self.call_after_refresh(self._ended_asking)

    def _ended_asking(self) -> None:
        self._asking, self._problem = "", ""
        self._mark()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self._asking == "word":
            self._answer(Answer.no(event.value.strip()))
        elif (rule := self._written(event.value)) is not None:
            self._answer(Answer.yes(), rule)
        self._hint()

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        self._problem = ""
        if self._asking == "always" and (rule := self._written(event.value)) is not None:
            self.query_one(".about", Static).update(Content(self._covers(rule)))
        self._hint()

    def _written(self, pattern: str) -> Rule | None:
        """The rule with a pattern that a person wrote; None, with the problem said, when it does not do."""
        if self._rule is None:
            return None
        try:
            return edited(self._rule, pattern, self._request.tool, self._request.call)
        except PatternError as e:
            self._problem = str(e)
            return None

    # What is seen.

    @property
    def read(self) -> bool:
        """Whether the end of what would run has been in view."""
        scroll = self.query_one(_What)
        laid = scroll.size.height > 0 and self._summary.size.height > 0
        self._seen = self._seen or (laid and scroll.scroll_y >= scroll.max_scroll_y)
        return self._seen

    def _scrolled(self) -> None:
        if self.read and self._problem.startswith("not yet"):
            self._problem = ""
        self._hint()

    def on_resize(self) -> None:
        self._hint()

    def _mark(self) -> None:
        for i, row in enumerate(self._rows):
            row.mark(i == self._at)
        self._hint()

    def _hint(self) -> None:
        hint = self.query_one(".hint", Static)
        hint.set_class(bool(self._problem), "-problem")
        hint.update(Content(self._problem or self._advice()))

    def _advice(self) -> str:
        if self._asking:
            return "Enter confirms, Esc goes back"
        if not self.ready:
            left = self._ready_at - time.monotonic()
            bar = "" if self._still else "=" * max(1, round(10 * left / max(self._grace, _TICK))) + " "
            return f"{bar}one moment: no key counts"
        if self._summary.cut:
            return "o opens what is left out; Space reads on"
        if not self.read:
            return "Space: read all of it before a yes"
        return "1-5, a letter or Enter; Esc is no"
