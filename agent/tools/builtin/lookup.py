"""The tools that only look something up, each in a confined process of its own: a page of the web, rows of a database."""

from __future__ import annotations

import threading
from typing import Any

from agent.children import process
from agent.children.rules import ResourceLimits, Rules
from agent.tools.builtin.root import Root
from agent.tools.result import MAX_TEXT, ToolContext, ToolResult, cap, clean

_FETCH_SECONDS, _SQL_SECONDS = 20.0, 10.0


def ask_child(
    function: str, job: dict[str, Any], root: Root | None, *, seconds: float, cpu: int, cancelled: threading.Event
) -> Any:
    """What ``module:function`` of this folder answers. It reads below ``root``, or else reaches the network, and writes nothing.

    Args:
        job: its argument, JSON values; the root is added.
        seconds, cpu: that it may take, by the clock and of the processor.

    Raises:
        ProcessError: it failed or took too long; the message is for the model.
    """
    below = "" if root is None else str(root.path)
    rules = Rules(read=(below,) if below else (), network=not below, limits=ResourceLimits(memory=1 << 29, cpu=cpu, file_size=0))
    payload = {**job, "root": below}
    return process.run_function(f"agent.tools.builtin.{function}", payload, rules, seconds=seconds, cancelled=cancelled)


class WebTool:
    """Fetches pages. ``allow_private`` also from this machine and from private networks."""

    def __init__(self, *, allow_private: bool = False) -> None:
        self._allow_private = allow_private

    def fetch_url(self, url: str, context: ToolContext) -> ToolResult:
        """Get a web page as text."""
        job = {"url": url.strip(), "seconds": _FETCH_SECONDS, "allow_private": self._allow_private}
        page = ask_child("fetch_child:fetch", job, None, seconds=_FETCH_SECONDS + 5, cpu=15, cancelled=context.cancelled)
        text, cut = cap(clean(page["text"]), MAX_TEXT)
        notes = []
        if page["url"] != url.strip():
            notes.append(f"[from {clean(page['url'])}]")
        if page["status"] >= 400:
            notes.append(f"[HTTP status {page['status']}]")
        tail = ["[the page goes on; this is what could be taken]"] if page["cut"] else []
        whole = "\n".join([*notes, text or "[the page has no text]", *tail])
        return ToolResult(page["status"] < 400, whole, data={k: page[k] for k in ("url", "status", "kind")}, cut=cut)


class SqlTool:
    """Queries the databases below one root."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def query_sqlite(self, path: str, sql: str, context: ToolContext) -> ToolResult:
        """Read from a SQLite database with a SELECT. The tables: SELECT sql FROM sqlite_schema"""
        self._root.parts(path)
        job = {"path": path, "sql": sql, "seconds": _SQL_SECONDS}
        answer = ask_child(
            "sql_child:query", job, self._root, seconds=_SQL_SECONDS + 5, cpu=int(_SQL_SECONDS) + 2, cancelled=context.cancelled
        )
        lines = [" | ".join(map(_shown, answer["columns"])), *(" | ".join(map(_shown, row)) for row in answer["rows"])]
        if answer["more"]:
            lines.append(f"[more than {len(answer['rows'])} rows: use LIMIT, or count(*)]")
        elif not answer["rows"]:
            lines.append("[no rows]")
        return ToolResult(True, "\n".join(line for line in lines if line), data=answer)


def _shown(value: object) -> str:
    return "NULL" if value is None else clean(str(value)).replace("\n", " ")
