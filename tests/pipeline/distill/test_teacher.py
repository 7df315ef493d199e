"""The teacher's likeliest tokens on the disk: what was kept teaches what the teacher itself does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.errors import OutputError
from pipeline.distill.data.lesson import TrainingSequence
from pipeline.distill.pair import checkpoint_of, open_teacher
from tests.fixtures.later import later, needs
from tests.fixtures.learners import models

needs("transformers")
torch = later("torch")
room = later("pipeline.distill.teacher")
batches = later("pipeline.distill.batches")
loss = later("pipeline.distill.loss")
network = later("pipeline.network.build")

VOCABULARY, TEMPERATURE = 512, 2.0
CPU = "cpu"


def live() -> room.LiveTeacher:
    opened = open_teacher(str(models() / "teacher"))
    with checkpoint_of(opened) as tensors:
        return room.LiveTeacher(network.build(opened.config, tensors), ((1, 1), (2, 2)), VOCABULARY, TEMPERATURE)


def sequences(n: int = 5) -> tuple[TrainingSequence, ...]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        length = 6 + i
        scored = [bool(x) for x in rng.random(length) < 0.6]
        scored[1] = True
        made.append(TrainingSequence(tuple(rng.integers(3, VOCABULARY, length).tolist()), tuple(scored)))
    return tuple(made)


def filled(path: Path, k: int, n: int = 5) -> room.TeacherFile:
    file = room.TeacherFile(path, sequences(n), k, VOCABULARY)
    file.fill(live(), 2, CPU, lambda done, total: None)
    return file


def losses(kept: room.TeacherFile, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """By the network itself, and by what was kept of it; the batch is not in the file's order."""
    batch = batches.to_batch(kept.sequences, [3, 0, 4], CPU)
    student = torch.randn(len(batch.rows), VOCABULARY, generator=torch.Generator().manual_seed(1))
    ours, theirs = live().teach(batch), kept.open(CPU).teach(batch)
    return (
        loss.distilled(ours.logs, student, ours.ids, TEMPERATURE, kind),
        loss.distilled(theirs.logs, student, theirs.ids, TEMPERATURE, kind),
    )


def test_the_whole_vocabulary_kept_gives_the_whole_loss(tmp_path: Path) -> None:
    for kind in ("forward", "reverse", "js"):
        ours, theirs = losses(filled(tmp_path / "all", VOCABULARY), kind)
        torch.testing.assert_close(theirs, ours, rtol=2e-3, atol=2e-3)


def test_a_part_of_it_is_less_and_near(tmp_path: Path) -> None:
    whole, part = losses(filled(tmp_path / "some", 64), "forward")
    assert (part <= whole + 1e-3).all()
    assert part.mean() > 0.2 * whole.mean()


def test_the_size_is_known_beforehand_and_the_masses_sum_to_one(tmp_path: Path) -> None:
    file = filled(tmp_path / "top", 8)
    predictions = sum(map(batches.n_scored, file.sequences))
    assert file.path.stat().st_size == file.nbytes == predictions * (8 * 6 + 4)
    taught = file.open(CPU).teach(batches.to_batch(file.sequences, [1, 2], CPU))
    assert taught.ids.shape == (batches.n_scored(file.sequences[1]) + batches.n_scored(file.sequences[2]), 8)
    torch.testing.assert_close(taught.logs.exp().sum(-1), torch.ones(len(taught.logs)))


def test_what_was_asked_already_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = filled(tmp_path / "whole", 8)
    monkeypatch.setattr(room, "_SECONDS_BETWEEN_MARKS", 0.0)

    class Stopped(Exception): ...

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise Stopped

    broken = room.TeacherFile(tmp_path / "broken", whole.sequences, 8, VOCABULARY)
    with pytest.raises(Stopped):
        broken.fill(live(), 2, CPU, stop)
    assert broken.done() == 4
    asked: list[int] = []
    broken.fill(live(), 2, CPU, lambda done, total: asked.append(done))
    assert asked == [5]
    assert broken.path.read_bytes() == whole.path.read_bytes()
    broken.fill(live(), 2, CPU, stop)


def test_a_full_disk_is_said_before_the_teacher_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_disk", lambda path: 1000)
    with pytest.raises(
        OutputError, match=r"the teacher's top 100 of \d+ predictions need 1\d kB on the disk, 1 kB free at .*--top-k"
    ):
        filled(tmp_path / "x", 100)
    assert list(tmp_path.iterdir()) == []
