"""An agent over a folder: it reads and searches on its own and asks before it writes. It never leaves the folder.

    python examples/files.py MODEL [FOLDER [QUESTION]]

Without a folder it makes one with a few notes, so that nothing of yours is touched.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from model import chosen_model

from agent import Agent, Answer, ApprovalRequest, CallRefused, Limits, Text, ToolDone
from agent.text import display

NOTES = {"shopping.txt": "2 bags of soil\ntomato seeds\na hose, 20 m\n", "beds.txt": "1 beans\n2 tomatoes\n3 empty\n4 herbs\n"}


def approve(request: ApprovalRequest) -> Answer:
    """Show exactly what would run, and ask."""
    try:
        reply = input(f"{request.decision.summary}\nAllow it? [y/N] ")
    except EOFError:  # nobody is there
        reply = ""
    print()
    return Answer.yes() if reply.strip().lower() == "y" else Answer.no()


def ask(agent: Agent, question: str, choice: str = "auto") -> None:
    print(f"\n? {question}")
    for event in agent.stream(question, tool_choice=choice):
        match event:
            case ToolDone(call, ok, text):
                print(f"{call.name} {dict(call.arguments)}\n{'' if ok else 'failed: '}{display(text, lines=True)}")
            case CallRefused(call, why):
                print(f"{call.name} did not run: {why}")
            case Text(text):
                print(display(text, lines=True), end="", flush=True)
    print()


def run(folder: Path, question: str) -> None:
    tools = ["list_files", "read_file", "search_files", "write_file"]
    limits = Limits(rounds=4, tokens=120, result=2000)
    with Agent(chosen_model(), tools=tools, root=folder, approve=approve, limits=limits, sampling={"temperature": 0}) as agent:
        if question:
            ask(agent, question)
        else:
            ask(agent, "What files are here?", "list_files")
            ask(agent, "Write 'bed 3: carrots' to the file plan.txt.", "write_file")


if len(sys.argv) > 2:
    run(Path(sys.argv[2]), " ".join(sys.argv[3:]) or "What files are here, and what are they about?")
else:
    with tempfile.TemporaryDirectory() as made:
        for name, text in NOTES.items():
            Path(made, name).write_text(text)
        run(Path(made), "")
        print("\nin the folder now:", ", ".join(sorted(f.name for f in Path(made).rglob("*") if f.is_file())))
