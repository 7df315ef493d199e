"""The styles of calls, by name. Each is one file, which holds how its calls are written, read, constrained and probed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from agent.dialects.base import Dialect, StyleName
from agent.dialects.reading import Reading
from agent.dialects.seen import Seen
from agent.dialects.stream import Wait
from agent.dialects.styles import gemma, json, named, python, tagged
from agent.grammar.nodes import Node
from agent.messages import Segment, ToolCall


class Style(Protocol):
    """What the file of a style has. A call is: the head, the name of the tool, and what is behind the name."""

    def head(self, dialect: Dialect) -> str:
        """The text before the name; it may have holes for the call's number."""

    def name(self, name: str) -> str:
        """The name as it is written behind the head."""

    def write(self, dialect: Dialect, call: ToolCall, number: int) -> Iterator[Segment]:
        """What is behind the name, of the call ``number`` (from 0) of an answer."""

    def nodes(self, dialect: Dialect, name: str, parameters: Any) -> Iterator[Node]:
        """What may be behind the name, for a tool with these parameters."""

    def read(self, reading: Reading) -> Wait[bool]:
        """Read one call, from its head on; False, and nothing is taken, when it does not begin like one of this style."""

    def probe(self, seen: Seen) -> Dialect | None:
        """The description of rendered calls; None when they are not of this style."""


STYLES: dict[StyleName, Style] = {"json": json, "named": named, "tagged": tagged, "python": python, "gemma": gemma}
