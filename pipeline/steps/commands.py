"""What the commands of the pipeline take, as a plan may say it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer

from pipeline.steps.options import CommandOption, CommandOptions


def command_options(command: str) -> CommandOptions:
    """The options of a command of the workstation, as they are called on the command line, with "_" for "-"."""
    # by name: the command line stands above this package
    found: Any = typer.main.get_command(getattr(import_module(f"pipeline.cli.{command}"), f"{command}_app"))
    return {
        (flag := max(one.opts, key=len)).removeprefix("--").replace("-", "_"): CommandOption(
            flag,
            "nothing" if one.is_flag else "values" if one.multiple else "value",
            path="path" in type(one.type).__name__.lower(),
        )
        for one in found.params
        if one.param_type_name == "option"
    }
