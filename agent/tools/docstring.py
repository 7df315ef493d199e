"""A docstring's description and what it says of each parameter: Google, NumPy and Sphinx style.

Styles: the Google Python style guide (3.8.3), the numpydoc format, and Sphinx's info field lists.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_PARAMETERS = frozenset({"args", "arguments", "parameters", "params", "attributes", "other parameters", "keyword args"})
_SECTIONS = _PARAMETERS | {
    "returns", "return", "raises", "yields", "yield", "receives", "examples", "example", "note", "notes", "warning", "warnings",
    "warns", "see also", "references", "todo",
}  # fmt: skip
_FIELDS = frozenset({"param", "parameter", "arg", "argument", "type", "return", "returns", "raises", "rtype"})
_GOOGLE_ENTRY = re.compile(r"(\*{0,2}\w+)\s*(?:\([^:]*\))?\s*:(?!:)\s*(.*)")
_NUMPY_ENTRY = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?()")
_SPHINX_FIELD = re.compile(r":(\w+)(?:\s+([^:]*?))?:\s*(.*)")


@dataclass(frozen=True, slots=True)
class Docstring:
    """Attributes:
    summary: all that stands before the first section, a paragraph a line.
    parameters: name -> description, on one line.
    """

    summary: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


def parse_docstring(text: str | None) -> Docstring:
    """Read a docstring of any of the three styles; what is not understood is left out, never an error."""
    lines = inspect.cleandoc(text or "").splitlines()
    end = next((i for i in range(len(lines)) if _starts_section(lines, i)), len(lines))
    parameters: dict[str, str] = {}
    i = end
    while i < len(lines):
        title = _title(lines, i)
        if title is None:
            if match := _SPHINX_FIELD.match(lines[i]):
                i = _sphinx(lines, i, match, parameters)
            else:
                i += 1
            continue
        numpy = _underlined(lines, i)
        i += 2 if numpy else 1
        stop = next((j for j in range(i, len(lines)) if _starts_section(lines, j)), len(lines))
        if title in _PARAMETERS:
            _read_entries(lines[i:stop], numpy, parameters)
        i = stop
    return Docstring(_paragraphs(lines[:end]), parameters)


def _title(lines: Sequence[str], i: int) -> str | None:
    line = lines[i]
    if line[:1].isspace():
        return None
    name = line.strip().rstrip(":").lower()
    return name if name in _SECTIONS and (line.rstrip().endswith(":") or _underlined(lines, i)) else None


def _underlined(lines: Sequence[str], i: int) -> bool:
    return i + 1 < len(lines) and re.fullmatch(r"-{3,}|={3,}", lines[i + 1].strip()) is not None


def _starts_section(lines: Sequence[str], i: int) -> bool:
    if _title(lines, i) is not None:
        return True
    match = _SPHINX_FIELD.match(lines[i])
    return match is not None and match[1] in _FIELDS


def _paragraphs(lines: Sequence[str]) -> str:
    blocks = "\n".join(line.strip() for line in lines).strip().split("\n\n")
    return "\n".join(" ".join(block.split()) for block in blocks if block.strip())


def _read_entries(lines: Sequence[str], numpy: bool, parameters: dict[str, str]) -> None:
    indents = [len(line) - len(line.lstrip()) for line in lines]
    base = 0 if numpy else min((indent for indent, line in zip(indents, lines, strict=True) if line.strip()), default=0)
    names: list[str] = []
    for indent, line in zip(indents, map(str.strip, lines), strict=True):
        match = (_NUMPY_ENTRY if numpy else _GOOGLE_ENTRY).fullmatch(line) if indent == base else None
        if match:
            names = [name.strip().lstrip("*") for name in match[1].split(",")]
            parameters.update(dict.fromkeys(names, match[2].strip()))
        elif line and numpy and indent == base:
            names = []
        else:
            for name in names:
                parameters[name] = f"{parameters[name]} {line}".strip()


def _sphinx(lines: Sequence[str], i: int, match: re.Match[str], parameters: dict[str, str]) -> int:
    words = [match[3].strip()]
    i += 1
    while i < len(lines) and lines[i][:1].isspace():
        words.append(lines[i].strip())
        i += 1
    if match[1] in {"param", "parameter", "arg", "argument"} and match[2]:
        parameters[match[2].split()[-1].lstrip("*")] = " ".join(filter(None, words))
    return i
