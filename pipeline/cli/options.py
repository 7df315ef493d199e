"""The options of every command that may read from the Hub."""

from __future__ import annotations

from typing import Annotated

import typer

Revision = Annotated[str | None, typer.Option("--revision", metavar="REV", help="Branch, tag or commit on the Hub.")]
Token = Annotated[
    str | None,
    typer.Option("--token", metavar="TOKEN", help="Hub token for gated models; by default HF_TOKEN or the saved login."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is in the Hub cache already.")]
