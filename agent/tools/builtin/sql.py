"""The tool that queries a SQLite file, read-only, in a process of its own."""

from __future__ import annotations

from agent.children import process
from agent.children.sandbox import ResourceLimits, Rules
from agent.tools.builtin.root import Root
from agent.tools.result import ToolContext, ToolResult, clean

SECONDS = 10.0


class SqlTool:
    """Queries the databases below one root."""

    def __init__(self, root: Root, seconds: float = SECONDS) -> None:
        self._root, self._seconds = root, seconds

    def query_sqlite(self, path: str, sql: str, context: ToolContext) -> ToolResult:
        """Read from a SQLite database with a SELECT. The tables: SELECT sql FROM sqlite_schema"""
        self._root.parts(path)
        rules = Rules(
            read=(str(self._root.path),), limits=ResourceLimits(memory=1 << 29, cpu=int(self._seconds) + 2, file_size=0)
        )
        payload = {"root": str(self._root.path), "path": path, "sql": sql, "seconds": self._seconds}
        answer = process.run_function(
            "agent.tools.builtin.sql_child:query", payload, rules, seconds=self._seconds + 5, cancelled=context.cancelled
        )
        lines = [" | ".join(map(_shown, answer["columns"])), *(" | ".join(map(_shown, row)) for row in answer["rows"])]
        if answer["more"]:
            lines.append(f"[more than {len(answer['rows'])} rows: use LIMIT, or count(*)]")
        elif not answer["rows"]:
            lines.append("[no rows]")
        return ToolResult(True, "\n".join(line for line in lines if line), data=answer)


def _shown(value: object) -> str:
    return "NULL" if value is None else clean(str(value)).replace("\n", " ")
