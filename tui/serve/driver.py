"""The app's side of a served page: Textual's WebDriver, whose page may go and another come while the app runs."""

from __future__ import annotations

import os
from functools import partial
from threading import Lock
from typing import Any

from textual import events, messages
from textual.drivers.web_driver import WebDriver

# What a terminal must be told before an app draws: other screen, mouse, no cursor of its own, marked pastes.
_MODES = "\x1b[?1049h\x1b[?1000h\x1b[?1003h\x1b[?1015h\x1b[?1006h\x1b[?25l\x1b[?2004h"


class ServedDriver(WebDriver):
    """Used when TEXTUAL_DRIVER names it, as the server does for its child."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # The app draws in one thread and hands out files in another. Their packets must not run into each other.
        self._writing = Lock()
        self._write = partial(self._write_whole)

    def _write_whole(self, packet: bytes) -> int:
        with self._writing:
            left = memoryview(packet)
            while left:  # a signal may cut a write short
                left = left[os.write(self.fileno, left) :]
        return len(packet)

    def start_application_mode(self) -> None:
        super().start_application_mode()
        # WebDriver begins blurred. A page that is focused already says so too early, and its first keys would be lost.
        self._app.call_later(self._app.post_message, events.AppFocus())

    def run_input_thread(self) -> None:
        super().run_input_thread()
        if not self.exit_event.is_set():  # the server is gone, and nobody else can end this app
            self._app.post_message(messages.ExitApp())

    def on_meta(self, packet_type: str, payload: dict[str, object]) -> None:
        if packet_type == "redraw":
            self.write(_MODES)
            self._app.call_later(lambda: self._app.screen.refresh())
        else:
            super().on_meta(packet_type, payload)
