"""SVG as text: elements, how wide words are, and the look that all plots share. A picture fetches nothing and runs nothing.

Texts come from files and models: they are shown harmless (``agent.text.display``) and escaped, here and nowhere else.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from html import escape

from agent.text import display, shortened

FONT = 12.0  # pixels
HIDDEN = 5.0  # an error bar shorter than this on each side would lie under its sign
COLOURS = 8
_MARKERS = 4

# Okabe and Ito's colours, which the colour-blind tell apart, made darker on white and lighter on black.
_LIGHT = ("#0b6bb5", "#cf4f00", "#00845f", "#b04c86", "#a87500", "#1f93c9", "#6a51a3", "#555f66")
_DARK = ("#56b4f5", "#ff8f4f", "#3fd3a2", "#ee9fce", "#efba45", "#9adcff", "#b9a5f2", "#b6c0c8")


def _variables(colours: Sequence[str], **others: str) -> str:
    named = {f"c{i}": colour for i, colour in enumerate(colours)} | others
    return "".join(f"--{name}:{value};" for name, value in named.items())


STYLE = (
    ".plot{"
    + _variables(_LIGHT, ink="#1d2329", soft="#626c75", grid="#e4e8eb", paper="#ffffff")
    + f"font:{FONT:g}px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}}"
    + "@media(prefers-color-scheme:dark){.plot{"
    + _variables(_DARK, ink="#e6eaed", soft="#9aa5ad", grid="#2b3238", paper="#14181b")
    + "}}"
    ".plot text{fill:var(--ink)}.plot .soft{fill:var(--soft)}.plot .strong{font-weight:600}"
    ".plot .grid{stroke:var(--grid)}.plot .axis{stroke:var(--soft)}.plot .lead{stroke:var(--soft);stroke-width:.75}"
    ".plot .paper{fill:var(--paper)}"
    ".plot .label{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}"
)


def words(text: object, most: int = 60) -> str:
    """A text for the content of an element or between quotes of an attribute."""
    return escape(display(shortened(str(text), most)))


def element(tag: str, content: str = "", /, **attributes: object) -> str:
    """One element. ``content`` is markup. An underscore in an attribute's name stands for a hyphen; one at its end is dropped."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_number(value) if isinstance(value, float) else escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{given}>{content}</{tag}>" if content else f"<{tag}{given}/>"


def write(x: float, y: float, text: object, *, most: int = 60, **attributes: object) -> str:
    """Words at a place: ``x`` and ``y`` of the start of their baseline."""
    return element("text", words(text, most), x=x, y=y, **attributes)


def picture(width: float, height: float, parts: Sequence[str], about: str) -> str:
    """A whole SVG document, which may stand in an HTML page too. ``about`` is what is said to those who do not see it."""
    style = element("style", STYLE)
    title = element("title", words(about, 300))
    paper = element("rect", width=width, height=height, class_="paper")
    return element(
        "svg", style + title + paper + "".join(parts), xmlns="http://www.w3.org/2000/svg", class_="plot", role="img",
        viewBox=f"0 0 {_number(width)} {_number(height)}", width=width, height=height,
    )  # fmt: skip


def colour(i: int) -> str:
    """Of the i-th series."""
    return f"var(--c{i % COLOURS})"


def marker(i: int, x: float, y: float, *, hollow: bool = False, about: str = "") -> str:
    """The sign of the i-th series: shape and colour tell series apart. ``about`` is shown where a mouse rests on it."""
    paint = {"fill": "var(--paper)" if hollow else colour(i), "stroke": colour(i), "stroke_width": 1.8}
    title = element("title", words(about, 300)) if about else ""
    shape = (i + i // COLOURS) % _MARKERS
    if shape == 0:
        return element("circle", title, cx=x, cy=y, r=4.5, **paint)
    if shape == 1:
        return element("rect", title, x=x - 4.1, y=y - 4.1, width=8.2, height=8.2, **paint)
    corners = ((0, -5.8), (5.8, 0), (0, 5.8), (-5.8, 0)) if shape == 2 else ((0, -5.4), (5.4, 4.2), (-5.4, 4.2))
    points = " ".join(f"{_number(x + dx)},{_number(y + dy)}" for dx, dy in corners)
    return element("polygon", title, points=points, **paint)


def width_of(text: str, size: float = FONT) -> float:
    """About how many pixels a text takes in a usual sans-serif; rather too many than too few."""
    return size * sum(map(_em, display(text)))


def fitting(text: str, room: float, size: float = FONT) -> str:
    """As much of the beginning of a text as takes so many pixels at most; an ellipsis ends it where some is missing."""
    text = display(text[:200])
    if width_of(text, size) <= room:
        return text
    while text and width_of(f"{text}…", size) > room:
        text = text[:-1]
    return f"{text}…"


def _em(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    if letter in "ijlI.,:;|'!()[] ":
        return 0.33
    if letter in "mwMW@%":
        return 0.92
    return 0.7 if letter.isupper() else 0.59


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
