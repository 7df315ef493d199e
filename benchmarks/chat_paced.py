"""The chat itself, with a model that says 20 tokens a second and takes no time to think. The agent and the sessions are real.

    python -m benchmarks.chat_paced [SESSION]

On SIGUSR1 it writes how many widgets there are into the file that SPRIG_BENCH_NODES names.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agent.engine.handle import EndStep, Step, TextStep
from agent.events import Prefill
from benchmarks.chat_text import RATE, pieces
from tests.fixtures.fake_engine import FakeEngine
from tui.app import SprigApp
from tui.settings.values import ChatSettings
from tui.talk.setup import Setup


class PacedEngine(FakeEngine):
    """Goes on until it is stopped. Each piece is one token, and comes when it is due."""

    def generate(
        self, conversation: str, tokens: Sequence[int], *, cancelled: threading.Event | None = None, **job: Any
    ) -> Iterator[Step]:
        yield Prefill(len(tokens), len(tokens), 0)
        begun, count, stop = time.monotonic(), 0, cancelled or threading.Event()
        for count, piece in enumerate(pieces(), 1):
            if stop.wait(max(0.0, begun + count / RATE - time.monotonic())):
                break
            yield TextStep((ord(piece[0]),), piece)
        timing = {
            "prompt_tokens": len(tokens), "cached_tokens": 0, "generated_tokens": count, "forced_tokens": 0, "decodes": count,
            "prefill_seconds": 0.5, "decode_seconds": count / RATE, "first_token_seconds": 0.5, "cache_source": "",
        }  # fmt: skip
        yield EndStep("cancelled", "", timing, 1000, 1)


class CountedApp(SprigApp):
    """Tells how many widgets it has when it is asked to."""

    async def on_mount(self) -> None:
        import asyncio

        await super().on_mount()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._count)

    def _count(self) -> None:
        Path(os.environ["SPRIG_BENCH_NODES"]).write_text(str(len(list(self.screen.walk_children()))))


def main() -> None:
    session = sys.argv[1] if len(sys.argv) > 1 else None
    setup = Setup(model="paced", tools=(), max_tokens=1_000_000)
    CountedApp(ChatSettings(), setup, session=session, make_engine=lambda setup: PacedEngine(context=50_000_000)).run()


if __name__ == "__main__":
    main()
