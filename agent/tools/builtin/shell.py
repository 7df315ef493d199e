"""The tool that runs a command, confined: one program directly; what needs a shell by a real one, where files are confined."""

from __future__ import annotations

import signal
from pathlib import Path

from agent.children import process, sandbox
from agent.children.launch import cause
from agent.children.rules import ResourceLimits, Rules
from agent.text.command_line import read_command
from agent.tools.builtin.root import Root
from agent.tools.result import ToolContext, ToolError, ToolResult, clean, describe_bytes

SECONDS = 60.0


class CommandTool:
    """Runs commands in a root.

    Args:
        root: where they run, and all that they may write.
        network: let them open sockets.
        seconds: that one may take.
        limits: on memory, processor time, file size and processes.
    """

    def __init__(
        self,
        root: Root,
        *,
        network: bool = False,
        seconds: float = SECONDS,
        limits: ResourceLimits | None = None,
    ) -> None:
        self._root, self._seconds = root, seconds
        self._rules = Rules(sandbox.system_paths(), (str(root.path),), network, limits or ResourceLimits())

    def run_command(self, command: str, context: ToolContext) -> ToolResult:
        """Run a command."""
        if why := impossible(command):
            raise ToolError(why)
        argv, wild = _argv(command)
        done = process.run_command(
            argv, self._root.path, self._rules, seconds=self._seconds, cancelled=context.cancelled, wild=wild
        )
        if done.cancelled:
            raise ToolError("cancelled")
        notes = []
        if done.timed_out:
            notes.append(f"[ended after {self._seconds:g} s, which is all it may take]")
        elif done.status is None or done.status < 0:
            notes.append(f"[{_died(done.status)}]")
        elif done.status:
            notes.append(f"[exit status {done.status}]")
        if done.left:
            notes.append(f"[{done.left} process{'es' if done.left != 1 else ''} left running in the background, ended]")
        notes += done.notes
        data = {"status": done.status, "timed_out": done.timed_out, "confined": done.confined, "bytes_left_out": done.cut}
        text = _text(done.output)
        if not text and not notes:
            text = "done, no output"
        return ToolResult(done.status == 0 and not done.timed_out, "\n".join([*([text] if text else []), *notes]), data=data)


def description() -> str:
    """What a model is told of the tool: what can be written here."""
    what = "a shell command" if process.confines_files() else "one program with its arguments, without a shell,"
    return f"Run {what} and get its output."


def impossible(command: str) -> str:
    """Why a command can never run here, in one line that says what to do instead; "" when it can."""
    line = read_command(command)
    if line.broken:
        return f"the command cannot be run: {line.broken}"
    if line.plain or process.confines_files():
        return ""
    first = line.operators[0] if line.operators else None
    if first is None:
        return f"there is no shell here: {line.words[0].text} sets a variable. Run one program with its arguments"
    sign = command[first.start : first.end].strip() or "a new line"
    return f"there is no shell here: {sign} ({first.what}) does not work. Run one program with its arguments"


def _argv(command: str) -> tuple[list[str], list[int]]:
    """What to start, and which of its words have wildcards."""
    line = read_command(command)
    if line.plain:
        return list(line.argv), [i for i, word in enumerate(line.words) if word.wild]
    return ["/bin/sh" if Path("/bin/sh").exists() else "sh", "-c", command], []


_ENDS = {
    signal.SIGXCPU: "it used up its processor time", signal.SIGXFSZ: "it wrote too large a file",
    signal.SIGKILL: "it was killed, for want of memory or of processor time",
}  # fmt: skip


def _died(status: int | None) -> str:
    if status is None:
        return "it ended in a way that could not be seen"
    return next((why for number, why in _ENDS.items() if number == -status), cause(status))


def _text(output: bytes) -> str:
    text = output.decode("utf-8", "replace")
    strange = output.count(0) + text.count("\ufffd")
    if strange > 32 and strange * 10 > len(text):
        return f"[{describe_bytes(output[:64], len(output))}]"
    return clean(text).rstrip()
