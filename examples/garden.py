"""A function becomes a tool: the model waters the garden.

python examples/garden.py MODEL
"""

from __future__ import annotations

from model import chosen_model

from agent import Agent, Limits, Text, ToolDone, tool


@tool
def water(bed: int, seconds: int = 30) -> str:
    """Open the valve of a garden bed.

    Args:
        bed: number of the bed, 1 to 4
        seconds: how long
    """
    if bed not in (1, 2, 3, 4):
        raise ValueError("the beds are 1 to 4")  # the model is told, and may try again
    return f"bed {bed} got water for {seconds} seconds"


with Agent(chosen_model(), tools=[water], limits=Limits(rounds=3, tokens=80), sampling={"temperature": 0}) as agent:
    # "required", because here a call is the point; leave it out and the model decides.
    result = agent.run("Water bed 2 for a minute.", tool_choice="required")
    for done in result.calls:
        print(f"{done.call.name}({dict(done.call.arguments)}): {done.text}")
    print(result.text)

    # The same as it happens.
    for event in agent.stream("And bed 3?", tool_choice="required"):
        match event:
            case ToolDone(call, ok, text):
                print(f"{call.name}({dict(call.arguments)}): {text}")
            case Text(text):
                print(text, end="", flush=True)
    print()
