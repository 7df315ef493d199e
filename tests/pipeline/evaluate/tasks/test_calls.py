"""The set of tool calls: what counts as right, and models that are asked for calls with the constraint and without."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from agent.messages import ToolCall
from pipeline.evaluate.tasks.call_tasks import CALLS, NONE, TOOLS, CallTask, right
from pipeline.evaluate.tasks.calls import TASKS, CallAnswer, score_calls
from tests.fixtures.chat_ggufs import chat_model

LIGHT = CallTask("Turn on the light in the hall.", "set_light", {"room": "hall", "on": True})


def test_the_set_asks_for_each_tool_as_often_as_for_the_others() -> None:
    tools = {tool.name: tool for tool in TOOLS}
    for tasks, each in ((CALLS, 10), ([task for task in TASKS if task.tool], 5)):
        assert Counter(task.tool for task in tasks) == dict.fromkeys(tools, each)
    assert not any(task.tool for task in NONE)
    for task in CALLS:
        assert set(task.arguments or {}) == set(tools[str(task.tool)].spec.parameters["properties"])
    assert len({task.wish for task in (*CALLS, *NONE)}) == len(CALLS) + len(NONE)


@pytest.mark.parametrize(
    ("name", "arguments", "fits"),
    [
        ("set_light", {"room": "hall", "on": True}, True),
        ("set_light", {"room": " Hall. ", "on": True}, True),
        ("set_light", {"room": "hall", "on": 1}, False),
        ("set_light", {"room": "hall"}, False),
        ("set_light", {"room": "hall", "on": True, "bright": 1}, False),
        ("set_timer", {"room": "hall", "on": True}, False),
    ],
)
def test_a_call_is_right_with_the_right_tool_and_all_arguments(name: str, arguments: dict[str, object], fits: bool) -> None:
    assert right(LIGHT, name, arguments) is fits
    assert CallAnswer(LIGHT, ToolCall(id="1", name=name, arguments=arguments), refused=False).right is fits


def test_where_no_call_is_needed_none_is_right() -> None:
    call = ToolCall(id="1", name="set_light", arguments={})
    assert CallAnswer(NONE[0], None, refused=False).right
    assert not CallAnswer(NONE[0], call, refused=False).right
    assert not CallAnswer(LIGHT, None, refused=False).right


@pytest.mark.slow
@pytest.mark.usefixtures("home", "kept_templates")
def test_models_are_compared_on_the_same_wishes(tmp_path: Path) -> None:
    one = chat_model(tmp_path / "one.gguf", "hermes")
    two = chat_model(tmp_path / "two.gguf", "hermes")
    progress: list[tuple[int, int]] = []
    scores = score_calls([one, two], threads=1, tasks=(CALLS[0], LIGHT, NONE[0]), on_progress=lambda *now: progress.append(now))
    assert [(s.model, s.constrain, s.wishes, s.others) for s in scores] == [
        (name, constrain, 2, 1) for name in ("one.gguf", "two.gguf") for constrain in (True, False)
    ]
    assert [s.difference is None for s in scores] == [True, True, False, False]
    for s in scores:
        assert 0 <= s.right.value <= min(s.tool.value, s.valid.value)
        assert s.restrained.error is None, "one wish has no spread"
    assert scores[2].difference is not None
    assert (scores[2].difference.value, scores[2].difference.error) == (0, 0), "the same weights"
    assert progress == [(n, 12) for n in range(1, 13)]
