"""Two agents share one model in memory: a writer, and a critic who has a score card to fill in.

python examples/two_agents.py MODEL [TOPIC]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

from model import chosen_model

from agent import Agent, Bounds, Engine, Limits
from agent.text import display


@dataclass
class Review:
    """What a critic thinks of a text.

    Attributes:
        stars: from 1 to 5
        better: what to change, in a few words
    """

    stars: Annotated[int, Bounds(ge=1, le=5)]
    better: Annotated[str, Bounds(max_length=120)]


topic = " ".join(sys.argv[2:]) or "rain on a tin roof"
limits = Limits(tokens=60)
with Engine(chosen_model(), context=2048) as engine:
    writer = Agent(engine, system="You write two short sentences, no more.", limits=limits)
    critic = Agent(engine, system="You judge texts strictly and briefly.", limits=limits)
    with writer, critic:
        draft = writer.run(f"Write about {topic}.")
        print("writer:", display(draft.text, lines=True))
        review = critic.run(draft.text, schema=Review).value
        if isinstance(review, Review):  # None when its tokens did not suffice
            print(f"critic: {'*' * review.stars} {display(review.better)}")
            print("writer:", display(writer.run(f"Write it again. {review.better}").text, lines=True))
