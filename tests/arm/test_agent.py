"""The agent on emulated ARM processors: what it finds out about them, a turn with a tool, all modules."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from agent.sessions.store import Store
from tests.arm.emulation import PARTS, answer, needs_llama, needs_python, python
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.shared import shared

pytestmark = [pytest.mark.arm, pytest.mark.timeout(1200)]

# What each has that ggml asks about, and what its library uses of that.
PROCESSORS = {
    "cortex-a72": ("no features that ggml uses", "any processor of this kind", "no type more than others"),
    "cortex-a76": ("dotprod, fp16", "dotprod, fp16", "IQ4_NL, MXFP4, Q1_0, Q4_0, Q4_K, Q5_K, Q6_K, Q8_0"),
    "i8mm": ("bf16, dotprod, fp16, i8mm", "dotprod, fp16, i8mm", "IQ4_NL, MXFP4, Q1_0, Q4_0, Q4_K, Q5_K, Q6_K, Q8_0"),
}


def doctor(processor: str) -> dict[str, Any]:
    """What `sprig doctor --json` finds, by what it is about; looked at once."""

    def look(home: Path) -> None:
        (home / "found.json").write_text(python(processor, "-m", "sprig", "doctor", "--json", home=home))

    found = json.loads((shared(f"arm-doctor-{processor}", look) / "found.json").read_text())
    return {finding["about"]: finding for finding in found["findings"]}


@needs_python
@pytest.mark.parametrize("processor", PROCESSORS)
def test_doctor_knows_the_processor(processor: str) -> None:
    found = doctor(processor)
    assert f" cores, {PROCESSORS[processor][0]}; Linux, Python 3." in found["processor"]["found"]
    assert {"threads", "memory", "bandwidth", "storage"} <= {about for about, finding in found.items() if not finding["costs"]}


@needs_llama
@pytest.mark.parametrize("processor", PROCESSORS)
def test_doctor_has_nothing_to_mend_in_llama_cpp(processor: str) -> None:
    """The library that was loaded is the one that uses all that the processor has."""
    found = doctor(processor)["llama.cpp"]
    assert found["found"].endswith(f", built for {PROCESSORS[processor][1]}; quick here: {PROCESSORS[processor][2]}")
    assert found["costs"] == ""


@pytest.mark.parametrize("scripted", [pytest.param(True, marks=needs_python), pytest.param(False, marks=needs_llama)])
def test_a_turn_with_a_tool_is_kept_and_read_on_both_machines(scripted: bool, tmp_path: Path) -> None:
    """By a model that speaks from a script, and by a random one that llama.cpp runs and that is held to the call."""
    model = "" if scripted else str(chat_model(tmp_path / "m.gguf", "llama3"))
    said = answer("cortex-a76", "-m", "tests.arm.take_turn", model, home=tmp_path)
    assert (said["machine"], said["error"]) == ("aarch64", "")
    assert [message["role"] for message in said["kept"]] == ["user", "assistant", "tool", "assistant"]
    (call,) = said["kept"][1]["calls"]
    assert (call["name"], call["arguments"]) == ("lamp", {"room": "kitchen", "on": True})
    assert said["kept"][2]["text"] == "the lamp in the kitchen is on"
    with Store(tmp_path / "sessions.db") as store:
        kept = [asdict(stored.message) for stored in store.open(said["id"]).messages()]
    assert json.loads(json.dumps(kept)) == said["kept"]
    # Its children were emulated as well.
    modules = {module for command in said["children"] if str(PARTS / "cortex-a76") in command for module in command}
    assert modules & {"agent.templates.server", "agent.engine.worker"} == (
        {"agent.templates.server"} if scripted else {"agent.templates.server", "agent.engine.worker"}
    )


@needs_python
def test_every_module_of_a_device_can_be_imported(tmp_path: Path) -> None:
    """With what the base install brings and nothing else. The screen in a browser is an extra."""
    code = (
        "import importlib, pkgutil, platform, agent, tui\n"
        "names = [m.name for p in (agent, tui) for m in pkgutil.walk_packages(p.__path__, p.__name__ + '.')]\n"
        "for name in names:\n"
        "    if not name.endswith('_child') and not name.startswith('tui.serve.'): importlib.import_module(name)\n"
        "print(platform.machine(), len(names))"
    )
    machine, count = python("cortex-a72", "-c", code, home=tmp_path).split()
    assert machine == "aarch64"
    assert int(count) > 200
