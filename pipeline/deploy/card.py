"""A model goes into a folder of this machine: a card or disk of a device that is mounted here.

What is written is read back from the card itself, as far as the system can be told to forget what it still has in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from agent.errors import OutputError
from agent.files import FULL, exclusive, free_disk, human_size, publish
from agent.gguf.check import check
from agent.progress import OnProgress, Progress
from pipeline.deploy.deploy import Deployed, stored_name
from pipeline.deploy.transfer import Part, SentFile

_PIECE = 1 << 20


def models_folder(folder: Path) -> Path:
    """Where models lie: ``folder/models`` if ``folder`` is a SPRIG_HOME, which has one, else the folder itself. OutputError."""
    if not folder.is_dir():
        raise OutputError(f"there is no folder {folder}; is the card mounted?")
    inside = folder / "models"
    return inside if inside.is_dir() else folder


def deploy_to_folder(
    model: Path,
    folder: Path,
    *,
    on_progress: OnProgress = lambda step: None,
    say: Callable[[str], None] = lambda line: None,
) -> Deployed:
    """Bring a GGUF into a folder of models, or into that of a SPRIG_HOME: complete or not at all.

    Raises:
        GGUFError: the file must not be loaded.
        OutputError: it cannot be written, or reads back differently; what was there before is as it was.
        KeyboardInterrupt: what is written already is kept, and a next run goes on from there.
    """
    began = time.monotonic()
    check(model, data=True)
    place = models_folder(folder) / stored_name(model)
    with contextlib.suppress(OSError):
        if place.samefile(model):
            raise OutputError(f"{place} is the model itself")
    part = place.with_name(f".{place.name}.part")
    with model.open("rb") as file:
        source = SentFile(file, model, on_progress)
        replaced, same = place.exists(), False
        if place.is_file() and place.stat().st_size == source.size:
            same = source.begins_with(_read_back(place, lambda step: None))
        kept = source.size
        if not same:
            kept = _write(source, part, place, on_progress, say)
    seconds = time.monotonic() - began
    untried = "this is not the device; run `sprig bench` there"
    sent = source.size - kept
    return Deployed("", str(place), source.size, source.sha256, sent, replaced and not same, seconds, None, untried)


def _write(source: SentFile, part: Path, place: Path, on_progress: OnProgress, say: Callable[[str], None]) -> int:
    """Write what is missing, read all of it back, and give it its name; returns the bytes that were there already."""
    with exclusive(part) as fd:
        good = source.begins_with(_read_back(part, lambda step: None))
        kept, held = source.sent, os.fstat(fd).st_size
        if good and kept:
            say(f"{human_size(kept)} of {human_size(source.size)} are there already; going on from there")
        missing, free = source.size - kept, free_disk(part) + (0 if good else held)
        if missing > free:
            raise OutputError(
                f"no room in {place.parent}: {human_size(missing)} are missing, {human_size(free)} free; make some there"
            )
        try:
            if not good:
                os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_END)
            with open(fd, "wb", closefd=False) as f:
                for piece in source.rest():
                    f.write(piece)
            os.fsync(fd)
        except OSError as e:
            what = "the disk is full" if e.errno in FULL else e.strerror
            raise OutputError(
                f"cannot write {part}: {what}; what is written is kept, and a next run goes on from there"
            ) from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt("what is written is kept, and the same command goes on from there") from None
        source.arrived()
        found = _read_back(part, on_progress)
        if found != Part(source.size, source.sha256):
            part.unlink(missing_ok=True)
            raise OutputError(f"{part} does not read back as it was written, and was removed; the card may be broken or a fake")
        publish(part, place)
    return kept


def _read_back(path: Path, on_progress: OnProgress) -> Part:
    """What is on the disk under this path; nothing, when nothing is there."""
    digest, done = hashlib.sha256(), 0
    try:
        with path.open("rb") as f:
            total = os.fstat(f.fileno()).st_size
            if total:
                on_progress(Progress("read back", 0, total, "bytes"))
            if hasattr(os, "posix_fadvise"):  # what is only in memory proves nothing about a card
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while piece := f.read(_PIECE):
                digest.update(piece)
                done += len(piece)
                on_progress(Progress("read back", done, total, "bytes"))
    except FileNotFoundError:
        return Part()
    except OSError as e:
        raise OutputError(f"cannot read {path}: {e.strerror}") from None
    return Part(done, digest.hexdigest())
