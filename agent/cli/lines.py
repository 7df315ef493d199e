"""The events of a run as lines, for `sprig ask` and the plain chat; and the question whether a tool may run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from agent import events as e
from agent.text import DisplayStream, display, verbatim

if TYPE_CHECKING:
    from agent.approval.policy import Answer, ApprovalRequest, Rule

_SLOW = 3.0  # seconds of reading a prompt after which that is said
_SHOWN = 8  # lines of a tool's result
_MOST_DIFF = 60  # lines of a change that stand in a question; who wants more asks for all
_UNFINISHED = {
    "length": "the answer was cut off at its limit of tokens (--max-tokens)",
    "rounds": "the model was still calling tools when its rounds were used up (--rounds)",
    "time": "the time was up (--seconds)",
    "context": "the context is full",
    "loop": "the model repeated itself without end",
    "cancelled": "cancelled",
    "repeated call": "the model made the same call again and again",
}


def unfinished(result: e.Result) -> str:
    """Why an answer is not whole; "" when it is."""
    return "" if result.reason == "done" else result.error or _UNFINISHED.get(result.reason, result.reason)


class EventLines:
    """Writes events as they come. Texts of a model, a tool or a file are made safe here."""

    def __init__(self, write: Callable[[str], Any] | None, say: Callable[[str], Any], *, screen: bool = True) -> None:
        """``write`` takes the answer piece by piece, None leaves it out; ``say`` takes whole lines on what happens beside it.

        ``screen`` is False where the answer goes to a file or another program, which gets what was said.
        """
        self._write, self._say, self._screen = write, say, screen
        self._shown = DisplayStream()
        self._open = False  # whether the answer's last line is not ended
        self._said = time.monotonic()

    def begin(self) -> None:
        """A run begins."""
        self._said = time.monotonic()

    def show(self, event: Any) -> None:
        """Write an event; what is none is left out."""
        match event:
            case e.Text(text) if self._write is not None and text:
                if piece := self._shown.feed(text) if self._screen else verbatim(text):
                    self._write(piece)
                self._open = not text.endswith("\n")
            case e.Prefill(done, total, _) if total > done and time.monotonic() - self._said > _SLOW:
                self.say(f"Reading the conversation: {done} of {total} tokens.")
            case e.CallReady(call):
                arguments = ", ".join(f"{display(k)}: {display(str(v))[:300]}" for k, v in call.arguments.items())
                self.say(f"Tool {display(call.name)}. {arguments}".rstrip())
            case e.CallRefused(call, why):
                self.say(f"Tool {display(call.name)} was not run: {display(why)}")
            case e.ToolProgress(call, text):
                self.say(f"Tool {display(call.name)}: {display(text)}")
            case e.ToolDone(call, ok, text, _, seconds, _):
                lines = display(text, lines=True).splitlines()
                more = [f"({len(lines) - _SHOWN} more lines)"] if len(lines) > _SHOWN else []
                how = "is done" if ok else "failed"
                head = f"Tool {display(call.name)} {how} after {seconds:.1f} seconds:"
                self.say("\n".join([head, *(line[:500] for line in lines[:_SHOWN]), *more]))
            case e.Compacted(what, before, after):
                self.say(f"The context was full: {display(what)} ({before} tokens to {after}).")
            case e.Problem(text):
                self.say(f"sprig: {display(text)}")
            case e.ToolsChanged():
                self.say(f"sprig: {display(event.text)}")
            case e.Done():
                self.end_line()

    def say(self, text: str) -> None:
        """Write whole lines; what is untrusted in them is safe already."""
        self.end_line()
        self._said = time.monotonic()
        self._say(text)

    def end_line(self) -> None:
        """The answer's last line is a line."""
        if self._open and self._write is not None:
            self._open = False
            self._write(self._shown.end() + "\n")


def ask_in_lines(
    request: ApprovalRequest, say: Callable[[str], Any], read: Callable[[str], str | None]
) -> tuple[Answer, Rule | None] | None:
    """A person's answer about a call, with a rule to keep when it was "always"; None when there is no more input.

    ``say`` takes lines; ``read`` takes a prompt and gives what was written, or None at the end of the input.
    """
    from agent.approval.offers import meaning, offer
    from agent.approval.policy import Answer
    from agent.approval.question import choices, diff_lines

    rule = offer(request)
    answers = choices(request, rule)
    diff = request.preview.diff if request.preview is not None else ""
    cut = len(diff_lines(diff)) > _MOST_DIFF
    _say_question(request, say)
    words = {choice.name: choice.words for choice in answers}
    if rule is not None:
        pattern = f" {display(rule.pattern)}" if rule.argument not in (None, "*") else ""
        words["always"] = f"always, for {display(rule.tool)}{pattern} ({meaning(rule, request.tool)})"
    offered = [f"{choice.keys[1]}: {words[choice.name]}." for choice in answers if choice.possible and choice.name != "word"]
    prompt = f"Allow it? {' '.join([*offered, *(['d: show the whole change.'] if cut else [])])} Or write why not: "
    named = {key: choice for choice in answers for key in choice.keys} | {
        "yes": answers[0],
        "always": answers[2],
        "no": answers[3],
    }
    while (reply := read(prompt)) is not None:
        choice = named.get(reply.strip().lower())
        if reply.strip().lower() == "d" and cut:
            say("\n".join(diff_lines(diff)))
        elif choice is None:
            return Answer.no(reply.strip()), None
        elif not choice.possible:
            say("No rule can cover this call.")
        elif choice.name == "word":
            word = read("What shall the model be told? ")
            return (Answer.no(word.strip()), None) if word is not None else None
        else:
            answer = {"once": Answer.yes(), "session": Answer.always_yes(), "always": Answer.yes(), "no": Answer.no()}[
                choice.name
            ]
            return answer, rule if choice.name == "always" else None
    return None


def _say_question(request: ApprovalRequest, say: Callable[[str], Any]) -> None:
    from agent.approval.question import asked_about, diff_lines, reasons

    decision = request.decision
    say(f"The model wants to run a tool, and {', and '.join(reasons(request))}:\n{asked_about(request)}")
    if request.preview is not None and request.preview.diff:
        say("\n".join(diff_lines(request.preview.diff, _MOST_DIFF)))
    for start, end, why in decision.risks:
        say(f"Look at this: {decision.summary[start:end]} ({display(why)})")


def forget_typed(source: TextIO) -> None:
    """What was typed before a question is no answer to it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import termios

        termios.tcflush(source.fileno(), termios.TCIFLUSH)
