"""The tool that fetches a page, in a process of its own that may reach the network and no file of the user."""

from __future__ import annotations

from agent.children import process
from agent.children.sandbox import ResourceLimits, Rules
from agent.tools.result import MAX_TEXT, ToolContext, ToolResult, cap, clean

SECONDS = 20.0


class WebTool:
    """Fetches pages. ``allow_private`` also from this machine and from private networks."""

    def __init__(self, *, allow_private: bool = False, seconds: float = SECONDS) -> None:
        self._allow_private, self._seconds = allow_private, seconds

    def fetch_url(self, url: str, context: ToolContext) -> ToolResult:
        """Get a web page as text."""
        rules = Rules(network=True, limits=ResourceLimits(memory=1 << 29, cpu=15, file_size=0))
        payload = {"url": url.strip(), "seconds": self._seconds, "allow_private": self._allow_private}
        page = process.run_function(
            "agent.tools.builtin.fetch_child:fetch", payload, rules, seconds=self._seconds + 5, cancelled=context.cancelled
        )
        text, cut = cap(clean(page["text"]), MAX_TEXT)
        notes = []
        if page["url"] != url.strip():
            notes.append(f"[from {clean(page['url'])}]")
        if page["status"] >= 400:
            notes.append(f"[HTTP status {page['status']}]")
        tail = ["[the page goes on; this is what could be taken]"] if page["cut"] else []
        whole = "\n".join([*notes, text or "[the page has no text]", *tail])
        return ToolResult(page["status"] < 400, whole, data={k: page[k] for k in ("url", "status", "kind")}, cut=cut)
