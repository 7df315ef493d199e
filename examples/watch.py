"""Every event of a run as it happens, with the progress of the prompt: what a screen of your own would show.

python examples/watch.py MODEL [QUESTION]
"""

from __future__ import annotations

import sys

from model import chosen_model

from agent import Agent, Limits
from agent import events as e
from agent.text import display

question = " ".join(sys.argv[2:]) or "What time is it?"
choice = "auto" if sys.argv[2:] else "clock"
limits = Limits(rounds=3, tokens=60)
with Agent(chosen_model(), tools=["clock", "calculate"], limits=limits, sampling={"temperature": 0}) as agent:
    for event in agent.stream(question, tool_choice=choice):
        match event:
            case e.Loading(part):
                print(f"loading  {part:4.0%}")
            case e.Prefill(done, total, cached):
                print(f"prefill  {done:4} of {total} tokens, {cached} of them from the cache")
            case e.Thought(text):
                print(f"thought  {display(text)}")
            case e.Text(text):
                print(f"text     {text!r}")
            case e.CallForming(_, name, text):
                print(f"forming  {name} {display(text)}")
            case e.CallReady(call):
                print(f"call     {call.name} {dict(call.arguments)}")
            case e.CallRefused(call, why):
                print(f"refused  {call.name}: {why}")
            case e.ToolProgress(call, text):
                print(f"progress {call.name}: {display(text)}")
            case e.ToolDone(call, ok, text, _, seconds):
                print(f"result   {'' if ok else 'failed: '}{display(text)} ({seconds:.2f} s)")
            case e.Compacted(what, before, after):
                print(f"context  {what}: {before} tokens became {after}")
            case e.Problem(text):
                print(f"problem  {display(text)}")
            case e.ToolsChanged():
                print(f"tools    {display(event.text)}")
            case e.Done(result):
                usage = result.usage
                print(f"{result.reason}: {usage.generated_tokens} tokens, {usage.forced_tokens} of them forced, "
                      f"{usage.prefill_speed:.0f} t/s in, {usage.decode_speed:.0f} t/s out")  # fmt: skip
