"""The losses of a run on the disk: a table of JSON lines, TensorBoard's event files, and at the end a picture.

TensorBoard's format is written by tensorboardX, the picture by matplotlib; both come with the train extra. Where one of them is
missing, the table is there all the same.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agent.errors import OutputError
from agent.files import publish, write_error

log = logging.getLogger(__name__)

_TABLE, _PICTURE = "losses.jsonl", "losses.png"
_COLOURS = ("#1f6fb2", "#d1661a", "#2c8a4b", "#8a4fb0", "#b03a48", "#6b6b6b")
_MANY = 60  # points from which on the noise of single steps is drawn pale, with a running mean through it
_SMOOTHED = 0.9  # of the running mean

Points = dict[str, dict[int, float]]  # name -> step -> value


class Curves:
    """Where a run writes its losses. A run that goes on writes on in the same folder, and what it says again counts.

    Args:
        folder: it is made; ``tensorboard --logdir`` reads it.

    Raises:
        OutputError: it cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._events: Any = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._table = (folder / _TABLE).open("a+b")
            self._table.seek(max(0, self._table.seek(0, 2) - 1))
            if self._table.read(1) not in (b"", b"\n"):  # a killed run was in the middle of a line
                self._table.write(b"\n")
        except OSError as e:
            raise write_error(e, folder) from None

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Note what was found at a step: name -> value; a name like ``train/loss`` belongs to a group. Raises OutputError."""
        try:
            self._table.write(json.dumps({"step": step, **values}).encode() + b"\n")
            self._table.flush()
            self._add_events(step, values)
        except OSError as e:
            raise write_error(e, self.folder) from None

    def _add_events(self, step: int, values: Mapping[str, float]) -> None:
        if find_spec("tensorboardX") is None:
            return
        if self._events is None:
            from tensorboardX import SummaryWriter

            # What a killed run has written from this step on does not count any more.
            self._events = SummaryWriter(str(self.folder), purge_step=step)
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()

    def close(self) -> None:
        """Nothing can be added afterwards."""
        self._table.close()
        if self._events is not None:
            self._events.close()


def read_points(folder: Path) -> Points:
    """What the table of a folder says; of a step that was computed twice, the later."""
    found: Points = defaultdict(dict)
    for line in (folder / _TABLE).read_bytes().splitlines():
        with suppress(ValueError, KeyError, TypeError, AttributeError):  # a killed run leaves half a line
            entry = json.loads(line)
            step = int(entry.pop("step"))
            for name, value in entry.items():
                found[name][step] = float(value)
    return dict(found)


def draw(folder: Path) -> Path:
    """Draw the losses over the steps as a PNG: the loss with its evaluation on the left, its parts on the right.

    Returns:
        the picture; the table where matplotlib is not installed.

    Raises:
        OutputError: there is no table, or the picture cannot be written.
    """
    if not (folder / _TABLE).is_file():
        raise OutputError(f"{folder} holds no {_TABLE}: no losses were written there")
    if find_spec("matplotlib") is None:
        log.warning("the losses are not drawn: matplotlib is not installed (pip install '.[train]' in the checkout of Sprig)")
        return folder / _TABLE
    part = folder / f"{_PICTURE}.part"
    try:
        _figure(read_points(folder)).savefig(part, format="png", dpi=120)
    except OSError as e:
        raise write_error(e, folder / _PICTURE) from None
    publish(part, folder / _PICTURE)
    return folder / _PICTURE


def _figure(points: Points) -> Any:
    from matplotlib.figure import Figure

    parts = sorted({name.partition("/")[2] for name in points} - {"loss"})
    figure = Figure(figsize=(11 if parts else 6.5, 4.2), layout="constrained")
    panels = figure.subplots(1, 2 if parts else 1, squeeze=False)[0]
    for axes, names, title in zip(panels, (["loss"], parts), ("Loss", "Its parts, before they are weighted"), strict=False):
        for i, name in enumerate(names):
            few = name == "loss"
            _line(axes, points.get(f"train/{name}"), _COLOURS[0 if few else i % 6], "training" if few else name)
            _marks(
                axes, points.get(f"evaluation/{name}"), _COLOURS[1 if few else i % 6], f"{'' if few else name + ', '}evaluation"
            )
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.has_data():
            axes.legend(frameon=False, fontsize="small")
    panels[0].set_ylabel("loss")
    return figure


def _line(axes: Any, points: Mapping[int, float] | None, colour: str, label: str) -> None:
    """Every step, and through many of them a running mean."""
    if not points:
        return
    steps = sorted(points)
    values = [points[step] for step in steps]
    if len(steps) < _MANY:
        axes.plot(steps, values, color=colour, linewidth=1.4, label=label)
        return
    mean, means = values[0], []
    for value in values:
        mean = _SMOOTHED * mean + (1 - _SMOOTHED) * value
        means.append(mean)
    axes.plot(steps, values, color=colour, linewidth=0.6, alpha=0.3)
    axes.plot(steps, means, color=colour, linewidth=1.6, label=f"{label}, running mean")


def _marks(axes: Any, points: Mapping[int, float] | None, colour: str, label: str) -> None:
    """An evaluation, marked where it was made."""
    if points:
        steps = sorted(points)
        axes.plot(
            steps, [points[s] for s in steps], color=colour, marker="o", markersize=4, linewidth=1.2, label=label, linestyle="--"
        )
