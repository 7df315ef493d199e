"""The ground floor stands alone: what a device installs needs nothing of the floors above."""

from __future__ import annotations

import subprocess
import sys

from tests.fixtures.paths import ROOT

MODULES = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts)
    for p in (ROOT / "agent").rglob("*.py")
    if p.stem != "__init__" and not p.stem.endswith("_child")
)
ABOVE = {"pipeline", "tui", "torch", "transformers", "tokenizers", "huggingface_hub", "sentencepiece", "safetensors", "gguf"}


def loaded_after(program: str) -> set[str]:
    ended = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=True,
    )  # fmt: skip
    return {name.split(".")[0] for name in ended.stdout.split()}


def test_no_module_of_agent_imports_a_floor_above() -> None:
    assert len(MODULES) > 8
    loaded = loaded_after("\n".join(f"import {module}" for module in MODULES))
    assert "agent" in loaded
    assert not loaded & ABOVE


def test_the_package_itself_is_light() -> None:
    assert not loaded_after("import agent") & {"numpy", "jinja2", "llama_cpp"}


def test_the_parent_of_a_trial_never_links_llama_cpp() -> None:
    assert "llama_cpp" not in loaded_after("import agent.engine.trial, agent.gguf.check, agent.files, agent.templates.probe")


def test_the_child_that_renders_a_template_is_light() -> None:
    assert not loaded_after("import agent.templates.server") & {"numpy", "llama_cpp"}
