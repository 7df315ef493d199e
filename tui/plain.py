"""`sprig chat --plain`: the same talk in lines, without one control sequence: for a dumb terminal, a screen reader or a pipe."""

from __future__ import annotations

import contextlib
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO

from agent import events as e
from agent.cli.lines import EventLines, ask_in_lines, forget_typed, unfinished
from agent.errors import SprigError
from agent.text import display
from tui.talk import notes as n
from tui.talk.entries import question_before
from tui.talk.talk import Talk

if TYPE_CHECKING:
    from agent.approval.policy import Rule
    from agent.engine.handle import Engine
    from agent.sessions.store import Store
    from tui.talk.entries import Entry
    from tui.talk.setup import Setup

_HELP = """\
Write a message and press Enter; a line that ends in a backslash goes on in the next. Ctrl+C stops an answer.
  /again        have the last message answered again
  /edit TEXT    say something else in the place of your last message
  /editor       write a message in your own editor ($VISUAL, $EDITOR) and send it
  /compact      shorten what the model remembers
  /undo         put back what the last answer wrote
  /new          begin a new conversation
  /sessions     list the conversations that were kept; /open ID goes on with one
  /model NAME   choose another model; without a name, list them
  /think on|off|auto
  /quit         leave; the conversation is kept"""
_STOPPING = "Stopping …"


def chat_plainly(
    setup: Setup,
    *,
    session: str | None = None,
    message: str = "",
    source: TextIO | None = None,
    out: TextIO | None = None,
    make_engine: Callable[[Setup], Engine] | None = None,
    keep_rule: Callable[[Rule], object] = lambda rule: None,
) -> None:
    """Talk until /quit or the end of the input.

    Args:
        setup: what the agent is made of; without a model, the person is asked which.
        session: id of one to go on with.
        message: said first.
        source, out: by default standard input and output.
        make_engine: loads a model; by default as the setup says.
        keep_rule: writes the rule of an "always" into the settings; it may raise SprigError.

    Raises:
        SprigError: the model cannot be used, or none is there.
    """
    from agent.sessions.store import Store

    with Store.or_unkept(lambda why: print(f"sprig: {display(why)}", file=out or sys.stdout, flush=True)) as store:
        chat = PlainChat(store, source or sys.stdin, out or sys.stdout, make_engine, keep_rule)
        try:
            chat.run(setup, session, message)
        finally:
            chat.talk.close()


class PlainChat:
    """One person at one terminal."""

    def __init__(
        self,
        store: Store,
        source: TextIO,
        out: TextIO,
        make_engine: Callable[[Setup], Engine] | None,
        keep_rule: Callable[[Rule], object],
    ) -> None:
        self._store, self._source, self._out, self._keep_rule = store, source, out, keep_rule
        self._notes: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.talk = Talk(self._notes.put, lambda: store, make_engine)
        self._setup: Setup
        self._entries: Sequence[Entry] = ()
        self._session = ""
        self._lines = EventLines(self._write, lambda text: self._write(f"{text}\n"))
        self._say = self._lines.say

    def run(self, setup: Setup, session: str | None, message: str) -> None:
        self._setup = setup if setup.model else replace(setup, model=self._choose())
        self._open()
        if session is not None:
            self._load(session)
            self._tell_last()
        for text in self._messages(message):
            self._one(text)

    def _messages(self, first: str) -> Iterator[str]:
        if first:
            yield first
        while (text := self._read("> ")) is not None:
            if text.strip():
                yield text

    def _read(self, prompt: str) -> str | None:
        """What a person writes, or None at the end of the input."""
        lines: list[str] = []
        while True:
            if self._source.isatty():
                self._write(prompt if not lines else ". ")
            try:
                line = self._source.readline()
            except KeyboardInterrupt:
                self._lines.end_line()
                return None
            if not line:
                return "\n".join(lines) if lines else None
            line = line.rstrip("\r\n")
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    def _one(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        if not word.startswith("/") or "\n" in word or word.count("/") > 1:
            self._run(lambda: self.talk.ask(text))
            return
        commands = {
            "/again": self._again, "/edit": self._edit, "/editor": self._editor, "/compact": self._compact,
            "/undo": self._undo, "/new": self._new, "/sessions": self._sessions,
            "/open": self._open_session, "/model": self._model, "/think": self._think,
        }  # fmt: skip
        if word in ("/quit", "/exit"):
            raise SystemExit(0)
        if word not in commands:
            self._say(_HELP if word == "/help" else f"There is no command {display(word)}; /help lists them.")
            return
        try:
            commands[word](rest.strip())
        except SprigError as error:
            self._say(f"sprig: {display(str(error))}")

    # Commands.

    def _again(self, rest: str) -> None:
        last = question_before(self._entries, self._entries[-1].id) if self._entries else None
        if last is None:
            raise SprigError("there is nothing to answer yet")
        self._run(lambda: self.talk.again(last.id))

    def _edit(self, rest: str) -> None:
        mine = [entry for entry in self._entries if entry.mine]
        if not mine or not rest:
            raise SprigError("/edit needs a message of yours that was sent, and what to say instead")
        self._run(lambda: self.talk.edit(mine[-1].stored.parent, rest))

    def _editor(self, rest: str) -> None:
        from tui.prompt.editor import edited

        if not self._source.isatty():
            raise SprigError("an editor needs a terminal")
        if text := edited(rest):
            self._say(text)
            self._run(lambda: self.talk.ask(text))

    def _compact(self, rest: str) -> None:
        self.talk.compact()
        while not isinstance(note := self._notes.get(), e.Compacted | n.Failed):
            self._show(note)
        if isinstance(note, n.Failed):
            raise SprigError(note.why)
        self._say(f"{note.what} ({note.tokens_before} tokens became {note.tokens_after}).")

    def _undo(self, rest: str) -> None:
        from agent.tools.builtin.undo import in_words, undo

        if not self._session:
            raise SprigError("this conversation has no message yet")
        self._say(display(in_words(undo(self._session)), lines=True))

    def _new(self, rest: str) -> None:
        self._load(None)
        self._say("A new conversation.")

    def _sessions(self, rest: str) -> None:
        found = self._store.sessions(limit=20, query=rest or None)
        for info in found:
            self._say(f"{info.id}  {display(info.title or 'without a title')} ({info.messages} messages)")
        if not found:
            self._say("No conversation is kept yet." if not rest else "None is called so.")

    def _open_session(self, rest: str) -> None:
        self._load(self._store.open(rest).id)
        self._tell_last()

    def _model(self, rest: str) -> None:
        from agent.models.find import find_model

        self._setup = self._setup.on(str(find_model(rest)) if rest else self._choose())
        self._open()

    def _think(self, rest: str) -> None:
        values = {"on": True, "off": False, "auto": None}
        if rest not in values:
            raise SprigError("/think is on, off or auto")
        self._setup = replace(self._setup, thinking=values[rest])
        self._open()

    def _choose(self) -> str:
        """Ask which model; SprigError when there is none, or nobody answers."""
        from agent.files import human_size
        from agent.models.choices import list_models
        from agent.models.demo import HOW_TO_GET

        found = list_models()
        usable = [m for m in found if m.fits]
        if not usable:
            raise SprigError(f"there is no model that fits; make one with `sprig quantize`, or take the demo model: {HOW_TO_GET}")
        for i, model in enumerate(usable, 1):
            self._say(f"{i}. {display(model.name)}, {human_size(model.size)}, {display(model.type)}, context {model.context}")
        while (reply := self._read(f"Which model, 1 to {len(usable)}? ")) is not None:
            if reply.strip().isdecimal() and 1 <= int(reply) <= len(usable):
                return str(usable[int(reply) - 1].path)
            self._say(f"Please answer with a number from 1 to {len(usable)}.")
        raise SprigError("no model was chosen")

    def _open(self) -> None:
        self._say("Loading the model …")
        self.talk.open(self._setup)
        while not isinstance(note := self._notes.get(), n.Opened | n.OpenFailed):
            pass
        if isinstance(note, n.OpenFailed):
            raise SprigError(note.why)
        facts = note.facts
        self._setup = note.setup
        tools = ", ".join(t.name for t in facts.tools) or "none"
        self._say(f"{display(facts.name)} {display(facts.type)}, context {facts.context} tokens. Tools: {display(tools)}.")
        if facts.small:
            self._say("A model this small does without tools; --tool NAME gives it some.")
        self._say("/help lists what can be said with a slash.")
        for problem in facts.problems:
            self._say(f"sprig: {display(problem)}")

    # A run.

    def _run(self, begin: Callable[[], None]) -> None:
        self._lines.begin()
        with _on_ctrl_c(self._stop):
            begin()
            while True:
                note = self._notes.get()
                if isinstance(note, n.Settled):
                    self._entries, self._session = note.entries, note.session
                    self._lines.end_line()
                    return
                self._show(note)

    def _stop(self) -> None:
        """Ctrl+C, wherever it finds us: the notes that follow say how it ended."""
        self._notes.put(_STOPPING)
        self.talk.stop()

    def _show(self, note: Any) -> None:
        match note:
            case str(own):
                self._lines.say(own)
            case n.Failed(text) | n.NotAsked(_, text):
                self._lines.say(f"sprig: {display(text)}")
            case e.Done(result) if result.reason not in ("done", "error"):
                self._lines.say(f"sprig: {display(unfinished(result))}")
            case n.Question(number, request):
                self._ask(number, request)
            case n.ToolsNow(what=e.ToolsChanged() as what):
                self._lines.show(what)
            case n.Shown(session, _, entries, _):
                self._entries, self._session = entries, session
            case _:
                self._lines.show(note)

    def _ask(self, number: int, request: Any) -> None:
        """A person's word about a call."""
        from agent.approval.policy import Answer

        if not self._source.isatty():
            why = display(request.decision.reason)
            self._say(f"{display(request.tool.name)} is not allowed ({why}): nobody is at the terminal to ask.")
            self.talk.answer(number, Answer.no(f"nobody is there to ask ({why})"))
            return
        forget_typed(self._source)
        with _on_ctrl_c(None):
            decided = ask_in_lines(request, self._say, self._read)
        if decided is None:
            self._stop()
            return
        answer, rule = decided
        self.talk.answer(number, answer, rule)
        if rule is not None:
            try:
                self._keep_rule(rule)
            except SprigError as error:
                self._say(f"This holds until you leave, but was not written: {display(str(error))}")

    # Lines.

    def _tell_last(self) -> None:
        for entry in self._entries[-2:]:
            who = "You" if entry.mine else "Model"
            self._say(f"{who}: {display(entry.stored.message.text, lines=True)[:2000]}")

    def _load(self, session: str | None) -> None:
        self.talk.load(session)
        note = None
        while not isinstance(note, n.Shown | n.Failed):
            note = self._notes.get()
            self._show(note)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


@contextlib.contextmanager
def _on_ctrl_c(do: Callable[[], None] | None) -> Iterator[None]:
    """What Ctrl+C does meanwhile; None: it raises KeyboardInterrupt, as everywhere."""
    if threading.current_thread() is not threading.main_thread():  # no signals there
        yield
        return
    handler = signal.default_int_handler if do is None else lambda number, frame: do()
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
