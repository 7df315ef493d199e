"""The voice in the chat: what is heard is written into the prompt, as if it had been typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tui.status.status import VoiceState

if TYPE_CHECKING:
    from tui.screens.chat_view import ChatView


class ChatVoice:
    """What a ``tui.voice.key.VoiceKey`` sees of the chat."""

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
