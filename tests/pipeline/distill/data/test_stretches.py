"""The assistant's part is found in the templates of all families, whatever they do to the past."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from agent.templates.chat_template import ChatTemplate
from pipeline.distill.data.content import ChatTranscript
from pipeline.distill.data.files import _read_line
from pipeline.distill.data.stretches import Stretch, stretches_of
from tests.fixtures.chat_templates import TEMPLATES
from tests.pipeline.distill.data.test_read import TALK, TOOL


def text(stretch: Stretch) -> str:
    return "".join(segment.text for segment in stretch.segments)


def sequences(name: str) -> list[list[Stretch]]:
    talk = _read_line(json.dumps({"messages": TALK, "tools": [TOOL]}))
    assert isinstance(talk, ChatTranscript)
    with closing(ChatTemplate(TEMPLATES[name][0], bos="<s>", eos="</s>")) as template:
        return stretches_of(template, talk)


@pytest.mark.parametrize("name", TEMPLATES)
def test_three_turns_and_nothing_of_others(name: str) -> None:
    found = sequences(name)
    call, answer, bye = (text(one) for sequence in found for one in sequence if one.scored)
    assert "look" in call
    assert "Bern" in call
    assert "It rains." in answer
    assert bye.removeprefix("all").strip().removeprefix("</think>").strip().startswith("Bye.")
    for said in (call, answer, bye):
        assert not any(words in said for words in ("Weather", "Be brief", "Thanks", "rain<", "rain\n", "<|im_start|>"))
        assert said == said.rstrip()
    for sequence in found:
        assert [one.scored for one in sequence] == [False, True] * (len(sequence) // 2)
        assert "Weather in Bern?" in text(sequence[0])


@pytest.mark.slow
def test_turns_whose_past_is_written_otherwise_stand_behind_the_prompt() -> None:
    """Qwen-Coder's template leaves old thoughts out; DeepSeek's opens a thought and drops it afterwards."""
    _, second = sequences("qwen-coder")
    assert [text(one) for one in second if one.scored] == ["\n</think>\n\nBye.<|im_end|>"]
    assert text(second[0]).endswith("<|im_start|>assistant\n<think>\n")
    first, second, third = sequences("deepseek")
    assert text(first[0]).endswith("<｜Assistant｜><think>\n")
    assert text(first[1]).startswith("I must look.\n</think>\n\n<｜tool▁calls▁begin｜>")
    assert text(second[1]) == "<think>\nSay it.\n</think>\n\nIt rains.<｜end▁of▁sentence｜>"
    assert text(third[1]) == "Bye.<｜end▁of▁sentence｜>"
