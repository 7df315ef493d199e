"""What a model wrote, as Markdown, while it is written and after. One widget for a whole text, painted row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style as VisualStyle
from textual.widget import Widget

if TYPE_CHECKING:
    from tui.markdown.document import Document
    from tui.markdown.rows import RowPiece

_PARTS = (
    "strong", "em", "strike", "inline", "link", "href", "h1", "h2", "h3", "sign", "bar", "marker", "rule", "edge", "head",
    "fence", "title", "copy", "comment", "keyword", "string", "number", "function", "builtin", "inserted", "deleted",
)  # fmt: skip
_MAX_STRIPS = 1_000
# Each new height makes Textual lay out the whole screen: while text streams in, the widget grows by this many rows more.
_ROOM = 3
_SELECTED = "/selected"  # stands for the style of selected text among the names of a piece
_META = "answer"  # the key of what a click on a segment does


class AnswerText(Widget):
    """Markdown from a model: untrusted, shown as it is, with its links' addresses."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"answer-text--{part}" for part in _PARTS}
    ALLOW_SELECT = True

    @dataclass
    class CopyCode(Message):
        """Somebody clicked on the head of a code block."""

        text: str

    @dataclass
    class LinkClicked(Message):
        """Somebody clicked on a link. Nothing was opened."""

        href: str

    def __init__(self, source: str = "", *, streaming: bool = False) -> None:
        super().__init__()
        # Textual would repaint the widget at each move of the mouse to look for links of its own kind.
        self.set_reactive(Widget.auto_links, False)
        self._parts = [source]
        self._document = _document(source, whole=not streaming)
        self._streaming = streaming
        self._styles_by_name: dict[str, Style] = {}
        self._strips: dict[int, Strip] = {}  # rows as painted, at this width
        self._painted_width = 0
        self._reserved = 0  # rows that the widget has on the screen
        self._end = 0  # rows that were painted

    @property
    def source(self) -> str:
        """The Markdown as it came."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0]

    @property
    def code_blocks(self) -> list[tuple[str, str]]:
        """(language or "", text) of each code block, in order."""
        return [(leaf.language, leaf.code()) for leaf in self._document.leaves if leaf.kind in ("fence", "code")]

    def append(self, text: str) -> None:
        """Add more of the text. Cheap: what is finished is not parsed again. After ``finish`` the text opens again."""
        if not text:
            return
        self._parts.append(text)
        if not self._streaming:
            self._reset(self.source, streaming=True)
            return
        self._show(self._document.append(text))

    def replace(self, text: str) -> None:
        """Another text instead; it streams on if this one did."""
        self._parts = [text]
        self._reset(text, streaming=self._streaming)

    def finish(self) -> None:
        """Nothing more comes: what waited for its next character is decided."""
        if self._streaming:
            self._streaming = False
            self._show(self._document.finish())

    def _reset(self, source: str, *, streaming: bool) -> None:
        self._document, self._streaming = _document(source, whole=not streaming), streaming
        self._strips.clear()
        self._painted_width = 0
        self.refresh(layout=True)

    def _show(self, first: int) -> None:
        """Paint the rows from ``first`` on."""
        width, height, end = self.content_size.width, self._document.height, self._end
        self._end = height
        for y in range(first, max(height, end)):
            self._strips.pop(y, None)
        if height > self._reserved or not self._streaming or not width:
            self.refresh(layout=True)
        elif first < max(height, end):
            self.refresh(Region(0, first, width, max(height, end) - first))

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        self._document.resize(width)
        height = self._document.height
        if not self._streaming:
            self._reserved = height
        elif not self._reserved - _ROOM <= height <= self._reserved:
            self._reserved = height + _ROOM
        return self._reserved

    def notify_style_update(self) -> None:
        self._styles_by_name.clear()
        self._strips.clear()
        super().notify_style_update()

    def selection_updated(self, selection: Selection | None) -> None:
        self._strips.clear()
        super().selection_updated(selection)

    def render_lines(self, crop: Region) -> list[Strip]:
        """Rows as they were painted before. Textual's own cache forgets all of them whenever a row is added."""
        if self.styles.gutter or self.opacity != 1.0:
            return super().render_lines(crop)
        strips = [self.render_line(y) for y in crop.line_range]
        for line_filter in self.get_line_filters():
            background = self.background_colors[1]
            strips = [strip.apply_filter(line_filter, background) for strip in strips]
        if crop.column_span != (0, self.size.width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    def render_line(self, y: int) -> Strip:
        width = self.content_size.width
        if width != self._painted_width:
            self._document.resize(width)
            self._strips.clear()
            self._painted_width = width
        strip = self._strips.get(y)
        if strip is None:
            if len(self._strips) >= _MAX_STRIPS:
                self._strips.clear()
            strip = self._strips[y] = self._paint(y).adjust_cell_length(width, self._style(""))
        return strip

    def _paint(self, y: int) -> Strip:
        if y >= self._document.height:
            return Strip([])
        row, line, leaf = self._document.row(y)
        selection = self.text_selection
        span = selection.get_span(line) if selection is not None else None
        segments: list[Segment] = []
        at = row.start
        for piece in row.pieces:
            if not piece.text:
                continue
            if not piece.own:
                segments.append(Segment(piece.text, self._style(piece.style) + _click(piece, leaf)))
                continue
            segments += self._selectable(piece, (at, line), span, leaf)
            at += len(piece.text)
        if not segments:
            segments = [Segment(" ", self._style("") + _offset(0, line))]
        return Strip(segments)

    def _selectable(self, piece: RowPiece, start: tuple[int, int], span: tuple[int, int] | None, leaf: int) -> list[Segment]:
        """A piece of the text itself, cut where the selection begins and ends."""
        x, line = start
        click = _click(piece, leaf)
        size = len(piece.text)
        begin, end = (0, 0) if span is None else (span[0] - x, size if span[1] < 0 else span[1] - x)
        begin, end = min(max(begin, 0), size), min(max(end, 0), size)
        plain = piece.style
        parts = [(0, begin, plain), (begin, end, f"{plain} {_SELECTED}"), (end, size, plain)]
        return [
            Segment(piece.text[a:b], self._style(names) + click + _offset(x + a, line))
            for a, b, names in (parts if begin < end else [(0, size, plain)])
            if a < b
        ]

    def _style(self, names: str) -> Style:
        """The style that several names make together, on that of the widget."""
        found = self._styles_by_name.get(names)
        if found is None:
            visual = self.visual_style
            for name in names.split():
                if name == _SELECTED:
                    visual += VisualStyle.from_styles(self.screen.get_component_styles("screen--selection"))
                    continue
                visual += self.get_visual_style(f"answer-text--{name}", partial=True)
            found = self._styles_by_name[names] = visual.rich_style
        return found

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        return selection.extract(self._document.text()), "\n"

    def on_click(self, event: events.Click) -> None:
        action = event.style.meta.get(_META)
        if action is None or self.text_selection is not None:
            return
        event.stop()
        kind, target = action
        if kind == "link":
            self.post_message(self.LinkClicked(target))
        else:
            self.post_message(self.CopyCode(self._document.leaves[target].code()))


def _offset(x: int, line: int) -> Style:
    """Where in the text a segment begins: what Textual's selection asks for."""
    return Style.from_meta({"offset": (x, line)})


def _document(source: str, *, whole: bool) -> Document:
    """Markdown is imported when there is some: it is not part of the first paint."""
    from tui.markdown.document import Document

    document = Document()
    document.append(source)
    if whole:
        document.finish()
    return document


def _click(piece: RowPiece, leaf: int) -> Style:
    if piece.action is None:
        return Style.null()
    kind, target = piece.action
    return Style.from_meta({_META: (kind, target if kind == "link" else leaf)})
