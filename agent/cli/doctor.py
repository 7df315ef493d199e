"""`sprig doctor`: how this machine is, what Sprig makes of it, and what would make it better."""

from __future__ import annotations

from dataclasses import asdict

import typer

from agent.cli import console
from agent.cli.options import SETTINGS, Json, Verbose
from agent.text import display

doctor_app = typer.Typer(**SETTINGS)
_WIDTH = 11  # of the first column


@doctor_app.command()
def doctor(json: Json = False, verbose: Verbose = False) -> None:
    """Look at this machine: cores, memory, llama.cpp's build, disk, heat, sandbox; what each costs, and what mends it."""
    with console.command(json=json, verbose=verbose) as out:
        from agent.fit.doctor import examine

        found = []
        for one in examine():
            found.append(one)
            if not json:
                out.result({}, f"{one.about:{_WIDTH}} {display(one.found)}")
                if one.costs:
                    out.result({}, f"{'':{_WIDTH}} ! {one.costs}\n{'':{_WIDTH}}   mend it: {one.mend}")
        faults = sum(bool(one.costs) for one in found)
        end = "Nothing to mend." if not faults else "1 thing to mend." if faults == 1 else f"{faults} things to mend."
        out.result({"findings": [asdict(one) for one in found], "faults": faults}, f"\n{end}")
