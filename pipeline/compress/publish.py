"""The file that was chosen gets its name, with a card that tells how it came about. The others stay in the work folder."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agent.errors import OutputError
from agent.files import atomic_write, exclusive, publish, reserve, write_error
from agent.models.store import card_path
from agent.text import display

_SECTION = "## How it was chosen"


def publish_choice(made: Path, out: Path, story: Sequence[str]) -> Path:
    """Give the file its name: the same bytes on the same disk, a copy elsewhere.

    Args:
        made: the GGUF in the work folder, its card beside it.
        story: lines of the card: the stages, and what was measured.

    Returns:
        The card.

    Raises:
        OutputError: it cannot be written; a finished file of that name stays as it was.
    """
    part = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise write_error(e, out) from None
    if out.is_dir():
        raise OutputError(f"{out} is a folder: name a file with -o, like {out / made.name}")
    with exclusive(part) as fd:
        try:
            own = made.with_suffix(".md")
            card = card_path(out)
            atomic_write(
                card, _card(own.read_text("utf-8", "surrogateescape") if own.is_file() else "", made.name, out.name, story)
            )
            if not _linked(made, part):
                reserve(fd, made.stat().st_size, part)
                with made.open("rb") as source, part.open("r+b") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            publish(part, out)
        except OSError as e:
            raise write_error(e, out) from None
        finally:
            part.unlink(missing_ok=True)
    return card


def _linked(made: Path, part: Path) -> bool:
    """Whether the part is now the very file; not where the disk is another one, or knows no links."""
    beside = part.with_name(f"{part.name}.link")
    with suppress(OSError):
        beside.unlink(missing_ok=True)
        os.link(made, beside)
        beside.replace(part)
        return True
    return False


def _card(text: str, old: str, new: str, story: Sequence[str]) -> str:
    text = text.partition(f"\n{_SECTION}\n")[0].replace(old, new)
    lines = [re.sub(r"^([#>|-])", r"\\\1", display(line)) for line in story]
    return f"{text.rstrip()}\n\n{_SECTION}\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"
