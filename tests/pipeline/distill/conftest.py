"""Networks this small are slower with more threads than one, and a run of some steps needs no ten evaluations."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _few_evaluations(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    alike = request.path.stem == "test_processes"  # runs here beside runs in processes of their own, which know nothing of this
    if find_spec("torch") is not None and not alike:
        from pipeline.distill import curves, loop

        monkeypatch.setattr(loop, "CHECKS", 3)
        monkeypatch.setattr(loop, "STEPS_OF_CHECK", 1)
        monkeypatch.setattr(curves, "draw", lambda folder: folder)  # a picture takes seconds, and has tests of its own
