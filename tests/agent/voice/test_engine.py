"""How a voice engine is found among what is installed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable

import pytest

from agent.voice.engine import GROUP, Voice, VoiceError, VoiceEvent, find_voice


class Ears:
    """A microphone that nobody speaks into."""

    def start(self, tell: Callable[[VoiceEvent], None]) -> None: ...
    def stop(self) -> None: ...


def make_voice() -> Voice:
    return Voice("made", Ears())


def make_nothing() -> str:
    return "not a voice"


def make_trouble() -> Voice:
    raise RuntimeError("no audio\x1b[31m\nlibrary")


def install(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    found = [importlib.metadata.EntryPoint(name, f"{__name__}:{value}", GROUP) for name, value in points.items()]

    def entry_points(*, group: str) -> list[importlib.metadata.EntryPoint]:
        return found if group == GROUP else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


def test_with_nothing_installed_there_is_no_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    assert find_voice() is None


def test_the_first_engine_that_works_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, c="make_voice", a="make_trouble", b="make_nothing")
    voice = find_voice()
    assert voice is not None
    assert voice.name == "made"


def test_engines_that_do_not_work_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, b="make_trouble", a="make_nothing", c="not_there")
    with pytest.raises(VoiceError) as caught:
        find_voice()
    assert "a (it gave no voice), b (" in str(caught.value)
    assert "RuntimeError: no audio␛[31m library" in str(caught.value)
    assert "c (" in str(caught.value)
    assert str(caught.value).isprintable()
