"""The folder of a run beside its result: what was done so far, so that a killed run goes on where it was.

``NAME.part`` holds ``plan.json`` (what the run is), ``lessons.npz`` (its sequences), ``teacher.topk`` (what the teacher said),
``state.safetensors`` (weights, AdamW's moments, position) and ``best`` (the best checkpoint so far, complete). Each is written
beside its place and renamed. In the end ``best`` gets the name of the result, and the folder is removed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from agent.errors import CheckpointError, OutputError, SprigError
from agent.files import atomic_write, free_disk, human_size, publish, publish_folder, write_error
from pipeline.distill.data.lesson import TrainingSequence

_STATE = "state.safetensors"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run is.

    Attributes:
        step, tokens, seconds: done so far.
        before: evaluation loss of the student as it came; None before it was evaluated.
        best, best_step: the lowest evaluation loss, and when.
        bf16: whether it computes in BF16.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    before: float | None = None
    best: float | None = None
    best_step: int = 0
    bf16: bool | None = None


class WorkFolder:
    """The folder beside ``out``."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(out.name + ".part")
        self.best = self.folder / "best"
        self.teacher = self.folder / "teacher.topk"
        self.curves = self.folder / "runs"

    def begin(self, plan: Mapping[str, Any], resume: bool) -> None:
        """Make the folder, or see that the run in it is this one.

        Raises:
            OutputError: there is an unfinished run that nobody asked to go on with.
            SprigError: the unfinished run is another.
        """
        kept = self.folder / "plan.json"
        if kept.exists():
            if not resume:
                raise OutputError(f"{self.folder} holds an unfinished run: go on with it (--resume), or remove it")
            before = _read(kept)
            if other := [name for name in plan if before.get(name) != plan[name]]:
                said = ", ".join(f"{name} was {before.get(name)!r} and is {plan[name]!r}" for name in other[:3])
                raise SprigError(
                    f"the unfinished run in {self.folder} is another one ({said}): run it as it was begun, or remove it"
                )
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise write_error(e, self.folder) from None
        atomic_write(kept, json.dumps(plan, indent=1))

    def keep_lessons(self, sequences: Sequence[TrainingSequence]) -> None:
        """Keep the sequences, so that a run that goes on has the same."""
        path, part = self.folder / "lessons.npz", self.folder / "lessons.npz.part"
        try:
            with part.open("wb") as file:
                np.savez(
                    file, lengths=np.array([len(s.ids) for s in sequences], np.int64),
                    ids=np.concatenate([np.array(s.ids, np.int32) for s in sequences]),
                    scored=np.concatenate([np.array(s.scored, bool) for s in sequences]),
                )  # fmt: skip
        except OSError as e:
            raise write_error(e, path) from None
        publish(part, path)

    def lessons(self) -> tuple[TrainingSequence, ...] | None:
        """The sequences that were kept; None before."""
        path = self.folder / "lessons.npz"
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as held:
                ends = np.cumsum(held["lengths"])[:-1]
                parts = zip(np.split(held["ids"], ends), np.split(held["scored"], ends), strict=True)
                return tuple(TrainingSequence(tuple(ids.tolist()), tuple(scored.tolist())) for ids, scored in parts)
        except (OSError, ValueError, KeyError) as e:
            raise CheckpointError(f"{path} is broken ({e}); remove {self.folder} and start again") from None

    def save(self, parameters: Mapping[str, Any], optimizer: Any, position: Position) -> float:
        """Keep the run's state; the seconds that it took. OutputError when it cannot be written, the one before stays."""
        begun, tensors = time.monotonic(), {}
        for name, parameter in parameters.items():
            held = optimizer.state.get(parameter, {})
            tensors[f"weight {name}"] = parameter.detach()
            for moment in ("exp_avg", "exp_avg_sq"):
                if moment in held:
                    tensors[f"{moment} {name}"] = held[moment]
        write_tensors(self.folder / _STATE, tensors, {"position": json.dumps(asdict(position))})
        return time.monotonic() - begun

    def restore(self, parameters: Mapping[str, Any], optimizer: Any) -> Position:
        """Put back what was saved; a new position when there is nothing. Raises CheckpointError when it is broken."""
        path = self.folder / _STATE
        if not path.exists():
            return Position()
        try:
            with safe_open(path, "pt") as held, torch.no_grad():
                position = Position(**json.loads(held.metadata()["position"]))
                for name, parameter in parameters.items():
                    parameter.copy_(held.get_tensor(f"weight {name}"))
                    moments = {m: f"{m} {name}" for m in ("exp_avg", "exp_avg_sq") if f"{m} {name}" in held.keys()}  # noqa: SIM118
                    if moments:
                        there = {m: held.get_tensor(key).to(parameter.device) for m, key in moments.items()}
                        steps = torch.tensor(float(position.step), device=parameter.device)
                        optimizer.state[parameter] = {"step": steps, **there}
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
            raise CheckpointError(f"{path} is broken ({e}); remove it to start from the student as it was") from None
        return position

    def finish(self, extra: Mapping[str, bytes | str]) -> None:
        """Give the best checkpoint the name of the result, with some more files in it. OutputError."""
        for name, data in extra.items():
            atomic_write(self.best / name, data)
        if self.curves.is_dir():
            shutil.copytree(self.curves, self.best / "runs", dirs_exist_ok=True)
        publish_folder(self.best, self.out)
        shutil.rmtree(self.folder, ignore_errors=True)


def write_tensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """A safetensors file, written beside its place and renamed. OutputError when it does not fit."""
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    if size > (free := free_disk(path)):
        raise OutputError(f"{path} needs {human_size(size)}, {human_size(free)} free: make room and go on with --resume")
    part = path.with_name(path.name + ".part")
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, part, dict(metadata))
    except (OSError, SafetensorError) as e:
        with suppress(OSError):
            part.unlink()
        raise OutputError(f"cannot write {path} ({e}): make room and go on with --resume") from None
    publish(part, path)


def _read(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_bytes())
    except (OSError, ValueError):
        held = None
    if not isinstance(held, dict):
        raise CheckpointError(f"{path} is broken; remove {path.parent} and start again")
    return held
