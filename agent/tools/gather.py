"""Tools that give their result piece by piece: a generator's items, or any iterator's, become one result of bounded size."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from agent.tools.result import MAX_TEXT, ToolResult, cap, jsonable

_MAX_ITEMS = 100_000


class Gathered:
    """What an iterator has given so far.

    Texts become one text: each a line of its own, unless they bring their own line breaks. Anything else becomes a list.

    Attributes:
        begun: whether the function gave an iterator at all.
    """

    def __init__(self) -> None:
        self.begun = False
        self._items: list[Any] = []
        self._size = 0

    def begin(self, value: Any) -> Any:
        """The same value; of an async iterator, a coroutine that gives its result."""
        if not isinstance(value, AsyncIterator):
            return value
        self.begun = True
        return self._all_later(value)

    def finish(self, value: Any, stopped: Callable[[], bool] = lambda: False) -> Any:
        """The same value; of an iterator, the result that its items make. It is closed when no more of it is wanted."""
        if not isinstance(value, Iterator):
            return value
        self.begun = True
        try:
            for item in value:
                if self._take(item) or stopped():
                    return self.result("the tool has more to say")
        finally:
            close = getattr(value, "close", None)
            if close is not None:
                close()
        return self.result()

    async def _all_later(self, value: AsyncIterator[Any]) -> ToolResult:
        try:
            async for item in value:
                if self._take(item):
                    return self.result("the tool has more to say")
        finally:
            close = getattr(value, "aclose", None)
            if close is not None:
                await close()
        return self.result()

    def _take(self, item: Any) -> bool:
        """Keep an item; whether there is no room for more."""
        item = item if isinstance(item, str) else jsonable(item)
        self._items.append(item)
        self._size += 1 + len(item if isinstance(item, str) else json.dumps(item))
        return self._size > MAX_TEXT or len(self._items) >= _MAX_ITEMS

    def result(self, missing: str = "") -> ToolResult:
        """The result of what there is; ``missing`` says why that is not all."""
        items = list(self._items)
        data = None
        if items and all(isinstance(item, str) for item in items):
            text = ("" if any(item.endswith("\n") for item in items) else "\n").join(items)
        else:
            data = items
            text = json.dumps(items, ensure_ascii=False, separators=(",", ":"))
        note = f"\n[... {missing} ...]" if missing else ""
        text, cut = cap(text, MAX_TEXT - len(note))
        return ToolResult(True, text + note, data=data, cut=cut)
