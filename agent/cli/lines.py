"""The events of a run as lines, for `sprig ask` and the plain chat; and the question whether a tool may run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from agent import events as e
from agent.text import display

if TYPE_CHECKING:
    from agent.approval.policy import Answer, ApprovalRequest, Rule

_SLOW = 3.0  # seconds of reading a prompt after which that is said
_SHOWN = 8  # lines of a tool's result
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

    def __init__(self, write: Callable[[str], Any] | None, say: Callable[[str], Any]) -> None:
        """``write`` takes the answer piece by piece, None leaves it out; ``say`` takes whole lines on what happens beside it."""
        self._write, self._say = write, say
        self._open = False  # whether the answer's last line is not ended
        self._said = time.monotonic()

    def begin(self) -> None:
        """A run begins."""
        self._said = time.monotonic()

    def show(self, event: Any) -> None:
        """Write an event; what is none is left out."""
        match event:
            case e.Text(text) if self._write is not None and text:
                self._write(display(text, lines=True))
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
            self._write("\n")


def ask_in_lines(
    request: ApprovalRequest, say: Callable[[str], Any], read: Callable[[str], str | None]
) -> tuple[Answer, Rule | None] | None:
    """A person's answer about a call, with a rule to keep when it was "always"; None when there is no more input.

    ``say`` takes lines; ``read`` takes a prompt and gives what was written, or None at the end of the input.
    """
    from agent.approval.offers import meaning, offer
    from agent.approval.policy import Answer

    decision, rule = request.decision, offer(request)
    if decision.reason and decision.reason in (request.tool.unconfined, request.tool.doubt()):
        rule = None  # a rule said yes and was overruled: another one would change nothing
    say(f"The model wants to run a tool, and {display(decision.reason)}:\n{decision.summary}")
    for start, end, why in decision.risks:
        say(f"Look at this: {decision.summary[start:end]} ({display(why)})")
    always = ""
    if rule is not None:
        pattern = f" {display(rule.pattern)}" if rule.argument not in (None, "*") else ""
        always = f" a: always, for {display(rule.tool)}{pattern} ({meaning(rule, request.tool)})."
    prompt = f"Allow it? y: yes, once. s: yes, in this session.{always} n: no. Or write why not: "
    while (reply := read(prompt)) is not None:
        match reply.strip().lower():
            case "y" | "yes" | "1":
                return Answer.yes(), None
            case "s" | "2":
                return Answer.always_yes(), None
            case "a" | "always" | "3" if rule is not None:
                return Answer.yes(), rule
            case "a" | "always" | "3":
                say("No rule can cover this call.")
            case "n" | "no" | "4" | "":
                return Answer.no(), None
            case "w" | "5":
                word = read("What shall the model be told? ")
                return (Answer.no(word.strip()), None) if word is not None else None
            case _:
                return Answer.no(reply.strip()), None
    return None


def forget_typed(source: TextIO) -> None:
    """What was typed before a question is no answer to it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import termios

        termios.tcflush(source.fileno(), termios.TCIFLUSH)
