"""docs/compression.md says what is so: the options of its commands are those of the program."""

from __future__ import annotations

import re

import pytest
import typer
from typer.main import get_command

from pipeline.cli.compress import compress_app
from pipeline.cli.distill import distill_app
from pipeline.cli.prune import prune_app
from tests.fixtures.paths import ROOT

GUIDE = (ROOT / "docs" / "compression.md").read_text("utf-8")
CHAPTERS = {"prune": ("Prune", prune_app), "distill": ("Distil", distill_app), "compress": ("One command", compress_app)}


@pytest.mark.parametrize("command", CHAPTERS)
def test_every_option_is_in_its_chapter_and_no_other(command: str) -> None:
    heading, app = CHAPTERS[command]
    real = _options(app) - {"-h", "--help"}
    chapter = re.search(rf"^## {heading}.*?(?=^## )", GUIDE, re.MULTILINE | re.DOTALL)
    assert chapter is not None
    cells = [line.split("|")[1] for line in chapter[0].splitlines() if line.startswith("| `-")]
    assert {name for cell in cells for name in re.findall(r"`(--?[a-z0-9-]+)", cell)} == real


@pytest.mark.parametrize("command", CHAPTERS)
def test_commands_that_are_shown_name_options_that_there_are(command: str) -> None:
    real = _options(CHAPTERS[command][1])
    shown = re.findall(rf"^(?:\$ )?sprig {command} ([^\n#]*)", GUIDE, re.MULTILINE)
    assert shown
    for line in shown:
        assert set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", line)) <= real, line


def _options(app: typer.Typer) -> set[str]:
    return {name for p in get_command(app).params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")}
