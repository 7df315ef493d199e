"""A session as Markdown for people: what was said as it is written, each message below a heading of who said it.

What was said is untrusted. It stays Markdown, with four changes that keep it below its heading: its own headings are two levels
deeper (levels 1 and 2 are ours), a fence that it leaves open is closed, HTML is shown instead of obeyed, and a picture is a link,
so that to look at a file fetches nothing. What a parser still reads otherwise is fenced whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from agent.sessions.records import SessionInfo, StoredMessage, day_of
from agent.text import verbatim
from agent.text.result_words import bare_result

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_TITLES = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|!~&$])")
_MOST = 200_000  # characters of one message that are read as Markdown
_BREAK = r"(?<=\S)<br ?/?>"
# What is left as it is, and then what is not: the first character of a picture and of HTML.
_ACTIVE = re.compile(
    r"\\[\\`<!]|(?<!`)(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)|<[A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s<>]*>|<[\w.+-]+@[\w.-]+>|"
    rf"{_BREAK}|(?P<active>!(?=\[)|<(?=[A-Za-z/!?]))"
)


def markdown_export(info: SessionInfo, messages: Sequence[StoredMessage]) -> str:
    """The title, a few facts, and every message."""
    facts = [f"- session {info.id}", f"- begun {day_of(info.created)}"]
    if info.model:
        facts.append(f"- model {_inline(info.model)}")
    parts = [f"# {_inline(info.title) or 'Session'}", "\n".join(facts)]
    if info.system:
        parts += ["## System", _said(info.system)]
    for one in messages:
        parts += _message(one)
    return "\n\n".join(part for part in parts if part) + "\n"


def _message(one: StoredMessage) -> list[str]:
    m = one.message
    title = _TITLES[m.role] + (f" {_inline(m.name)}" if m.name else "")
    notes = ["interrupted"] if one.state == "partial" else []
    notes += ["failed"] if one.ok is False else []
    notes += [f"{one.seconds:.1f} s"] if one.seconds is not None else []
    parts = [f"## {title}" + (f" ({', '.join(notes)})" if notes else "")]
    if m.thinking:
        parts += ["Thinking:", "\n".join(f"> {line}".rstrip() for line in _said(m.thinking.expandtabs(4)).split("\n"))]
    if m.role == "tool":
        parts.append(_fence(bare_result(m.text)))
    else:
        parts.append(_said(m.text))
    for call in m.calls:
        parts += [f"Calls {_inline(call.name)}:", _fence(json.dumps(dict(call.arguments), ensure_ascii=False, indent=2), "json")]
    if m.images:
        parts.append("\n".join(f"- picture {_inline(path)}" for path in m.images))
    if one.data is not None:
        parts += ["Data:", _fence(json.dumps(one.data, ensure_ascii=False, indent=2), "json")]
    return parts


def _said(text: str) -> str:
    """A message as Markdown that cannot pass for anything else in the file."""
    text = verbatim(text).strip("\n")
    if len(text) <= _MOST:
        kept = _kept_below(text)
        if _stays_below(kept):
            return kept
    return _fence(text, "markdown")


def _kept_below(text: str) -> str:
    lines: list[str | None] = [*text.split("\n")]
    code = {at for token in _parser().parse(text) if token.type in ("fence", "code_block") for at in range(*token.map or (0, 0))}
    for at, line in enumerate(lines):
        if line and at not in code:
            lines[at] = _ACTIVE.sub(lambda found: f"\\{found[0]}" if found["active"] else found[0], line)
    tokens = _parser().parse("\n".join(line or "" for line in lines))  # anew: what HTML held is Markdown now
    for token in tokens:
        if token.type == "heading_open" and token.level == 0 and token.map:
            _lower(lines, *token.map, level=int(token.tag[1]), underlined=token.markup in ("=", "-"))
    kept = "\n".join(line for line in lines if line is not None)
    if tokens and tokens[-1].type == "fence" and not _stays_below(kept):
        kept += f"\n{tokens[-1].markup}"  # it was left open
    return kept


def _lower(lines: list[str | None], first: int, end: int, *, level: int, underlined: bool) -> None:
    """A heading two levels deeper; one that was underlined becomes a line with its signs before it."""
    signs = "#" * min(6, level + 2)
    if underlined:
        words = " ".join((line or "").strip() for line in lines[first : end - 1])
        lines[first:end] = [f"{signs} {words}", *[None] * (end - first - 1)]
    else:
        lines[first] = re.sub(r"#+", signs, lines[first] or "", count=1)


def _stays_below(text: str) -> bool:
    """Whether a heading after it is one, no heading in it is of levels 1 and 2, and nothing in it is HTML or a picture."""
    tokens = _parser().parse(f"{text}\n\n# end")
    inside, after = tokens[:-3], tokens[-3:]
    if after[0].type != "heading_open" or after[0].level:
        return False
    return not any(
        (token.type == "heading_open" and token.level == 0 and token.tag in ("h1", "h2"))
        or token.type == "html_block"
        or any(_acts(child) for child in token.children or ())
        for token in inside
    )


def _acts(token: Token) -> bool:
    return token.type == "image" or (token.type == "html_inline" and not re.fullmatch(r"<br ?/?>", token.content))


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table")


def _fence(text: str, kind: str = "text") -> str:
    """A code block that its content cannot end: the fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{kind}\n{verbatim(text)}\n{fence}"


def _inline(text: str) -> str:
    """Text within a line of Markdown, with nothing in it that Markdown or HTML obeys."""
    return _MARKDOWN.sub(r"\\\1", verbatim(" ".join(text.split())))
