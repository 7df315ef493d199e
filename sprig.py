"""The one command. A command group's module is imported only when one of its commands is called: help and completion are fast."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command lives. ``about`` is its line in `sprig --help`, said here so that help need not import ``module``."""

    module: str
    app: str
    about: str


COMMANDS = {
    "chat": Command("tui.cli", "chat_app", "Chat with a model that can use tools, in the terminal or a browser."),
    "ask": Command("agent.cli.ask", "ask_app", "Ask a model, with tools: one question, or text piped in."),
    "embed": Command("agent.cli.embed", "embed_app", "Give the vectors of texts, or search files by what they mean."),
    "sessions": Command("agent.cli.sessions", "sessions_app", "List, search, export, remove and repair kept conversations."),
    "quantize": Command("pipeline.cli.quantize", "quantize_app", "Make a small GGUF of a Hugging Face model."),
    "compress": Command(
        "pipeline.cli.compress", "compress_app", "Make the best file of a size: prune, teach, round, compare; one report."
    ),
    "sweep": Command(
        "pipeline.cli.sweep", "sweep_app", "Make and measure many files by a plan, here or on a cluster; one table at the end."
    ),
    "pull": Command("agent.cli.pull", "pull_app", "Bring a ready GGUF from the Hub into the store."),
    "inspect": Command(
        "pipeline.cli.inspect", "inspect_app", "Show what is in a GGUF or a model: keys, tensors, vocabulary, template."
    ),
    "evaluate": Command(
        "pipeline.cli.evaluate", "evaluate_app", "Say what a file lost beside its original: KL divergence, perplexity, and more."
    ),
    "calibrate": Command(
        "pipeline.cli.calibrate", "calibrate_app", "Measure a model's activations: llama.cpp's imatrix, and more for rounding."
    ),
    "prune": Command("pipeline.cli.prune", "prune_app", "Make a smaller checkpoint: fewer tokens, neurons, heads or layers."),
    "distill": Command(
        "pipeline.cli.distill", "distill_app", "Let a small or pruned model learn what a larger one says; a checkpoint comes out."
    ),
    "fit": Command("pipeline.cli.fit", "fit_app", "Say which form of a model fits a device, how fast it will be, and why."),
    "deploy": Command("pipeline.cli.deploy", "deploy_app", "Bring a model to a device over SSH, or onto a card; tried there."),
    "bench": Command("agent.cli.bench", "bench_app", "Measure how fast a model reads and writes here, and find its best way."),
    "doctor": Command("agent.cli.doctor", "doctor_app", "Look at this machine: what Sprig makes of it, and what mends it."),
    "models": Command("agent.cli.models", "models_app", "List, show and remove the models in the store."),
}


class LazyGroup(TyperGroup):
    """A group that knows the names of its commands, and imports one when it is called."""

    _listing = False

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Offers the names alone, so that no command is imported to be listed."""
        self._listing = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = COMMANDS.get(cmd_name)
        if found is None:
            from difflib import get_close_matches  # only a mistake needs it

            if (meant := get_close_matches(cmd_name.lower(), COMMANDS, 1)) and not ctx.resilient_parsing:
                ctx.fail(f"There is no command {cmd_name!r}; did you mean {meant[0]}?")
            return None
        if self._listing:
            return TyperCommand(cmd_name)
        command = typer.main.get_command(getattr(import_module(found.module), found.app))
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.about) for name, command in COMMANDS.items()])


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"sprig {version('sprig-llm')}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(epilog="`sprig COMMAND --help` tells more about a command.")
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Make large language models small enough for ARM phones and boards, and put them to work there."""


def main() -> None:
    """Run `sprig` with the arguments of this process; ends in SystemExit."""
    if "_SPRIG_COMPLETE" in os.environ:  # a shell asks: typer would load rich to take the markup out of texts that have none
        sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    app(prog_name="sprig")


if __name__ == "__main__":
    main()
