"""What the voice does just now, as the status line shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class VoiceState:
    """What the voice does.

    Attributes:
        kind: "off"; "missing" when there is no engine; "starting" while it gets ready; "listening"; "speaking".
        level: how loud it is while listening, from 0 to 1; None when the engine does not say.
    """

    kind: Literal["off", "missing", "starting", "listening", "speaking"] = "off"
    level: float | None = None
