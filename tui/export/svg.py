"""A conversation as a picture of a terminal. The SVG is one file: it fetches no font, follows no link and runs nothing.

Rich lays the text out; the SVG is written here, because what Rich writes names fonts on a server and squeezes wide characters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape
from io import StringIO
from typing import Any

from rich.cells import cell_len
from rich.color import blend_rgb
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from agent.sessions.records import StoredMessage
from agent.text import display
from agent.text.result_words import bare_result

MESSAGES = 400
LINES = 20_000
_CHARACTERS = 30_000  # of one message: hostile Markdown of that length takes the layout 3 seconds
_CALL_LINES, _RESULT_LINES = 3, 6
_CELL, _LINE, _FONT, _EDGE, _HEAD = 9.6, 20, 16, 16, 44  # pixels
_FONTS = "'DejaVu Sans Mono',Menlo,Consolas,'Liberation Mono',monospace"
_DOTS = ("#ff5f57", "#febc2e", "#28c840")
_THEME = TerminalTheme(
    (22, 24, 29), (214, 218, 226),
    [(40, 44, 52), (224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194),
     (214, 218, 226)],
    [(92, 99, 112), (240, 138, 146), (181, 217, 156), (240, 213, 155), (140, 198, 246), (217, 155, 236), (124, 206, 216),
     (255, 255, 255)],
)  # fmt: skip
_BAR = Style.parse("#98c379")
_QUIET = Style(dim=True)


def session_svg(title: str, messages: Sequence[StoredMessage], *, width: int = 100) -> str:
    """The conversation as SVG text.

    Args:
        title: of the window.
        messages: in order. Only the last 400 are shown, and of these no more than 20,000 lines; the picture says what it lacks.
        width: of the terminal, in cells.
    """
    lines: list[list[Segment]] = []
    console = Console(
        file=StringIO(), width=width, color_system="truecolor", force_terminal=True, legacy_windows=False, highlight=False,
        markup=False, emoji=False,
    )  # fmt: skip
    shown = messages[-MESSAGES:]
    if len(shown) < len(messages):
        lines += console.render_lines(_lacks(f"{len(messages) - len(shown):,} earlier messages are"), pad=False)
    for done, one in enumerate(shown):
        rendered = _laid_out(console, one)
        if len(lines) + len(rendered) >= LINES:
            lines += rendered[: max(0, LINES - len(lines) - 2)]
            rest = f"the rest of this message and {len(shown) - done - 1:,} more are"
            lines += console.render_lines(_lacks(rest), pad=False)
            break
        lines += rendered
    return _write(display(title), lines, width)


def _lacks(what: str) -> RenderableType:
    return Text(f"… {what} left out; an export as Markdown or JSON holds all\n", style=_QUIET)


def _laid_out(console: Console, one: StoredMessage) -> list[list[Segment]]:
    """Markdown of a model can be anything; what the renderer cannot lay out is shown as it was written."""
    try:
        return console.render_lines(Group(*_message(one), Text()), pad=False)
    except Exception:
        return console.render_lines(Text(_bounded(one.message.text) + "\n"), pad=False)


def _bounded(text: str) -> str:
    """The text, safe to show and not longer than can be laid out."""
    cut = len(text) - _CHARACTERS
    return display(text[:_CHARACTERS], lines=True) + (f"\n… {cut:,} more characters" if cut > 0 else "")


def _message(one: StoredMessage) -> Iterator[RenderableType]:
    m = one.message
    if m.role == "user":
        yield _Barred(Text(_bounded(m.text), style=Style(bold=True)))
    elif m.role == "assistant":
        yield from _answer(one)
    elif m.role == "tool":
        mark = "✗" if one.ok is False else "✓"
        took = f"  {one.seconds:.1f} s" if one.seconds is not None else ""
        yield Text.assemble((f"{mark} {display(m.name) or 'tool'}", Style(bold=True)), (took, _QUIET))
        yield Padding(_folded(bare_result(m.text), _RESULT_LINES), (0, 0, 0, 2))
    else:
        yield Text(f"system: {_first_words(m.text)}", style=_QUIET)
    for image in m.images:
        yield Text(f"picture {display(image)}", style=_QUIET)


def _answer(one: StoredMessage) -> Iterator[RenderableType]:
    from rich.markdown import Markdown

    m = one.message
    if m.thinking:
        yield Text(f"▸ thought: {_first_words(m.thinking)}", style=_QUIET + Style(italic=True))
    if m.text:
        yield Markdown(_bounded(m.text), code_theme="github-dark", hyperlinks=False)
    for call in m.calls:
        yield Text.assemble(("⚙ ", Style(color="cyan")), (display(call.name), Style(bold=True, color="cyan")))
        if call.arguments:
            yield Padding(_folded(_arguments(call.arguments), _CALL_LINES), (0, 0, 0, 2))
    if one.state == "partial":
        yield Text("(interrupted)", style=_QUIET)


def _arguments(arguments: Any) -> str:
    return "\n".join(
        f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)}"
        for name, value in arguments.items()
    )


class _Barred:
    """A text with a bar at its left."""

    def __init__(self, text: Text) -> None:
        self.text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for line in console.render_lines(self.text, options.update(width=options.max_width - 2), pad=False):
            yield Segment("▌ ", _BAR)
            yield from line
            yield Segment.line()


def _folded(text: str, limit: int) -> Text:
    lines = text.splitlines()
    kept = [line[:400] + "…" if len(line) > 400 else line for line in lines[:limit]]
    more = len(lines) - len(kept)
    shown = display("\n".join(kept), lines=True) + (f"\n… {more:,} more {'line' if more == 1 else 'lines'}" if more > 0 else "")
    return Text(shown, style=_QUIET)


def _first_words(text: str, limit: int = 70) -> str:
    words = " ".join(text[: limit * 4].split())
    return display(words[:limit] + ("…" if len(words) > limit or len(text) > limit * 4 else ""))


def _write(title: str, lines: Sequence[Sequence[Segment]], width: int) -> str:
    classes: dict[str, str] = {}
    grounds: list[str] = []
    texts: list[str] = []
    for row, line in enumerate(lines):
        cell = 0
        for text, style, control in line:
            if control or not text:
                continue
            # Once more: a character reference of Markdown becomes its character only when it is laid out.
            shown = display(text)
            cells = cell_len(shown)
            ink, ground = _colours(style or Style.null())
            x, y = _EDGE + cell * _CELL, _HEAD + row * _LINE
            if ground:
                grounds.append(f'<rect x="{x:g}" y="{y}" width="{cells * _CELL:g}" height="{_LINE}" fill="{ground}"/>')
            if shown.strip():
                name = classes.setdefault(ink, f"s{len(classes)}")
                texts.append(
                    f'<text class="{name}" x="{x:g}" y="{y + _FONT - 1}" textLength="{cells * _CELL:g}">{_escaped(shown)}</text>'
                )
            cell += cells
    wide, high = round(2 * _EDGE + width * _CELL), _HEAD + len(lines) * _LINE + _EDGE
    styles = "\n".join(f".{name} {{ {css} }}" for css, name in classes.items())
    ground, ink = _THEME.background_color.hex, _THEME.foreground_color.hex
    dots = "".join(f'<circle cx="{_EDGE + 6 + 20 * i}" cy="20" r="6" fill="{dot}"/>' for i, dot in enumerate(_DOTS))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}">
<title>{_escaped(title)}</title>
<style>
text {{ font-family: {_FONTS}; font-size: {_FONT}px; white-space: pre; fill: {ink} }}
{styles}
</style>
<rect width="{wide}" height="{high}" rx="8" fill="{ground}"/>
{dots}
<text x="{wide // 2}" y="25" text-anchor="middle">{_escaped(_first_words(title, max(8, width - 24)))}</text>
{chr(10).join(grounds)}
{chr(10).join(texts)}
</svg>
"""


def _colours(style: Style) -> tuple[str, str]:
    """The ink as CSS, and the ground, empty where it is that of the window."""
    fore, back = _THEME.foreground_color, _THEME.background_color
    ink = style.color.get_truecolor(_THEME) if style.color and not style.color.is_default else fore
    ground = style.bgcolor.get_truecolor(_THEME, foreground=False) if style.bgcolor and not style.bgcolor.is_default else back
    if style.reverse:
        ink, ground = ground, ink
    css = [f"fill: {(blend_rgb(ink, ground, 0.4) if style.dim else ink).hex}"]
    css += ["font-weight: bold"] if style.bold else []
    css += ["font-style: italic"] if style.italic else []
    lined = " ".join(word for on, word in ((style.underline, "underline"), (style.strike, "line-through")) if on)
    css += [f"text-decoration: {lined}"] if lined else []
    return "; ".join(css), "" if ground == back else ground.hex


def _escaped(text: str) -> str:
    # A row of spaces is one space in SVG.
    return escape(text).replace(" ", "\u00a0")
