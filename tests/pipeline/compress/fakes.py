"""A runner that makes what the commands would make, in a moment: bytes that follow from what they rest on."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.errors import SprigError
from pipeline.compress.stage import OnLine
from pipeline.compress.stages import BITS, PlannedStage
from pipeline.steps.command import CommandAnswer
from pipeline.steps.options import CommandOption, CommandOptions

COMMANDS: Mapping[str, CommandOptions] = {
    "prune": {
        "out": CommandOption("--out", "value", path=True),
        "vocab": CommandOption("--vocab", "values", path=True),
        "vocab_size": CommandOption("--vocab-size", "value"),
        "ffn": CommandOption("--ffn", "value"),
        "heads": CommandOption("--heads", "value"),
        "sparsity": CommandOption("--sparsity", "value"),
        "statistics": CommandOption("--statistics", "value", path=True),
        "threads": CommandOption("--threads", "value"),
    },
    "distill": {
        "data": CommandOption("--data", "values", path=True),
        "tokens": CommandOption("--tokens", "value"),
        "for": CommandOption("--for", "value"),
        "time": CommandOption("--time", "value"),
        "resume": CommandOption("--resume", "nothing"),
    },
    "calibrate": {
        "tokens": CommandOption("--tokens", "value"),
        "text": CommandOption("--text", "values", path=True),
        "resume": CommandOption("--resume", "nothing"),
        "threads": CommandOption("--threads", "value"),
    },
    "quantize": {
        "types": CommandOption("--types", "value"),
        "encoder": CommandOption("--encoder", "value"),
        "recipe": CommandOption("--recipe", "value"),
        "size": CommandOption("--size", "value"),
        "token": CommandOption("--token", "value"),
        "resume": CommandOption("--resume", "nothing"),
        "threads": CommandOption("--threads", "value"),
    },
    "evaluate": {
        "windows": CommandOption("--windows", "value"),
        "context": CommandOption("--context", "value"),
        "text": CommandOption("--text", "values", path=True),
        "threads": CommandOption("--threads", "value"),
    },
}


class FakeRunner:
    """Notes in a file which stages it began; ``killed`` at one, it leaves half of what it makes, and the process dies.

    Args:
        log: a line for each stage that begins, also across processes.
        killed: the stage at which this process is killed; "NAME+" when it has made all and not answered yet.
        losses: candidate -> mean KL divergence and bits per byte of its file.
        fails: the stage that cannot be done.
    """

    def __init__(
        self,
        log: Path,
        *,
        killed: str = "",
        losses: Mapping[str, float] | None = None,
        fails: str = "",
        error: str = "loss is NaN",
    ) -> None:
        self.log, self.killed, self.losses, self.fails, self.error = log, killed, losses or {}, fails, error

    @property
    def began(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []

    def __call__(self, stage: PlannedStage, home: Path, on_line: OnLine) -> CommandAnswer:
        with self.log.open("a") as log:
            log.write(f"{stage.name}\n")
        if stage.name == self.fails:
            raise SprigError(self.error)
        work = home.parent
        place = stage.place(work)
        data = hashlib.sha256(repr([stage.command, *(self._read(work, one) for one in stage.needs)]).encode()).hexdigest()
        if stage.name == self.killed:
            (home / "half").write_text(data[:9])
            os.kill(os.getpid(), signal.SIGKILL)
        if stage.makes:
            whole = place.with_name(f"{place.name}.part")
            if stage.command in ("prune", "distill", "calibrate"):
                whole.mkdir(exist_ok=True)
                (whole / "data").write_text(data)
            else:
                whole.write_text(data)
                place.with_suffix(".md").write_text(f"# {place.name}\n\nMade by Sprig.\n")
            if place.is_dir():
                shutil.rmtree(place)
            whole.replace(place)
        if stage.name + "+" == self.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        on_line("half of it is done")
        return CommandAnswer(self._answer(stage), 1000)

    def _read(self, work: Path, need: str) -> str:
        home = work / need
        made = [p for p in sorted(home.iterdir()) if p.suffix == ".gguf" or p.is_dir()]
        return "".join((one / "data" if one.is_dir() else one).read_text() for one in made)

    def _answer(self, stage: PlannedStage) -> dict[str, Any]:
        loss = self.losses.get(stage.name.partition(".")[0], 0.5)
        if stage.command == "evaluate":
            return evaluated(loss)
        if stage.command == BITS:
            return {"per_piece": [{"domain": "en", "bytes": 100, "bits": loss + more} for more in (-0.01, 0.0, 0.01)]}
        return {"size": 64}


def evaluated(loss: float) -> dict[str, Any]:
    """What `sprig evaluate --json` says."""
    windows = [
        {"domain": d, "tokens": 10, "kld": loss + more, "nll": 2.0, "top1": 0.9}
        for d, more in (("en", 0.02), ("en", -0.02), ("de", 0.0))
    ]
    estimate = {"value": loss, "error": 0.01, "token_error": None}
    figures = {
        "windows": 3, "tokens": 30, "nll": estimate, "perplexity": estimate, "bits_per_byte": estimate, "kld": estimate,
        "kld_median": estimate, "kld_p99": estimate, "top1": estimate, "rms_dp": estimate, "nll_over_reference": estimate,
    }  # fmt: skip
    one = {
        "name": "x.gguf", "path": "/x.gguf", "size": 64, "weights": 100, "load_seconds": 0.1, "overall": figures,
        "per_domain": {"en": figures, "de": figures}, "per_window": windows,
    }  # fmt: skip
    return {"style": "sprig", "n_ctx": 64, "seconds": 1.0, "reference": None, "candidates": [one], "notes": []}
