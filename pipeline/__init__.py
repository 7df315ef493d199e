"""The workstation side of Sprig: a checkpoint becomes a GGUF.

from pipeline import quantize
result = quantize("HuggingFaceTB/SmolLM2-135M-Instruct", "Q4_0", "smollm2.gguf")
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.progress import Progress
    from pipeline.calibrate.calibrate import Calibrated, calibrate
    from pipeline.compress.compress import compress
    from pipeline.compress.plan import CompressPlan
    from pipeline.compress.report import Compressed
    from pipeline.distill.distill import Distilled, distill
    from pipeline.encoders import quantize
    from pipeline.evaluate.compare import evaluate
    from pipeline.evaluate.figures import Evaluation
    from pipeline.preflight import Preflight
    from pipeline.prune.outcome import Pruned
    from pipeline.prune.prune import prune
    from pipeline.quantize import QuantizeResult

__all__ = [
    "Calibrated", "CompressPlan", "Compressed", "Distilled", "Evaluation", "Preflight", "Progress", "Pruned", "QuantizeResult",
    "calibrate", "compress", "distill", "evaluate", "prune", "quantize",
]  # fmt: skip

_HOME = {
    "quantize": "encoders", "Progress": "quantize", "QuantizeResult": "quantize", "Preflight": "preflight",
    "calibrate": "calibrate.calibrate", "Calibrated": "calibrate.calibrate",
    "compress": "compress.compress", "CompressPlan": "compress.plan", "Compressed": "compress.report",
    "distill": "distill.distill", "Distilled": "distill.distill",
    "evaluate": "evaluate.compare", "Evaluation": "evaluate.figures",
    "prune": "prune.prune", "Pruned": "prune.outcome",
}  # fmt: skip


class _Package(ModuleType):
    """Gives the public names when they are asked for, so that `import pipeline` costs nothing.

    The functions carry the names of their modules, and importing a module sets it as an attribute of its package: the public
    name wins here.
    """

    def __getattribute__(self, name: str) -> Any:
        if name in _HOME:
            return getattr(import_module(f"pipeline.{_HOME[name]}"), name)
        return super().__getattribute__(name)


sys.modules[__name__].__class__ = _Package
