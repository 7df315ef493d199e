"""HTML as text that a model can read: headings, lists, links' words and table rows; no scripts, styles or hidden parts."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_SKIPPED = frozenset({
    "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "canvas", "head", "select", "nav",
})  # fmt: skip
_BLOCKS = frozenset({
    "p", "div", "section", "article", "main", "header", "footer", "aside", "ul", "ol", "table", "tr", "blockquote", "pre", "form",
    "figure", "figcaption", "dl", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6", "li", "address", "details", "summary",
    "fieldset",
})  # fmt: skip
_VOID = frozenset({"br", "hr", "img", "input", "meta", "link", "area", "base", "col", "embed", "source", "track", "wbr"})
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0", re.IGNORECASE)
_PARAGRAPHS = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "table", "blockquote", "figure", "section", "article"})
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_KEPT_SPACE = "\ue000"  # a space within <pre>, until the others are folded
_MAX_TAG = 20_000  # characters; a picture written into a page's tag is no loss
MAX_DEPTH = 2000


def html_text(source: str, limit: int = 1_000_000) -> str:
    """The readable text of an HTML page, at most ``limit`` characters; its title comes first. Never raises on bad HTML."""
    parser = _TextParser(limit)
    try:
        parser.feed(_tame(source))
        parser.close()
    except (AssertionError, RecursionError):  # html.parser gives up on some broken declarations
        pass
    text = re.sub(r"[ \t\xa0]+", " ", "".join(parser.pieces))
    text = re.sub(r" ?\n ?", "\n", text).strip(" \n").replace(_KEPT_SPACE, " ")
    title = " ".join("".join(parser.title).split())
    if title and not text.startswith((title, f"# {title}")):
        text = f"{title}\n\n{text}"
    return text[:limit]


def _tame(source: str) -> str:
    """The source without comments, and with each ``<`` that no ``>`` follows before the next one made plain text.

    html.parser looks through the rest of the page again for each of those, so that a page of them would take hours.
    """
    first, *pieces = _COMMENT.sub("", source).split("<")
    tags = (f"<{p}" if 0 < p.find(">") < _MAX_TAG and p[0] not in " \n\t=" else f"&lt;{p}" for p in pieces)
    return first + "".join(tags)


class _TextParser(HTMLParser):
    def __init__(self, limit: int) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.title: list[str] = []
        self._room = limit
        self._in_title = False
        self._open: list[tuple[str, bool]] = []  # tag, whether it is left out
        self._preformatted = 0
        self._pending = 0  # line ends that come before the next words

    @property
    def _skipping(self) -> bool:
        return bool(self._open) and self._open[-1][1]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "title":
            self._in_title = True
        if tag in _VOID:
            if not self._skipping:
                self._void(tag, given)
            return
        hidden = tag in _SKIPPED or "hidden" in given or given.get("aria-hidden") == "true"
        hidden = hidden or bool(_HIDDEN.search(given.get("style") or ""))
        if tag == "body":
            self._open.clear()  # whatever the head left open
        if tag in ("li", "p", "tr", "td", "th", "dt", "dd", "option"):
            self._close_same(tag)
        if len(self._open) < MAX_DEPTH:
            self._open.append((tag, hidden or self._skipping))
        if self._skipping:
            return
        self._break(tag)
        if tag[0] == "h" and tag[1:].isdigit():
            self._write("#" * int(tag[1:]) + " ")
        elif tag == "li":
            self._write("- ")
        elif tag in ("td", "th"):
            self._write(" | ")
        elif tag == "pre":
            self._preformatted += 1

    def _void(self, tag: str, given: dict[str, str | None]) -> None:
        if tag in ("br", "hr"):
            self._pending = min(2, self._pending + 1)
        elif tag == "img" and given.get("alt"):
            self._write(f"[image: {given['alt']}]")

    def _close_same(self, tag: str) -> None:
        if self._open and self._open[-1][0] == tag:  # HTML lets these end without saying so
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if tag not in [name for name, _ in self._open[-50:]]:
            return
        skipped = self._skipping
        while self._open:
            name, skipped = self._open.pop()
            if name == tag:
                break
        if not skipped:
            self._break(tag)
        if tag == "pre" and self._preformatted:
            self._preformatted -= 1

    def handle_data(self, data: str) -> None:
        if self._in_title:
            if len(self.title) < 10:
                self.title.append(data[:300])
        elif not self._skipping:
            data = data.replace(_KEPT_SPACE, "")
            self._write(data.replace(" ", _KEPT_SPACE) if self._preformatted else re.sub(r"\s+", " ", data))

    def _break(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._pending = max(self._pending, 2 if tag in _PARAGRAPHS else 1)

    def _write(self, text: str) -> None:
        if self._room > 0 and (self._preformatted or text.strip() or not self._pending):
            text, self._pending = "\n" * self._pending + text, 0
            self.pieces.append(text[: self._room])
            self._room -= len(text)
