"""What one run of an agent may use."""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import SprigError

_ROOM = 0.25  # of the context that an answer may count on
_LEAST_ROOM = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a run; what is reached first ends it, and ``Result.reason`` says which.

    Attributes:
        rounds: answers of the model; each may call tools.
        tokens: generated in one answer.
        seconds: for the whole run, tools included; None for no limit.
        repeats: how often the very same call may give the very same result.
        result: characters of a tool's result that the model gets to see, at most; less where the context is nearly full.
    """

    rounds: int = 20
    tokens: int = 2048
    seconds: float | None = None
    repeats: int = 3
    result: int = 20_000

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("tokens", 1), ("repeats", 1), ("result", 100)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise SprigError(f"limits: {name} is {value!r} and must be a whole number, at least {least}")
        if self.seconds is not None and (not isinstance(self.seconds, int | float) or not self.seconds > 0):
            raise SprigError(f"limits: seconds is {self.seconds!r} and must be a positive number, or None")

    def room(self, context: int) -> int:
        """Tokens of a context of so many that are left to the answer."""
        return min(self.tokens, max(_LEAST_ROOM, int(context * _ROOM)))
