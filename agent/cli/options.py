"""What all commands have in common on the command line."""

from __future__ import annotations

from typing import Annotated, Any

import typer

SETTINGS: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show log lines, and the traceback of an error.")]


def leave_to(ctx: typer.Context, json: bool, verbose: bool) -> bool:
    """Whether a group's own callback leaves the work to a command behind it; that one takes the options."""
    called = ctx.invoked_subcommand
    if called is not None and (json or verbose):
        raise typer.BadParameter(f"--json and -v go behind {called!r}: {ctx.command_path} {called} --json")
    return called is not None
