"""Measure the house, and draw its map.

    python tests/house.py            rooms, floors, arrows, arrows that run back up, circles of imports
    python tests/house.py --arrows   the same, and every arrow
    python tests/house.py --map      write the map of docs/architecture.md anew, from the first line of each module

A room is a file or a folder on top of a package. An arrow is an import from one room into another, wherever it stands in a file,
TYPE_CHECKING included. Rooms stand on floors: each above all that it imports. `tests/test_ground.py` holds the numbers up.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agent", "pipeline", "tui")
ARCHITECTURE = ROOT / "docs" / "architecture.md"
MAP_BEGINS, MAP_ENDS = "<!-- the map: make map -->\n", "<!-- end of the map -->\n"

Graph = dict[str, set[str]]


def modules(*packages: str) -> dict[str, Path]:
    """Every module of the packages, by its dotted name."""
    files = (f for package in packages for f in sorted((ROOT / package).rglob("*.py")))
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


@dataclass(frozen=True, slots=True)
class Import:
    """An import, wherever it stands in a file.

    Attributes:
        module: what is imported, or from where; with its dots if that is relative.
        names: what is imported from it; they may be modules.
        typing: it stands under TYPE_CHECKING, and costs nothing.
        later: it stands in a function.
    """

    module: str
    names: tuple[str, ...]
    typing: bool
    later: bool


@dataclass(frozen=True, slots=True)
class Source:
    """What is asked about a file. ``functions`` and their lines, those in others too; ``classes`` on top."""

    docstring: str
    lines: int
    imports: tuple[Import, ...]
    functions: tuple[tuple[str, int], ...]
    classes: tuple[str, ...]


@cache
def source(file: Path) -> Source:
    """A file is parsed once, and only its statements are looked at: expressions are most of a tree, and import nothing."""
    text = file.read_text()
    tree = ast.parse(text)
    imports: list[Import] = []
    functions: list[tuple[str, int]] = []

    def look(node: ast.AST, typing: bool, later: bool) -> None:
        if isinstance(node, ast.Import):
            imports.extend(Import(alias.name, (), typing, later) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            imports.append(Import("." * node.level + (node.module or ""), names, typing, later))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            later = True
            functions.append((node.name, (node.end_lineno or node.lineno) - node.lineno + 1))
        checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            for part in getattr(node, field, ()):
                look(part, typing or (checking and field == "body"), later)

    look(tree, False, False)
    classes = tuple(node.name for node in tree.body if isinstance(node, ast.ClassDef))
    return Source(ast.get_docstring(tree) or "", len(text.splitlines()), tuple(imports), tuple(functions), classes)


def module_graph(files: Mapping[str, Path]) -> Graph:
    """Which module imports which; a package's own `__init__` is left out where one of its modules is meant."""
    graph: Graph = {}
    for name, file in files.items():
        named = {n for i in source(file).imports for n in (i.module, *(f"{i.module}.{part}" for part in i.names))}
        found = {target for target in named if target in files and target != name}
        public = {"agent", "pipeline"}  # their names are looked up when they are used, so an import of them says nothing
        graph[name] = {t for t in found if t not in public and not any(other.startswith(f"{t}.") for other in found)}
    return graph


def room_graph(modules: Graph, package: str) -> Graph:
    """Which room of a package imports which."""
    graph: Graph = {}
    for name, targets in modules.items():
        if name.partition(".")[0] == package and name != package:
            room = _room(name)
            graph.setdefault(room, set()).update(
                _room(t) for t in targets if t.partition(".")[0] == package and t != package and _room(t) != room
            )
    return graph


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def circles(graph: Graph) -> list[list[str]]:
    """Groups of two and more that import each other (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph.get(node, ()):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    for node in sorted(graph):
        if node not in index:
            visit(node)
    sys.setrecursionlimit(limit)
    return found


@dataclass(frozen=True, slots=True)
class Structure:
    """What a package looks like from its top.

    Attributes:
        rooms: its files and folders.
        floors: length of the longest way down.
        arrows: pairs of rooms, one importing the other.
        back: arrows that run back up, as "from -> to".
        circles: rooms that import each other.
    """

    rooms: int
    floors: int
    arrows: int
    back: tuple[str, ...]
    circles: tuple[tuple[str, ...], ...]


def structure(graph: Graph) -> Structure:
    """Count the rooms of a graph, set them on floors, and find the arrows that run back up."""
    depth: dict[str, int] = {}
    back: list[str] = []

    def floor(room: str, above: tuple[str, ...]) -> int:
        if room not in depth:
            below = [-1]
            for target in sorted(graph.get(room, ())):
                if target in (*above, room):
                    back.append(f"{room} -> {target}")
                else:
                    below.append(floor(target, (*above, room)))
            depth[room] = 1 + max(below)
        return depth[room]

    for room in sorted(graph):
        floor(room, ())
    return Structure(
        len(graph),
        1 + max(depth.values(), default=-1),
        sum(map(len, graph.values())),
        tuple(back),
        tuple(map(tuple, circles(graph))),
    )


def house_map() -> str:
    """Every module with the first sentence of its docstring, folder by folder, as Markdown."""
    lines: list[str] = []
    for package in PACKAGES:
        folders: dict[Path, list[Path]] = {}
        for file in modules(package).values():
            folders.setdefault(file.parent, []).append(file)
        for folder, files in sorted(folders.items()):
            rows = [(f.stem, about(f)) for f in files if f.stem != "__init__" or f.read_text().strip()]
            if rows:
                lines += [f"### {folder.relative_to(ROOT)}/", "", "| module | |", "|---|---|"]
                lines += [f"| `{name}` | {text} |" for name, text in rows]
                lines.append("")
    return "\n".join(lines) + "\n"


def about(file: Path) -> str:
    """The first sentence of a module's docstring."""
    first = " ".join(source(file).docstring.split("\n\n")[0].split())
    return re.split(r"(?<=[.?!]) (?=[A-Z])", first)[0].replace("|", "\\|")


def write_map() -> None:
    """Replace what stands between the two marks of docs/architecture.md."""
    before, _, rest = ARCHITECTURE.read_text().partition(MAP_BEGINS)
    _, _, after = rest.partition(MAP_ENDS)
    ARCHITECTURE.write_text(f"{before}{MAP_BEGINS}\n{house_map()}{MAP_ENDS}{after}")


def main() -> None:
    """Print the table, with --arrows every arrow too; or write the map."""
    if "--map" in sys.argv:
        write_map()
        return
    graph = module_graph(modules(*PACKAGES))
    print(f"{'package':<10}{'rooms':>7}{'floors':>8}{'arrows':>8}{'back up':>9}{'circles':>9}")
    for package in PACKAGES:
        rooms = room_graph(graph, package)
        seen = structure(rooms)
        print(f"{package:<10}{seen.rooms:>7}{seen.floors:>8}{seen.arrows:>8}{len(seen.back):>9}{len(seen.circles):>9}")
        for arrow in seen.back:
            print(f"    back up: {arrow}")
        if "--arrows" in sys.argv:
            for room, targets in sorted(rooms.items()):
                print(f"    {room} -> {' '.join(sorted(targets)) or '-'}")
    for group in circles(graph):
        print(f"circle of modules: {' '.join(group)}")


if __name__ == "__main__":
    main()
