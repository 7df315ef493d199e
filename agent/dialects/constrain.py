"""What may come next in one answer of a model, and what must."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from agent.dialects.answer import answer_start
from agent.grammar.leaves import Literal
from agent.grammar.matcher import State

_LEAST = {2: 0x80, 3: 0x800, 4: 0x10000}  # the least code point that UTF-8 writes with so many bytes


class Constraint:
    """Where one answer stands. ``accepts`` only looks; ``commit`` moves on.

    Tokens are bytes: one may end within a character, which then counts as allowed as long as some allowed character begins so.
    A control token passes in free text and in thoughts, and elsewhere only where the dialect's own marks are expected.

    Attributes:
        enforce: whether anything is refused at all; without, phases are still told.
    """

    __slots__ = ("_close", "_inside", "_last", "_pending", "_restart", "_state", "enforce")

    def __init__(self, start: State, restart: State, close: str, inside: str, enforce: bool) -> None:
        self._state = start
        self._restart = restart
        self._close = close
        self._inside = inside
        self._pending = b""
        self._last: tuple[bytes, bool, tuple[State, bytes] | None] | None = None
        self.enforce = enforce

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Constraint:
        """A constraint at the beginning of an answer.

        Args:
            spec: what JSON can carry. ``dialect``: ``Dialect.to_dict()``. ``tools``: objects with ``name`` and ``parameters``.
                ``choice``: "auto" (words, calls or both), "required" (a call), "none" (no call), or the name of the tool to call.
                ``parallel``: whether several calls may come. ``thinking``: an object with ``open`` and ``close``, or None.
                ``started``: the prompt ends inside a thought. ``prefix``: what of the first call the prompt has written.
                ``schema``: JSON Schema of the whole answer, or None; with it, ``choice`` does not count. ``enforce``: whether
                anything is refused. Only ``dialect`` must be there.

        Raises:
            SchemaError: a schema cannot be used, or a tool must be called that is not there; one line.
        """
        start, restart = _starts(json.dumps(spec))
        close = spec["thinking"]["close"] if spec.get("thinking") else ""
        inside = "answer" if spec.get("schema") is not None else "call"
        return cls(start, restart, close, inside, bool(spec.get("enforce", True)))

    def accepts(self, piece: bytes, special: bool = False) -> bool:
        """Whether a token may come next.

        Args:
            piece: its bytes.
            special: it is a control token or one that a user defined.
        """
        if not self.enforce:
            return True
        found = self._try(piece, special)
        self._last = (piece, special, found)
        return found is not None

    def commit(self, piece: bytes, special: bool = False) -> None:
        """Take a token.

        Raises:
            ValueError: it may not come next.
        """
        last, self._last = self._last, None
        found = last[2] if last is not None and last[:2] == (piece, special) else self._try(piece, special)
        if found is not None:
            self._state, self._pending = found
        elif self.enforce:
            raise ValueError(f"the token {piece!r} may not come next")
        elif piece:
            # This is not a call any more: words may come, and calls after them.
            self._state, self._pending = self._restart, b""

    def _try(self, piece: bytes, special: bool) -> tuple[State, bytes] | None:
        rest = b""
        if self._pending:
            piece = self._pending + piece
        try:
            text = piece.decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return None
            text, rest = piece[: error.start].decode(), piece[error.start :]
        state = self._state.advance(text, special) if text else self._state
        if state is None or not piece:
            return None
        if rest and (special or not state.any_in(*_span(rest))):
            return None
        return state, rest

    def may_end(self) -> bool:
        """Whether the answer may be over here."""
        return not self.enforce or (self._state.complete and not self._pending)

    def forced(self) -> list[tuple[str, bool]]:
        """The text that must come next, in stretches: (text, whether the dialect wrote it). Empty where there is a choice."""
        if not self.enforce or self._pending:
            return []
        return self._state.forced()

    def next_chars(self) -> frozenset[str] | None:
        """The characters that may come next; None when they are too many to list, or within a character."""
        return None if self._pending or not self.enforce else self._state.next_chars()

    def after(self, text: str) -> Constraint:
        """The constraint as it will be after ``text``; this one stays as it is.

        Raises:
            ValueError: it may not come next.
        """
        state = None if self._pending else self._state.advance(text)
        if state is None:
            raise ValueError(f"the text {text!r} may not come next")
        return Constraint(state, self._restart, self._close, self._inside, self.enforce)

    def peek(self, text: str) -> frozenset[str] | None:
        """``next_chars`` after ``text``.

        Raises:
            ValueError: it may not come next.
        """
        return self.after(text).next_chars()

    @property
    def free(self) -> bool:
        """Whether every token passes that does not complete a forbidden mark or begin a wrong call."""
        return not self.enforce or any(leaf.loose for leaf, _, _ in self._state.threads)

    @property
    def phase(self) -> str:
        """What the answer is doing: "thinking", "text", "call", "answer" (a value by a schema), "done" (nothing may come)."""
        phases = {leaf.phase for leaf, _, _ in self._state.threads}
        if "text" in phases:
            return "text"
        if "thinking" in phases:
            return "thinking"
        return self._inside if phases else "done"

    def close_thinking(self) -> str:
        """The text that ends the thought now; empty when there is none, or when it is in the middle of a character."""
        if self._pending or self.phase != "thinking":
            return ""
        # However much of the end has been written by chance, a thread has it: no text of a thought leads past an end.
        return self._close[max(state for leaf, state, _ in self._state.threads if isinstance(leaf, Literal)) :]


@lru_cache(maxsize=8)
def _starts(text: str) -> tuple[State, State]:
    """Where an answer begins, and where it goes on when what was written fits nothing."""
    spec = json.loads(text)
    start = answer_start(spec)
    if spec.get("enforce", True):
        return start, start
    later = {**spec, "thinking": None, "started": False, "prefix": "", "schema": None}
    if later.get("choice") != "none":
        later["choice"] = "auto"
    return start, answer_start(later)


def _span(rest: bytes) -> tuple[int, int]:
    """The least and greatest code point of the characters that begin with these bytes, which Python takes for a beginning.

    Surrogates may be within: no leaf lets one through.
    """
    length = 2 if rest[0] < 0xE0 else 3 if rest[0] < 0xF0 else 4
    value = rest[0] & (0x7F >> length)
    for byte in rest[1:]:
        value = value << 6 | byte & 0x3F
    shift = 6 * (length - len(rest))
    return max(value << shift, _LEAST[length]), ((value + 1) << shift) - 1
