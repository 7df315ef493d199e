"""The voice key: what pressing it does, whatever engine there is, and how spoken words come into the prompt."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from agent.voice.engine import (
    WHY_NOT,
    Final,
    Level,
    Partial,
    Trouble,
    Voice,
    VoiceEvent,
    find_voice,
    one_line,
    why_of,
)
from tui.status.status import VoiceState

if TYPE_CHECKING:
    from tui.screens.chat_view import ChatView


class VoiceScreen(Protocol):
    """What a VoiceKey needs of the screen. All of it is called by way of ``post``; text is safe to show."""

    def post(self, call: Callable[[], None]) -> object:
        """Have something called soon in the screen's thread; from any thread, without waiting. ``App.call_later`` does it."""

    def voice_changed(self, state: VoiceState) -> None:
        """Show the state."""

    def voice_partial(self, text: str) -> None:
        """Put this where the last partial words are, or at the cursor when there are none. "" takes them away."""

    def voice_final(self, text: str) -> None:
        """Put this where the last partial words are, or at the cursor; it stays."""

    def voice_trouble(self, why: str) -> None:
        """Tell why it does not work."""


class ChatVoice:
    """What a VoiceKey sees of the chat: what is heard is written into the prompt, as if it had been typed."""

    def __init__(self, chat: ChatView) -> None:
        self._chat = chat
        self._before: str | None = None  # the prompt without the words that may still change
        self._shown = ""

    def post(self, call: Callable[[], None]) -> object:
        return self._chat.app.call_later(call)

    def voice_changed(self, state: VoiceState) -> None:
        self._chat.work.voice(state)
        self._chat.show_status()

    def voice_partial(self, text: str) -> None:
        self._write(text)

    def voice_final(self, text: str) -> None:
        self._write(text)
        self._before = None

    def voice_trouble(self, why: str) -> None:
        self._chat.tell(why, kind="warning")

    def _write(self, text: str) -> None:
        prompt = self._chat.prompt
        typed = ""
        if self._before is not None and prompt.text.startswith(self._shown):
            typed = prompt.text[len(self._shown) :]  # behind the words, while they came
        else:
            self._before = prompt.text
        space = " " if self._before and text and not self._before[-1].isspace() else ""
        self._shown = f"{self._before}{space}{text}"
        prompt.text = self._shown + typed


class VoiceKey:
    """One key: it begins listening, or ends it. Its methods belong to the screen's thread, and never wait."""

    def __init__(self, screen: VoiceScreen, find: Callable[[], Voice | None] = find_voice) -> None:
        """``find`` is called when a voice is first wanted, in another thread, and again each time until it has found one."""
        self.state = VoiceState()
        self._screen, self._find = screen, find
        self._voice: Voice | None = None
        self._ears = _Worker("voice input")
        self._turn = 0  # of listening; what belongs to an earlier one comes too late
        self._wanted = False  # whether it should listen
        self._open = False  # whether the engine does; belongs to the thread of the ears
        self._partial = ""

    def press(self) -> None:
        """The key was pressed."""
        if self._wanted:
            self._stop_listening()
        else:
            self._take_partial()
            self._turn += 1
            turn, self._wanted = self._turn, True
            self._set(VoiceState("starting"))
            self._ears.put(lambda: self._listen(turn))

    def settle(self) -> None:
        """The prompt is about to be sent: what was heard stays in it, listening ends, and no late word lands in the next one."""
        self._take_partial()
        self._stop_listening()
        self._turn += 1

    def close(self) -> None:
        """Let go of the microphone, for good."""
        self.settle()
        self._ears.close()

    # In the screen's thread.

    def _set(self, state: VoiceState) -> None:
        if state != self.state:
            self.state = state
            self._screen.voice_changed(state)

    def _take_partial(self) -> None:
        """Partial words that no Final followed are not lost."""
        if self._partial:
            text, self._partial = self._partial, ""
            self._screen.voice_final(text)

    def _stop_listening(self) -> None:
        if self._wanted:
            self._wanted = False
            self._set(VoiceState())
            self._ears.put(self._shut)

    def _began(self, turn: int) -> None:
        if turn == self._turn and self._wanted and self.state.kind == "starting":
            self._set(VoiceState("listening"))

    def _hear(self, turn: int, event: VoiceEvent) -> None:
        if turn != self._turn:
            return
        match event:
            case Partial(text):
                self._hear_partial(one_line(text))
            case Final(text):
                if words := one_line(text):
                    self._partial = ""
                    self._screen.voice_final(words)
                else:
                    self._hear_partial("")
            case Level(level):
                if self._wanted:
                    self._set(VoiceState("listening", round(max(0.0, min(1.0, level)), 1)))
            case Trouble(text):
                self._take_partial()
                self._stop_listening()
                self._screen.voice_trouble(one_line(text))

    def _hear_partial(self, text: str) -> None:
        if text != self._partial:
            self._partial = text
            self._screen.voice_partial(text)

    def _cannot_listen(self, turn: int, state: VoiceState, why: str) -> None:
        if turn == self._turn and self._wanted:
            self._wanted = False
            self._set(state)
            self._screen.voice_trouble(why)

    # In a thread of its own.

    def _listen(self, turn: int) -> None:
        state, why = VoiceState(), ""
        try:
            voice = self._voice = self._voice or self._find()
            if voice is None:
                state, why = VoiceState("missing"), WHY_NOT
            elif turn == self._turn and self._wanted:  # nobody has changed their mind meanwhile
                self._open = True
                voice.input.start(lambda event: self._post(lambda: self._hear(turn, event)))
        except Exception as e:  # an engine may fail in any way, and the chat goes on
            why = why_of(e)
            self._shut()
        if why:
            self._post(lambda: self._cannot_listen(turn, state, why))
        else:
            self._post(lambda: self._began(turn))

    def _shut(self) -> None:
        if self._open and self._voice is not None:
            self._open = False
            with contextlib.suppress(Exception):  # it is given up anyway
                self._voice.input.stop()

    def _post(self, call: Callable[[], None]) -> None:
        self._screen.post(call)


class _Worker:
    """Does one thing after another in a thread of its own, which begins with the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def close(self) -> None:
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
