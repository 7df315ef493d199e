"""What the model says in the benchmarks of the chat, and how fast: an answer as small models write it, in pieces like tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import cycle

RATE = 20.0  # pieces a second

_ANSWER = """\
## Watering the garden

A drip line gives **little water for a long time**, which is what most beds want. Start with the *driest* bed, look at the
soil a hand deep after an hour, and only then decide how long the others get. Clay keeps water for days, sand for hours.

1. Open the valve of bed `3` and wait until the line is full.
2. Measure the pressure; it should stay between 0.8 and 1.2 bar.
3. Close it after forty minutes, or when the sensor says so.

```python
def minutes(bed: int, dry: float) -> int:
    \"\"\"How long a bed is watered.\"\"\"
    if dry < 0.2:
        return 0
    return round(40 * dry) + (5 if bed in SANDY else 0)
```

| bed | soil | minutes |
|---|---|---|
| 1 | clay | 20 |
| 2 | loam | 30 |
| 3 | sand | 45 |

> In a hot week, water in the morning: what falls at noon is gone before it is of use to anybody.

That is all that this needs. See [the manual](https://example.org/drip) for the valves, and write down what you did.

"""


def pieces() -> Iterator[str]:
    """The answer again and again, in pieces of at most five characters or one word."""
    return cycle(re.findall(r"\s?\w{1,6}|\s+|[^\w\s]", _ANSWER))


def answer(seed: int) -> str:
    """One answer of a conversation that is kept; they differ in length."""
    parts = _ANSWER.split("\n\n")
    return "\n\n".join(parts[seed % 3 : seed % 3 + 1 + seed % 4])
