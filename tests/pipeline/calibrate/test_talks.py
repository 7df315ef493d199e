"""A model writes its own calibration text: in its chat template with tools, or going on with a text when it has none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.gguf.reader import read_header
from agent.messages import Message, ToolSpec
from pipeline.calibrate import talks
from pipeline.calibrate.talks import write_talks
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.tiny import llama

pytestmark = pytest.mark.usefixtures("home")
TEXT = "\n\n".join(["the lark climbs", "a slow train hums", "wet fields lie still", "nobody saw the lamp"])


@dataclass(frozen=True)
class Asked:
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()


@pytest.mark.slow
def test_a_chat_model_answers_prompts_in_its_own_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talks, "_ANSWER", 12)
    path = chat_model(tmp_path / "chat.gguf", "hermes", llama__context_length=2048)
    prompts = [
        Asked((Message("user", "what is it"),)),
        Asked((Message("user", "go"),), (ToolSpec("get_time", "Tells the time."),)),
    ]
    told: list[tuple[int, int]] = []
    written = write_talks(path, prompts, TEXT, 600, threads=1, on_progress=lambda done, total: told.append((done, total)))
    assert sum(map(len, [*written.talks, *written.paragraphs])) >= 600
    assert told[-1][0] == told[-1][1]
    tokens = read_header(path).keys["tokenizer.ggml.tokens"]
    said = ["".join(tokens[i] for i in ids) for ids in written.talks]
    assert all(one.count("<|im_start|>") >= 2 and "assistant" in one for one in said), said[0][:400]
    assert any("get_time" in one for one in said)
    assert sum(map(len, written.paragraphs)) <= 200
    assert written.mixed() == written.mixed()
    assert sorted(written.mixed()) == sorted([*written.talks, *written.paragraphs])


@pytest.mark.slow
def test_prompts_that_are_too_long_for_the_model_give_way_to_the_text(tmp_path: Path) -> None:
    path = chat_model(tmp_path / "chat.gguf", "hermes", llama__context_length=64)
    written = write_talks(path, [Asked((Message("user", "what is it " * 20),))], TEXT, 100, threads=1)
    assert sum(map(len, written.talks)) >= 66


@pytest.mark.slow
def test_a_model_without_a_template_goes_on_with_the_text(tmp_path: Path) -> None:
    path = llama(tmp_path / "base.gguf", llama__context_length=64)
    written = write_talks(path, [], TEXT, 300, threads=1)
    assert sum(map(len, written.talks)) >= 200
    assert all(len(talk) <= 64 for talk in written.talks)
