"""The child process of ``pipeline.refine.refine``: the original and a rounded file read the same windows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.calibrate.child import Calibration
from pipeline.calibrate.inputs import Input
from pipeline.forward.child import Forward, main
from pipeline.refine.sums import CrossMoments, InputRows


class PairedCalibration(Calibration):
    """The rounded file, with the original beside it."""

    ops = (*Forward.ops, "scout", "begin", "window", "keep")

    def __init__(self, message: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.original = Calibration({**message, "path": message["original"]})
        self.rows: dict[str, InputRows] = {}

    def scout(self, message: Mapping[str, Any]) -> dict[str, Any]:
        self.original.scout(message)
        return super().scout(message)

    def begin(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Begin the sums of a group of inputs."""
        inputs = [Input.from_dict(one) for one in message["inputs"]]
        self.files = {one.name: Path(path) for one, path in zip(inputs, message["files"], strict=True)}
        self.rows = {one.name: InputRows(one) for one in inputs}
        self.moments = {one.name: CrossMoments(one, self.rows[one.name]) for one in inputs}
        return {}

    def window(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Let both read a window, the original first."""
        last = list(self.rows)[-1]
        self.original.watch.measure(self.rows, last)
        self.original._compute(message["ids"])
        self.watch.measure(self.moments, last)
        self._compute(message["ids"])
        return {}


if __name__ == "__main__":
    main(PairedCalibration)
