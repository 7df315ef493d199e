"""Losses on the disk: read back by TensorBoard itself, drawn, and whole after a kill."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from agent.errors import OutputError
from pipeline.distill import curves as room
from pipeline.distill.curves import Curves, draw, read_points


def written(folder: Path, first: int, last: int, *, close: bool = True) -> Curves:
    curves = Curves(folder)
    for step in range(first, last):
        loss = 2 * math.exp(-step / 40) + 0.3 * math.cos(step)
        curves.add(step, {"train/loss": loss, "train/divergence": loss * 0.8, "train/language": 3.1 + loss / 4})
        if step % 20 == 0:
            curves.add(step, {"evaluation/loss": loss + 0.1, "evaluation/divergence": loss, "evaluation/language": 3.2})
    if close:
        curves.close()
    return curves


def test_a_killed_run_goes_on_in_the_same_curves(tmp_path: Path) -> None:
    written(tmp_path, 0, 30, close=False)
    with (tmp_path / "losses.jsonl").open("ab") as file:
        file.write(b'{"step": 30, "train/lo')
    written(tmp_path, 25, 50)
    points = read_points(tmp_path)
    assert sorted(points["train/loss"]) == list(range(50))
    assert sorted(points["evaluation/loss"]) == [0, 20, 40]
    lines = (tmp_path / "losses.jsonl").read_bytes().splitlines()
    assert len([line for line in lines if line.startswith(b'{"step"') and line.endswith(b"}")]) == len(lines) - 1


def test_tensorboard_reads_the_event_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed")
    written(tmp_path, 0, 30, close=False)
    written(tmp_path, 25, 50)
    held = reader.EventAccumulator(str(tmp_path))
    held.Reload()
    assert sorted(held.Tags()["scalars"])[0] == "evaluation/divergence"
    events = held.Scalars("train/loss")
    assert [event.step for event in events] == list(range(50))
    assert [event.value for event in events] == pytest.approx(list(read_points(tmp_path)["train/loss"].values()))


def test_event_files_are_records_with_right_sums(tmp_path: Path) -> None:
    """The record format of TensorFlow's record_writer.h: length, its sum, data, its sum, by tensorboardX's own messages."""
    proto = pytest.importorskip("tensorboardX.proto.event_pb2", reason="tensorboardX is not installed")
    written(tmp_path, 0, 3)
    (file,) = tmp_path.glob("events.out.tfevents.*")
    raw, found = file.read_bytes(), []
    while raw:
        size = int.from_bytes(raw[:8], "little")
        event = proto.Event.FromString(raw[12 : 12 + size])
        found += [(event.step, value.tag) for value in event.summary.value]
        raw = raw[16 + size :]
    assert (2, "train/loss") in found
    assert len(found) == 3 * 3 + 3


@pytest.mark.slow
def test_a_picture_of_both_curves(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    written(tmp_path, 0, 100)
    path = draw(tmp_path)
    assert path == tmp_path / "losses.png"
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not list(tmp_path.glob("*.part"))


def test_without_the_libraries_the_table_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    written(tmp_path, 0, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["losses.jsonl"]
    assert draw(tmp_path) == tmp_path / "losses.jsonl"
    assert json.loads((tmp_path / "losses.jsonl").read_text().splitlines()[0])["step"] == 0


def test_a_folder_without_losses_and_one_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"holds no losses\.jsonl"):
        draw(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        Curves(tmp_path / "file" / "runs")
