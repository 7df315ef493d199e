"""README says what is so, and the Chinese one says the same: section by section the same headings, commands, code, pictures,
links and figures of tables."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from dataclasses import dataclass

import pytest
from typer.main import get_command

import sprig
from agent.dialects.families import DIALECTS
from agent.tools.builtin.catalogue import BUILTIN_NAMES
from tests.fixtures.paths import ROOT

ENGLISH, CHINESE = "README.md", "README.zh-CN.md"
TEXT = {name: (ROOT / name).read_text(encoding="utf-8") for name in (ENGLISH, CHINESE)}
_FENCE = re.compile(r"^```[^\n]*\n.*?^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"\s+# .*$")
_PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")
_ROW = re.compile(r"^\|.*\|$", re.MULTILINE)
_FIGURE = re.compile(r"\d[\d.,]*\d|\d")
_PYTHON_IMPORT = re.compile(r"^from ((?:agent|pipeline)[\w.]*) import ([\w, ]+?)$", re.MULTILINE)
_HEADING = re.compile(r"^(#+) (.*)$")


@dataclass(frozen=True, slots=True)
class Section:
    """What a translation keeps as it is, from one heading to the next."""

    heading: str
    level: int
    code: tuple[str, ...]
    parts: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...]


def sections(text: str) -> list[Section]:
    """A README in sections; lines within a fence are no headings."""
    begun: list[tuple[str, int, list[str]]] = []
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        found = None if fenced else _HEADING.match(line)
        if found is not None:
            begun.append((found[2], len(found[1]), []))
        elif begun:
            begun[-1][2].append(line)
    return [_section(heading, level, "\n".join(lines)) for heading, level, lines in begun]


def _section(heading: str, level: int, body: str) -> Section:
    fences = _FENCE.findall(body)
    prose = _FENCE.sub("", body)
    lines = (_COMMENT.sub("", line).rstrip() for fence in fences for line in fence.splitlines())
    links = (link for link in _LINK.findall(prose) if not link.startswith("#") and link not in (ENGLISH, CHINESE))
    parts = [
        *(("picture", name) for name in _PICTURE.findall(prose)),
        *(("link", link) for link in links),
        *(("code", span) for span in _SPAN.findall(prose)),
    ]
    rows = (tuple(_FIGURE.findall(row)) for row in _ROW.findall(prose))
    return Section(heading, level, tuple(lines), tuple(parts), tuple(rows))


def differences(english: str, chinese: str) -> list[str]:
    """What the Chinese README does not say as the English one does, a line for each."""
    ours, theirs = sections(english), sections(chinese)
    levels = [s.level for s in ours], [s.level for s in theirs]
    if levels[0] != levels[1]:
        return [f"headings: levels {levels[0]}, in Chinese {levels[1]}"]
    return [f"{a.heading} ({b.heading}): {line}" for a, b in zip(ours, theirs, strict=True) for line in _between(a, b)]


def _between(a: Section, b: Section) -> list[str]:
    found = [
        f"line {n} of its code is {x!r}, in Chinese {y!r}"
        for n, (x, y) in enumerate(zip(a.code, b.code, strict=False), 1)
        if x != y
    ]
    if len(a.code) != len(b.code):
        found.append(f"{len(a.code)} lines of code, in Chinese {len(b.code)}")
    here, there = Counter(a.parts), Counter(b.parts)
    found += [f"{kind} {name} is missing in Chinese" for kind, name in (here - there).elements()]
    found += [f"{kind} {name} is in Chinese only" for kind, name in (there - here).elements()]
    if len(a.rows) != len(b.rows):
        return [*found, f"{len(a.rows)} rows of tables, in Chinese {len(b.rows)}"]
    rows = enumerate(zip(a.rows, b.rows, strict=True), 1)
    return found + [f"row {n} of its tables has the figures {x}, in Chinese {y}" for n, (x, y) in rows if x != y]


def test_the_chinese_readme_keeps_step() -> None:
    assert differences(TEXT[ENGLISH], TEXT[CHINESE]) == []


@pytest.mark.parametrize(("page", "other"), [(ENGLISH, CHINESE), (CHINESE, ENGLISH)])
def test_each_links_to_the_other_at_its_top(page: str, other: str) -> None:
    assert f"]({other})" in "\n".join(TEXT[page].splitlines()[:4])


def test_the_chinese_readme_is_in_chinese() -> None:
    for section in sections(TEXT[CHINESE])[1:]:
        assert re.search(r"[\u4e00-\u9fff]", section.heading), section.heading
    for line in _FENCE.sub("", TEXT[CHINESE]).splitlines():
        words = re.sub(r"`[^`]*`|\([^)]*\)|\|", " ", line)
        assert len(re.findall(r"[A-Za-z]{2,}", words)) < 20 or re.search(r"[\u4e00-\u9fff]", words), line


@pytest.mark.parametrize(
    ("change", "to", "said"),
    [
        ("## 聊天", "### 聊天", "headings: levels"),
        ("$ sprig chat --serve ", "$ sprig chat --browser ", "in Chinese '$ sprig chat --browser'"),
        ("docs/images/chat.svg", "docs/images/diff.svg", "Sprig (Sprig): picture docs/images/chat.svg is missing in Chinese"),
        ("docs/agent.md#hooks", "docs/agent.md", "Ask and script (提问与脚本): link docs/agent.md#hooks is missing in Chinese"),
        ("Q4_0: 7 tokens/s", "Q4_0: 9 tokens/s", "row 3 of its tables has the figures"),
        ("| [docs/benchmarks.md](docs/benchmarks.md) | 有多快，占多少内存 |\n", "", "10 rows of tables, in Chinese 9"),
        ("`sprig doctor` 会", "`sprig bench` 会", "Questions (常见问题): code sprig doctor is missing in Chinese"),
    ],
)  # fmt: skip
def test_what_differs_is_named(change: str, to: str, said: str) -> None:
    assert TEXT[CHINESE].count(change) == 1
    found = differences(TEXT[ENGLISH], TEXT[CHINESE].replace(change, to))
    assert any(said in line for line in found), found


def test_commands_that_are_shown_name_options_that_there_are() -> None:
    lines = [line for section in sections(TEXT[ENGLISH]) for line in section.code]
    shown = [found for line in lines for found in re.findall(r"(?:^[a-z]*\$ |\| )sprig ([a-z]+)([^|]*)", line)]
    assert len(shown) > 20
    for name, rest in shown:
        command = sprig.COMMANDS[name]
        app = get_command(getattr(importlib.import_module(command.module), command.app))
        real = {option for p in app.params for option in (*p.opts, *p.secondary_opts)}
        assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", re.sub(r'"[^"]*"', "", rest))) <= real, f"sprig {name}{rest}"


def test_what_a_guide_imports_is_there() -> None:
    """What it takes from Sprig, in a block of Python; one that a reader copies must not end in its first line."""
    lines = [line for guide in (ROOT / "docs").glob("*.md") for line in _PYTHON_IMPORT.findall(guide.read_text(encoding="utf-8"))]
    assert len(lines) > 30
    for module, names in lines:
        for name in names.replace(" ", "").split(","):
            assert hasattr(importlib.import_module(module), name), f"from {module} import {name}"


def test_what_make_is_asked_for_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", TEXT[ENGLISH]))
    assert len(named) > 8
    assert named <= targets


def test_what_readme_counts_is_so_many() -> None:
    words = " ".join(TEXT[ENGLISH].split())
    assert ("[sixteen built-in ones]" in words, len(BUILTIN_NAMES)) == (True, 16)
    assert ("in each of twenty dialects" in words, len(DIALECTS)) == (True, 20)


def test_the_boards_are_those_of_the_guide() -> None:
    """The guide's table is compared with the arithmetic in tests/pipeline/test_fit.py."""
    cell = re.compile(r"(\S.*?),? (Q\w+): ([\d.]+)(?:/s| tokens?/s)")
    guide = re.findall(
        r"^\| (.*) \| `.*` \| (.*) \| (.*) \|$", (ROOT / "docs" / "devices.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    foreseen = {memory: [cell.match(c) for c in cells] for memory, *cells in guide}
    rows = re.findall(r"^\| (\d+ [MG]B) \| .* \| (.*) \| (.*) \|$", TEXT[ENGLISH], re.MULTILINE)
    assert len(rows) == 6
    for memory, *cells in rows:
        for ours, theirs in zip(cells, foreseen[memory], strict=True):
            found = cell.match(ours)
            if found is None:
                assert ours == "the same" or (ours == "-" and theirs is None), memory
            else:
                assert theirs is not None, memory
                assert (found[1], found[2], float(found[3])) == (theirs[1], theirs[2], round(float(theirs[3]))), memory
