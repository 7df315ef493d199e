"""The inside of a paragraph: emphasis, code, links, as runs of text with a style. markdown-it parses, this flattens."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple
from unicodedata import category

from agent.text import display

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

# A terminal stacks all of these on one cell; a language needs few.
MAX_MARKS = 8
# A longer address is shown and cannot be clicked. Characters.
MAX_ADDRESS = 2048
# A piece of text with more openings than this is not prose, and pairing them takes too long: it is shown as it is.
MAX_OPENINGS = 300
_OPENING = re.compile(r"[*_~\[<`]")
_ACTIVE = re.compile(r"[\\`*_~\[\]!&<]|://")
_ADDRESS = re.compile(r"https?://[^\s<>\"'`]*[^\s<>\"'`.,;:!?)\]}*_]")
_STYLES = {"strong_open": "strong", "em_open": "em", "s_open": "strike"}


class InlineRun(NamedTuple):
    """Text in one style. ``style``: names, with a space between them. ``href``: where a click on it leads, or ""."""

    text: str
    style: str = ""
    href: str = ""


class References(dict[str, dict[str, str]]):
    """Link reference definitions by normalized label. Remembers what was asked for and is not there yet."""

    def __init__(self) -> None:
        super().__init__()
        self.missed: set[str] = set()

    def get(self, label: str, default: Any = None) -> Any:
        found = super().get(label)
        if found is None:
            self.missed.add(label)
        return found

    def define(self, label: str, address: str) -> str:
        """Add a definition unless its label has one; returns the normalized label."""
        from markdown_it.common.utils import normalizeReference

        name = normalizeReference(label)
        parser = _parser()
        href = parser.normalizeLink(address)
        if name not in self and parser.validateLink(href):
            self[name] = {"title": "", "href": href}
        return name


def without_towers(text: str) -> str:
    """``text`` with no more than ``MAX_MARKS`` combining marks on one character."""
    if text.isascii():
        return text
    marks = "".join(c for c in set(text) if category(c) in {"Mn", "Me"})
    if not marks:
        return text
    tower = re.compile(f"([{marks}]{{{MAX_MARKS}}})([{marks}]+)")
    return tower.sub(lambda found: found[1] + "".join(f"<U+{ord(c):04X}>" for c in found[2]), text)


def is_plain(text: str) -> bool:
    """Nothing in it that Markdown would read as more than text."""
    return _ACTIVE.search(text) is None


def plain_runs(text: str) -> list[InlineRun]:
    return [InlineRun(text)]


def parse(text: str, references: References) -> list[InlineRun]:
    """Runs of ``text``, which may have several lines: newlines stay, a reader of a chat means them.

    Args:
        text: safe to show; what markdown-it decodes in it is made so once more.
    """
    if is_plain(text) or (len(text) > MAX_OPENINGS and len(_OPENING.findall(text)) > MAX_OPENINGS):
        return plain_runs(text)
    (token,) = _parser().parseInline(text, {"references": references})
    return _flatten(token.children or [])


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("strikethrough")


def _flatten(tokens: list[Token]) -> list[InlineRun]:
    runs: list[InlineRun] = []
    styles: list[str] = []
    links: list[tuple[str, int]] = []  # address, first run
    for token in tokens:
        href = links[-1][0] if links else ""
        style = " ".join([*styles, "link"] if href else styles)
        if token.type == "text":
            runs += _text(_decoded(token.content), style, href)
        elif token.type in ("softbreak", "hardbreak"):
            runs.append(InlineRun("\n", style, href))
        elif token.type == "code_inline":
            runs.append(InlineRun(_decoded(token.content), f"{style} inline".strip(), href))
        elif token.type == "image":
            runs += _image(token, style, href)
        elif token.type in _STYLES:
            styles.append(_STYLES[token.type])
        elif token.type == "link_open":
            links.append((_decoded(str(token.attrs.get("href", ""))), len(runs)))
        elif token.type == "link_close":
            target, first = links.pop()
            runs += _address(target, "".join(run.text for run in runs[first:]), " ".join(styles))
            if len(target) > MAX_ADDRESS:
                runs[first:] = [run._replace(href="") for run in runs[first:]]
        elif token.nesting < 0:
            styles.pop()
        else:
            runs += _text(_decoded(token.content), style, href)
    return [run for run in runs if run.text]


def _decoded(text: str) -> str:
    """What markdown-it made of a text, as a terminal may get it: an entity may have become any character, a tab among them."""
    return without_towers(display(text, lines=True)).replace("\t", " ")


def _text(text: str, style: str, href: str) -> list[InlineRun]:
    """Plain text, in which addresses can be clicked."""
    if href or "://" not in text:
        return [InlineRun(text, style, href)]
    runs: list[InlineRun] = []
    end = 0
    for found in _ADDRESS.finditer(text):
        runs.append(InlineRun(text[end : found.start()], style))
        address = found[0] if len(found[0]) <= MAX_ADDRESS else ""
        runs.append(InlineRun(found[0], f"{style} link".strip(), address))
        end = found.end()
    return [*runs, InlineRun(text[end:], style)]


def _address(href: str, text: str, style: str) -> list[InlineRun]:
    """The address behind a link's text, where the text does not say it already."""
    if href in (text, f"mailto:{text}", text + "/"):
        return []
    return [InlineRun(f" ({href})" if text else f"({href})", f"{style} href".strip(), href)]


def _image(token: Token, style: str, href: str) -> list[InlineRun]:
    source = _decoded(str(token.attrs.get("src", "")))
    target = href or (source if len(source) <= MAX_ADDRESS else "")
    alt = "".join(run.text for run in _flatten(token.children or []))
    return [InlineRun(f"[image: {alt}]", style, target), InlineRun(f" {source}", f"{style} href".strip(), target)]
