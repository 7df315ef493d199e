"""The child process of ``pipeline.calibrate.collect``: windows in, sums in files out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.engine.llama import Context, ContextSettings, LlamaError
from agent.gguf.reader import read_header
from pipeline.calibrate.inputs import Input
from pipeline.calibrate.moments import Moments
from pipeline.calibrate.watch import ActivationWatch
from pipeline.forward.child import Forward, main


class Calibration(Forward):
    """A model whose inputs are added up while it reads windows."""

    ops = (*Forward.ops, "scout", "begin", "window", "keep")

    def __init__(self, message: Mapping[str, Any]) -> None:
        self.watch = ActivationWatch(list(read_header(Path(message["path"])).tensors))
        self.moments: dict[str, Moments] = {}
        self.files: dict[str, Path] = {}
        super().__init__(message)

    def make_context(self, settings: ContextSettings) -> Context:
        # Only of tokens whose logits are asked for does llama.cpp compute the last block whole.
        return Context(self.model, replace(settings, n_outputs=settings.n_batch), self.watch)

    def scout(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Find the inputs with a few tokens."""
        self.watch.scout()
        self._compute(message["ids"])
        return {"inputs": [one.to_dict() for one in self.watch.found()]}

    def begin(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Begin the sums of a group of inputs, or go on from the files where they are; says how many windows all have."""
        inputs, products = [Input.from_dict(one) for one in message["inputs"]], set(message["products"])
        self.moments.clear()  # the memory of the group before
        self.files = {one.name: Path(path) for one, path in zip(inputs, message["files"], strict=True)}
        for one in inputs:
            path, full = self.files[one.name], one.name in products
            self.moments[one.name] = Moments.load(path, one, products=full) if path.exists() else Moments(one, products=full)
        self.watch.measure(self.moments, inputs[-1].name)
        return {"windows": min(m.windows for m in self.moments.values())}

    def window(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Add a window to the sums that it is not in yet: after a kill some files know of more windows than others."""
        number = int(message["number"])
        wanted = {name: m for name, m in self.moments.items() if m.windows == number}
        if wanted:
            self.watch.measure(wanted, list(wanted)[-1])
            self._compute(message["ids"])
            for moments in wanted.values():
                moments.windows = number + 1
        return {}

    def keep(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Write all sums down."""
        for name, moments in self.moments.items():
            moments.save(self.files[name])
        return {}

    def _compute(self, ids: list[int]) -> None:
        self.watch.begin()
        for _ in self.decode(ids, 0):
            self.watch.begin()
            if self.watch.error is not None:
                error, self.watch.error = self.watch.error, None
                raise LlamaError(f"its activations cannot be read: {error}") from error


if __name__ == "__main__":
    main(Calibration)
