"""A tool that yields: its items become one result, bounded in size and time, and what is not wanted any more is closed."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.tools.define import as_tool, tool
from agent.tools.result import MAX_TEXT, ToolContext


def lines() -> Iterator[str]:
    """Lines."""
    yield "bed 1: dry"
    yield "bed 2: wet"


async def later() -> AsyncIterator[str]:
    """Lines that take a while."""
    for line in lines():
        await asyncio.sleep(0.001)
        yield line


@pytest.mark.parametrize("function", [lines, later])
@pytest.mark.parametrize("isolate", [False, True])
def test_texts_are_lines(function: Any, isolate: bool) -> None:
    result = tool(isolate=isolate)(function).invoke({})
    assert (result.ok, result.text, result.data, result.cut) == (True, "bed 1: dry\nbed 2: wet", None, 0)


@pytest.mark.parametrize(
    ("value", "text", "data"),
    [
        (lambda: iter(["a\n", "b\n"]), "a\nb\n", None),
        (lambda: iter([]), "[]", []),
        (lambda: map(str, range(3)), "0\n1\n2", None),
        (lambda: (n * n for n in range(3)), "[0,1,4]", [0, 1, 4]),
        (lambda: iter(["a", 1, None]), '["a",1,null]', ["a", 1, None]),
        (lambda: iter([{"bed": 1}, {"bed": 2}]), '[{"bed":1},{"bed":2}]', [{"bed": 1}, {"bed": 2}]),
        (lambda: range(3), "[0,1,2]", [0, 1, 2]),
        (lambda: {"a": 1}.values(), "[1]", [1]),
        (lambda: {"a": 1}.keys(), '["a"]', ["a"]),
        (lambda: deque([1, 2]), "[1,2]", [1, 2]),
        (lambda: {"beds": (n for n in range(2))}, '{"beds":[0,1]}', {"beds": [0, 1]}),
        (lambda: sqlite3.connect(":memory:").execute("select 1, 'a'"), '[[1,"a"]]', [[1, "a"]]),
    ],
)  # fmt: skip
def test_iterators_of_all_kinds(value: Any, text: str, data: Any) -> None:
    def give() -> Any:
        return value()

    result = as_tool(give).invoke({})
    assert (result.ok, result.text, result.data) == (True, text, data)


def test_an_open_file_is_its_lines_and_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\ntwo\n")
    opened: list[Any] = []

    @tool
    def log() -> Any:
        opened.append(path.open())
        return opened[0]

    assert log.invoke({}).text == "one\ntwo\n"
    assert opened[0].closed


@pytest.mark.parametrize("kind", ["text", "numbers", "async"])
def test_a_flood_is_cut_and_closed(kind: str) -> None:
    closed = threading.Event()

    def text() -> Iterator[str]:
        try:
            while True:
                yield "word " * 100
        finally:
            closed.set()

    def numbers() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    async def flood() -> AsyncIterator[str]:
        try:
            while True:
                yield "word " * 100
        finally:
            closed.set()

    function: Any = {"text": text, "numbers": numbers, "async": flood}[kind]
    result = as_tool(function).invoke({})
    assert closed.is_set()
    assert result.ok
    assert len(result.text) <= MAX_TEXT
    assert result.text.endswith("\n[... the tool has more to say ...]")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_at_the_deadline_what_was_given_is_the_result(kind: str) -> None:
    closed = threading.Event()

    def sync(context: ToolContext) -> Iterator[str]:
        try:
            yield "first"
            context.cancelled.wait(20)
            yield "too late"
            yield "never"
        finally:
            closed.set()

    async def waiting() -> AsyncIterator[str]:
        try:
            yield "first"
            await asyncio.sleep(20)
        finally:
            closed.set()

    functions: dict[str, Any] = {"sync": sync, "async": waiting}
    began = time.monotonic()
    result = tool(timeout=0.2)(functions[kind]).invoke({})
    assert time.monotonic() - began < 5
    assert (result.ok, result.text) == (True, "first\n[... no more within 0.2 s ...]")
    assert closed.wait(5)


def test_a_generator_that_raises_or_is_cancelled() -> None:
    @tool
    def broken() -> Iterator[str]:
        yield "first"
        raise ValueError("the sensor is gone")

    assert broken.invoke({}).text == "ValueError: the sensor is gone"
    context = ToolContext()

    @tool
    def slow(context: ToolContext) -> Iterator[str]:
        yield "first"
        context.cancelled.wait(20)

    threading.Timer(0.1, context.cancelled.set).start()
    assert slow.invoke({}, context).text == "cancelled"


def test_a_result_within_a_call_is_json() -> None:
    @tool
    def pairs() -> Any:
        return zip("ab", [1, 2], strict=True)

    assert json.loads(pairs.invoke({}).text) == [["a", 1], ["b", 2]]
