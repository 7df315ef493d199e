"""The agent on emulated ARM processors: what it finds out about them, and a turn with a tool."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from agent.sessions.store import Store
from tests.arm.emulation import PARTS, answer, needs_llama
from tests.fixtures.chat_ggufs import chat_model

pytestmark = [pytest.mark.arm, pytest.mark.timeout(600), needs_llama]

QUICK = "IQ4_NL, MXFP4, Q1_0, Q4_0, Q4_K, Q5_K, Q6_K, Q8_0"


@pytest.mark.parametrize(
    ("processor", "features", "used", "quick"),
    [
        ("cortex-a72", "no features that ggml uses", "any processor of this kind", "no type more than others"),
        ("cortex-a76", "dotprod, fp16", "dotprod, fp16", QUICK),
        ("i8mm", "bf16, dotprod, fp16, i8mm", "dotprod, fp16, i8mm", QUICK),
    ],
)
def test_doctor_knows_the_processor_and_finds_nothing_to_mend_in_llama_cpp(
    processor: str, features: str, used: str, quick: str, tmp_path: Path
) -> None:
    said = answer(processor, "-m", "sprig", "doctor", "--json", home=tmp_path)
    found = {finding["about"]: finding for finding in said["findings"]}
    assert f" cores, {features}; Linux, Python 3." in found["processor"]["found"]
    assert found["llama.cpp"]["found"].endswith(f", built for {used}; quick here: {quick}")
    assert found["llama.cpp"]["costs"] == ""
    assert "memory is read at" in found["bandwidth"]["found"]
    assert str(tmp_path / "models") in found["storage"]["found"]


def test_a_turn_with_a_tool_is_kept_and_read_on_both_machines(tmp_path: Path) -> None:
    model = chat_model(tmp_path / "m.gguf", "llama3")
    said = answer("cortex-a76", "-m", "tests.arm.take_turn", str(model), home=tmp_path)
    assert (said["machine"], said["error"]) == ("aarch64", "")
    assert [message["role"] for message in said["kept"]] == ["user", "assistant", "tool", "assistant"]
    (call,) = said["kept"][1]["calls"]
    assert (call["name"], call["arguments"]) == ("lamp", {"room": "kitchen", "on": True})
    assert said["kept"][2]["text"] == "the lamp in the kitchen is on"
    assert str(PARTS / "cortex-a76") in said["worker"]  # it was emulated as well
    with Store(tmp_path / "sessions.db") as store:
        kept = [asdict(stored.message) for stored in store.open(said["id"]).messages()]
    assert [(message["role"], message["text"]) for message in kept] == [(m["role"], m["text"]) for m in said["kept"]]
