"""Print the structure of the house: rooms, floors, arrows, arrows that run back up, and circles of imports.

    python docs/import_graph.py [--arrows]

A room is a file or a folder on top of a package. An arrow is an import from one room into another, wherever it stands in a file,
TYPE_CHECKING included. Rooms stand on floors: each above all that it imports. `tests/test_ground.py` holds the numbers up.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agent", "pipeline", "tui")

Graph = dict[str, set[str]]


def modules(*packages: str) -> dict[str, Path]:
    """Every module of the packages, by its dotted name."""
    files = (f for package in packages for f in sorted((ROOT / package).rglob("*.py")))
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imports(tree: ast.AST) -> Iterator[str]:
    """What a file imports, anywhere in it: modules, and names that may be modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_graph(files: Mapping[str, Path]) -> Graph:
    """Which module imports which; a package's own `__init__` is left out where one of its modules is meant."""
    graph: Graph = {}
    for name, file in files.items():
        found = {target for target in imports(ast.parse(file.read_text())) if target in files and target != name}
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


def main() -> None:
    """Print the table, and with --arrows every arrow."""
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
