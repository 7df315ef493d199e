"""Words become an object: the answer can only be what the dataclass describes.

python examples/extract.py MODEL [TEXT]
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from model import chosen_model

from agent import Agent, Bounds, Limits

MAIL = "Hi, the heat pump in flat 12 has been leaking since this morning and the floor is wet. Please come today. Ada Byron"


@dataclass
class Ticket:
    """A report to the caretaker.

    Attributes:
        name: who wrote it
        flat: number of the flat
        device: what is broken
        urgency: how soon somebody must come
    """

    name: Annotated[str, Bounds(max_length=40)]
    flat: Annotated[int, Bounds(ge=1, le=99)]
    device: Annotated[str, Bounds(max_length=40)]
    urgency: Literal["today", "this week", "whenever"]


text = " ".join(sys.argv[2:]) or MAIL
with Agent(chosen_model(), limits=Limits(tokens=200), sampling={"temperature": 0}) as agent:
    result = agent.run(text, schema=Ticket)
if result.value is None:
    sys.exit(f"no ticket came of it: {result.error or result.reason}")
for name, value in asdict(result.value).items():
    print(f"{name:<8} {value!r}")
