"""Agents in a program that has an event loop: sensors are read on while two agents on one model answer at the same time.

python examples/event_loop.py MODEL
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Literal

from model import chosen_model

from agent import AsyncAgent, Engine, Event, Limits, ToolCall, ToolDone, tool
from agent.text import display

news = asyncio.Condition()
moisture = {"tomatoes": 0, "beans": 0}  # per cent


async def sensors() -> None:
    """What a radio or an MQTT broker would bring."""
    for number in itertools.count():
        await asyncio.sleep(0.02)
        async with news:
            moisture.update(tomatoes=30 + number % 5, beans=60 + number % 5)
            news.notify_all()


@tool
async def next_reading(bed: Literal["tomatoes", "beans"]) -> str:
    """Wait for the next reading of the moisture of a bed.

    Args:
        bed: which bed
    """
    async with news:  # in the loop of the program, so its locks, queues and connections can be used
        await news.wait()
    return f"{bed}: {moisture[bed]} % moisture"


@tool
def water(bed: Literal["tomatoes", "beans"], seconds: int) -> str:
    """Water a bed.

    Args:
        bed: which bed
        seconds: how long
    """
    return f"{bed} got water for {seconds} seconds"


def gently(call: ToolCall) -> ToolCall | None:
    """The last word on what runs, whatever the model wants: no bed gets more than a minute."""
    if call.name == "water" and call.arguments["seconds"] > 60:
        return replace(call, arguments={**call.arguments, "seconds": 60})
    return None


def shown(event: Event) -> None:
    if isinstance(event, ToolDone):
        print(f"{event.call.name}: {display(event.text)}")


async def main() -> None:
    reading = asyncio.create_task(sensors())
    limits = Limits(rounds=2, tokens=40)
    with await asyncio.to_thread(Engine, chosen_model(), context=2048) as engine:
        await asyncio.to_thread(engine.wait)
        gardener = AsyncAgent(engine, tools=[water], limits=limits, before_tool=gently, on_event=shown)
        watcher = AsyncAgent(engine, tools=[next_reading], limits=limits, on_event=shown)
        async with gardener, watcher:
            watered, read = await asyncio.gather(
                gardener.run("Water the tomatoes for 600 seconds.", tool_choice="required"),
                watcher.run("How dry are the beans?", tool_choice="required"),
            )
            print(f"calls: {len(watered.calls)} and {len(read.calls)}")
            try:
                async with asyncio.timeout(0.2):
                    await watcher.run("Tell me all about beans.", limits=Limits(tokens=2000))
            except TimeoutError:
                print("that took too long, and was ended")
    reading.cancel()


asyncio.run(main())
