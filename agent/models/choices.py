"""The models that a person can choose from: what lies in the store, the demo model, what was used last; and what fits here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.errors import SprigError
from agent.files import human_size
from agent.home import models
from agent.models.demo import NAME as DEMO
from agent.models.demo import TITLE, demo_model
from agent.models.file import ModelFile, read_model
from agent.models.last_used import recall
from agent.models.memory import BATCH, CONVERSATIONS, MemoryBudget, least_context, need, plan_load
from agent.models.origin import how_to_finish
from agent.models.selector import is_later_part
from agent.models.store import stored_models

_UNFINISHED = ".gguf.part"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """One model and whether it can be used here.

    Attributes:
        path: of the file.
        name: what finds it: its name in the store without ``.gguf``, or "demo"; of a file elsewhere, its stem.
        file: what is known of it; None when it is not finished or cannot be read.
        size: bytes of the file.
        context: tokens of context that it would get here; 0 when it cannot be used.
        need: bytes of memory that it takes with that context, or at least; 0 when it is no model to chat with.
        why: why it cannot be used here, in one line; empty when it can.
        demo: whether it is the bundled demo model.
        last: whether it was used last.
        modified: when the file was written, in seconds since 1970.
        writes: tokens a second that it is expected to write here; 0 where this machine was not measured.
    """

    path: Path
    name: str
    file: ModelFile | None
    size: int
    context: int
    need: int
    why: str
    demo: bool
    last: bool
    modified: float
    writes: float = 0.0

    @property
    def fits(self) -> bool:
        """Whether it can be used here."""
        return not self.why

    @property
    def title(self) -> str:
        """The name that the file gives itself; untrusted text, empty when the file cannot be read."""
        return TITLE if self.demo else self.file.name if self.file else ""

    @property
    def type(self) -> str:
        """Its quantization, like "Q4_K_M"; empty when the file cannot be read."""
        return self.file.type if self.file else ""

    @property
    def trained(self) -> int:
        """Tokens of context that it was trained for."""
        return self.file.n_ctx_train if self.file else 0


def list_models(available: int | None = None) -> list[ModelChoice]:
    """Every model that is there: first those that fit, of these the one used last, then the newest; the demo behind one's own.

    A file that cannot be used is listed with the reason, and none makes this fail.

    Args:
        available: bytes of memory that may be used; by default 70 % of what the machine has free.
    """
    budget = MemoryBudget.of(available)
    last = recall().model
    found: list[ModelChoice] = []
    for path, name, demo in _places(last):
        try:
            used = bool(last) and last in (name, f"{name}.gguf", str(path))
            found.append(look_at(path, budget, name=name, demo=demo, last=used))
        except OSError:
            continue  # it was removed meanwhile
    return sorted(found, key=lambda c: (not c.fits, not c.need, not c.last, c.demo, -c.modified, c.name))


def _places(last: str) -> Iterator[tuple[Path, str, bool]]:
    """Path, name and whether it is the demo, each file once."""
    seen: set[Path] = set()
    for model in stored_models():
        path = model.path if model.finished else model.part
        if (model.finished and not is_later_part(path.name)) or path in model.companions:
            seen.add(path)
            yield path, model.name, False
    demo = demo_model()
    if demo is not None:
        seen.add(demo)
        # Where the store has a model of that name, the name means that one.
        yield demo, DEMO if models().absolute() / f"{DEMO}.gguf" not in seen else str(demo), True
    elsewhere = Path(last)
    # os.path: a name that no file can have is no error to it.
    if last and elsewhere.is_absolute() and elsewhere not in seen and os.path.isfile(elsewhere):  # noqa: PTH113
        yield elsewhere, _name(elsewhere), False


def _name(path: Path) -> str:
    return path.name.removesuffix(".part").removesuffix(".gguf")


def look_at(
    path: Path, budget: MemoryBudget | None = None, *, name: str = "", demo: bool = False, last: bool = False
) -> ModelChoice:
    """One file as a choice, within a budget or what this machine allows. OSError when it is not there."""
    status = path.stat()
    file, why = _read(path)
    context, total = 0, 0
    if file is not None and not why:
        context, total, why = context_here(file, budget or MemoryBudget.of(None))
    return ModelChoice(path, name or _name(path), file, status.st_size, context, total, why, demo, last, status.st_mtime)


def _read(path: Path) -> tuple[ModelFile | None, str]:
    """Facts of a file if it can be read, and why nobody can chat with it; empty if one can."""
    if path.name.endswith(_UNFINISHED):
        return None, f"not finished: {how_to_finish(path)}"
    try:
        file = read_model(path)
    except SprigError as e:
        return None, " ".join(str(e).split())
    except Exception as e:  # one odd file must not hide the others
        return None, f"{path} cannot be read: {type(e).__name__}: {' '.join(str(e).split())[:200]}"
    return file, "" if file.causal else "an embedding model; it writes no text"


def context_here(file: ModelFile, budget: MemoryBudget) -> tuple[int, int, str]:
    """Context and bytes as agent.engine.handle.Engine would have them; or no context, the least bytes, and why."""
    try:
        plan = plan_load(file, budget)
        return plan.context, plan.need.total, ""
    except SprigError:
        total = need(file, context=least_context(file), sequences=CONVERSATIONS, batch=BATCH, cache="q8_0").total
        return 0, total, f"needs {human_size(total)} of memory, {human_size(budget.size)} may be taken"
