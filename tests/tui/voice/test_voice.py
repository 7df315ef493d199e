"""A person presses the voice key: whatever engine there is, it works the same way."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from agent.errors import SprigError
from agent.voice.engine import (
    WHY_NOT,
    Final,
    Level,
    Partial,
    Trouble,
    Voice,
    VoiceEvent,
)
from tui.status.status import VoiceState
from tui.voice.key import VoiceKey

SOON = 10.0  # seconds after which a test gives up


class FakeVoice:
    """The ears of a machine; a test speaks to it."""

    def __init__(self) -> None:
        self.listening = threading.Event()
        self.ready = threading.Event()  # whether the microphone opens
        self.ready.set()
        self.tell: Callable[[VoiceEvent], None] = lambda event: None
        self.starts = 0
        self.fault: Exception | None = None
        self.ears = FakeEars(self)


class FakeEars:
    def __init__(self, voice: FakeVoice) -> None:
        self.voice = voice

    def start(self, tell: Callable[[VoiceEvent], None]) -> None:
        self.voice.starts += 1
        assert self.voice.ready.wait(SOON)
        if self.voice.fault is not None:
            raise self.voice.fault
        self.voice.tell = tell
        self.voice.listening.set()

    def stop(self) -> None:
        self.voice.listening.clear()


class FakeScreen:
    """A prompt with the partial words at its end, and a thread that is the test's."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Callable[[], None]] = queue.Queue()
        self.states: list[VoiceState] = []
        self.typed, self.partial = "", ""
        self.troubles: list[str] = []

    def post(self, call: Callable[[], None]) -> None:
        self.calls.put(call)

    def voice_changed(self, state: VoiceState) -> None:
        self.states.append(state)

    def voice_partial(self, text: str) -> None:
        self.partial = text

    def voice_final(self, text: str) -> None:
        self.typed, self.partial = f"{self.typed} {text}".strip(), ""

    def voice_trouble(self, why: str) -> None:
        self.troubles.append(why)

    def until(self, true: Callable[[], bool]) -> None:
        """Do what is posted until something is true."""
        end = time.monotonic() + SOON
        while not true():
            assert time.monotonic() < end
            try:
                self.calls.get(timeout=0.01)()
            except queue.Empty:
                continue


class Desk:
    """A person, a screen and an engine."""

    def __init__(self, find: Callable[[], Voice | None] | None = None) -> None:
        self.engine, self.screen = FakeVoice(), FakeScreen()
        self.key = VoiceKey(self.screen, find or (lambda: Voice("fake", self.engine.ears)))

    def listen(self) -> None:
        self.key.press()
        self.until("listening")
        assert self.engine.listening.is_set()

    def until(self, kind: str) -> None:
        self.screen.until(lambda: self.key.state.kind == kind)

    def hear(self, *events: VoiceEvent) -> None:
        for event in events:
            self.engine.tell(event)
        while not self.screen.calls.empty():
            self.screen.calls.get()()

    def until_deaf(self) -> None:
        self.screen.until(lambda: not self.engine.listening.is_set())


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.key.close()


def test_words_come_into_the_prompt_while_they_are_spoken(desk: Desk) -> None:
    desk.listen()
    desk.hear(Partial("turn"), Partial("turn on"))
    assert (desk.screen.typed, desk.screen.partial) == ("", "turn on")
    desk.hear(Final("Turn on the lamp."), Partial("and"))
    assert (desk.screen.typed, desk.screen.partial) == ("Turn on the lamp.", "and")
    desk.key.press()
    assert desk.key.state == VoiceState("off")
    desk.until_deaf()
    desk.hear(Final("And the fan."))  # the engine needed a moment for the last words
    assert (desk.screen.typed, desk.screen.partial) == ("Turn on the lamp. And the fan.", "")
    assert [s.kind for s in desk.screen.states] == ["starting", "listening", "off"]


def test_partial_words_that_come_to_nothing_go_away(desk: Desk) -> None:
    desk.listen()
    desk.hear(Partial("hm"), Final("  "))
    assert (desk.screen.typed, desk.screen.partial) == ("", "")


def test_sending_the_prompt_keeps_what_was_heard_and_no_late_word_lands_in_the_next(desk: Desk) -> None:
    desk.listen()
    desk.hear(Partial("what time is it"))
    desk.key.settle()
    assert (desk.screen.typed, desk.screen.partial) == ("what time is it", "")
    assert desk.key.state == VoiceState("off")
    desk.until_deaf()
    desk.hear(Final("What time is it?"))
    assert desk.screen.typed == "what time is it"


def test_words_of_an_earlier_turn_do_not_disturb_the_next(desk: Desk) -> None:
    desk.listen()
    desk.hear(Partial("one"))
    old = desk.engine.tell
    desk.key.press()
    desk.listen()
    assert desk.screen.typed == "one"
    old(Final("late"))
    desk.hear(Final("two"))
    assert desk.screen.typed == "one two"


def test_the_level_is_shown_while_it_listens(desk: Desk) -> None:
    desk.listen()
    desk.hear(Level(0.44), Level(7.0))
    assert desk.screen.states[-2:] == [VoiceState("listening", 0.4), VoiceState("listening", 1.0)]
    desk.key.press()
    desk.hear(Level(0.5))
    assert desk.key.state == VoiceState("off")


def test_a_lost_microphone_ends_it_and_says_so(desk: Desk) -> None:
    desk.listen()
    desk.hear(Partial("hello"), Trouble("the microphone\x1b[2J is gone"))
    assert desk.screen.troubles == ["the microphone␛[2J is gone"]
    assert desk.screen.typed == "hello"
    assert desk.key.state == VoiceState("off")
    desk.until_deaf()
    desk.listen()  # and it can be tried again


def test_what_an_engine_hears_cannot_command_the_terminal(desk: Desk) -> None:
    desk.listen()
    desk.hear(Partial("a\x1b]52;c;x\x07"))
    assert desk.screen.partial == "a␛]52;c;x␇"
    desk.hear(Final("rm\n-rf\u202e"))
    assert desk.screen.typed == "rm -rf<U+202E>"


def test_a_key_press_never_waits_for_an_engine_and_can_be_taken_back(desk: Desk) -> None:
    desk.engine.ready.clear()
    began = time.monotonic()
    desk.key.press()
    assert time.monotonic() - began < 0.5
    assert desk.key.state == VoiceState("starting")
    desk.screen.until(lambda: desk.engine.starts == 1)
    desk.key.press()
    assert desk.key.state == VoiceState("off")
    desk.engine.ready.set()
    desk.listen()
    assert [s.kind for s in desk.screen.states] == ["starting", "off", "starting", "listening"]


def test_an_engine_that_cannot_listen_says_why() -> None:
    desk = Desk()
    desk.engine.fault = SprigError("the microphone is in use by another app: close it")
    desk.key.press()
    desk.until("off")
    assert desk.screen.troubles == ["the microphone is in use by another app: close it"]
    desk.engine.fault = OSError("device\nbusy")
    desk.key.press()
    desk.until("off")
    assert desk.screen.troubles[1] == "the voice engine failed (OSError: device busy)"
    desk.engine.fault = None
    desk.listen()
    desk.key.close()
    desk.until_deaf()


def test_without_an_engine_the_key_says_what_is_missing_and_looks_again_next_time() -> None:
    found: list[Voice] = []
    desk = Desk(lambda: found[0] if found else None)
    desk.key.press()
    desk.until("missing")
    assert desk.screen.troubles == [WHY_NOT]
    found.append(Voice("new", desk.engine.ears))
    desk.listen()
    desk.key.close()


def test_closing_lets_the_microphone_go(desk: Desk) -> None:
    desk.listen()
    desk.key.close()
    desk.until_deaf()
    assert desk.key.state == VoiceState("off")
