"""Configuration files in TOML and JSON of devices that do not exist, generated: no two lines of values are alike.

Only ``Random.random`` is used, whose numbers Python promises to keep for a seed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

_PLACES = (
    "attic",
    "barn",
    "cellar",
    "dock",
    "engine-room",
    "foyer",
    "gatehouse",
    "hallway",
    "loft",
    "mill",
    "orchard",
    "pump-house",
)
_SENSORS = ("co2", "flow", "humidity", "light", "noise", "ph", "pressure", "rain", "soil", "temperature", "vibration", "wind")
_MODES = ("average", "burst", "delta", "last", "max", "median", "min", "raw")
_LEVELS = ("debug", "info", "notice", "warning")


def pick(random: Random, items: Sequence[T]) -> T:
    """One of the items."""
    return items[int(random.random() * len(items))]


def between(random: Random, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``, both included."""
    return low + int(random.random() * (high - low + 1))


def sample(random: Random, items: Sequence[T], n: int) -> list[T]:
    """``n`` different items, in their order."""
    keyed = sorted(range(len(items)), key=lambda _: random.random())[:n]
    return [items[i] for i in sorted(keyed)]


def config_files(seed: int, n: int) -> list[str]:
    """``n`` files, TOML and JSON in turns, the same for a seed on every machine."""
    random = Random(seed)
    return [_toml(random, i) if i % 2 == 0 else _json(random, i) for i in range(n)]


def _station(random: Random, sensor: str) -> dict[str, Any]:
    return {
        "pin": between(random, 2, 27),
        "every_seconds": between(random, 1, 900),
        "mode": pick(random, _MODES),
        "range": [between(random, -40, 5), between(random, 50, 4000)],
        "alarm": random.random() < 0.4,
        "label": f"{sensor} {between(random, 1, 99):02d}",
    }


def _toml(random: Random, index: int) -> str:
    place = _PLACES[index % len(_PLACES)]
    lines = [
        f"# {place}.toml, revision {between(random, 2, 60)}",
        f'host = "{place}-{between(random, 10, 99)}.lan"',
        f"port = {between(random, 1024, 49151)}",
        f'log_level = "{pick(random, _LEVELS)}"',
    ]
    for sensor in sample(random, _SENSORS, 2):
        lines += ["", f"[sensor.{sensor}]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in _station(random, sensor).items()]
    return "\n".join(lines)


def _json(random: Random, index: int) -> str:
    place = _PLACES[index % len(_PLACES)]
    content = {
        "site": place,
        "position": {"lat": round(random.random() * 130 - 60, 4), "lon": round(random.random() * 350 - 175, 4)},
        "retries": between(random, 0, 9),
        "timeout_ms": 50 * between(random, 3, 120),
        "stations": [{"kind": sensor, **_station(random, sensor)} for sensor in sample(random, _SENSORS, 2)],
    }
    return json.dumps(content, indent=2)
