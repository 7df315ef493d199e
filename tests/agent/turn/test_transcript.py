"""A conversation as tokens: it grows by its end, what fails leaves it as it was, and rebuilding gives what was there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from agent.errors import EngineError, TemplateError
from agent.messages import Message, Segment, ToolCall, ToolSpec
from agent.templates.chat_template import ChatTemplate
from agent.turn.transcript import Transcript
from tests.fixtures.chat_templates import TEMPLATES
from tests.fixtures.fake_engine import FakeEngine, turn_text

LOOK = ToolSpec("look", "Look.", {"type": "object", "properties": {"n": {"type": "integer"}}})
SYSTEM, USER = Message("system", "Be brief."), Message("user", "Rain?")
CALL = Message("assistant", calls=(ToolCall("look", {"n": 1}, "abcdefgh1"),))
RESULT = Message("tool", "rain", call_id="abcdefgh1", name="look")
MANY = [name for name in TEMPLATES if name != "odd"]


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, ChatTemplate]]:
    cache = tmp_path_factory.mktemp("cache")
    opened = {name: ChatTemplate(source, bos="<s>", eos="</s>", cache=cache) for name, (source, _) in TEMPLATES.items()}
    yield opened
    for template in opened.values():
        template.close()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


def begun(engine: FakeEngine, template: ChatTemplate, *, system: bool = True) -> Transcript:
    return Transcript(engine, template, (LOOK,), messages=[SYSTEM] if system else [], now=datetime(2031, 3, 5))


def text(transcript: Transcript) -> str:
    return "".join(map(chr, transcript.tokens))


def said(words: str) -> list[int]:
    return [ord(c) for c in words]


@pytest.mark.slow
def test_it_begins_with_the_head_and_knows_its_fixed_prefix(engine: FakeEngine, templates: Mapping[str, ChatTemplate]) -> None:
    one, two = begun(engine, templates["hermes"]), begun(engine, templates["hermes"])
    one.ask([USER])
    two.ask([Message("user", "Quite another question")])
    assert one.prefix == two.prefix
    fixed = text(one)[: one.prefix]
    assert fixed == text(two)[: two.prefix]
    assert "Be brief." in fixed
    assert '"look"' in fixed
    assert fixed.endswith("<|im_start|>user\n")


def test_what_was_generated_is_kept_token_by_token(engine: FakeEngine, templates: Mapping[str, ChatTemplate]) -> None:
    transcript = begun(engine, templates["hermes"])
    transcript.ask([USER])
    before = text(transcript)
    # As no template would write it: other spaces, other order of keys.
    odd = '<tool_call>\n{"arguments":   {"n":1},"name":"look"}\n</tool_call>'
    transcript.answer(CALL, said(odd))
    transcript.ask([RESULT])
    assert text(transcript).startswith(before + odd + "<|im_end|>\n")
    assert transcript.turns == {2: said(odd)}
    assert transcript.messages == [SYSTEM, USER, CALL, RESULT]


@pytest.mark.parametrize("name", MANY)
def test_rebuilt_of_its_own_turns_it_is_the_same(name: str, engine: FakeEngine, templates: Mapping[str, ChatTemplate]) -> None:
    dialect = TEMPLATES[name][1]
    transcript = begun(engine, templates[name])
    transcript.ask([USER])
    transcript.answer(CALL, said(turn_text(CALL, dialect=dialect)))
    transcript.ask([RESULT])
    transcript.answer(Message("assistant", "It rains."), said(turn_text(Message("assistant", "It rains."), dialect=dialect)))
    transcript.ask([Message("user", "Sure?")])
    again = begun(engine, templates[name], system=False)
    again.rebuild(transcript.messages, transcript.turns)
    assert (text(again), again.messages, again.prefix) == (text(transcript), transcript.messages, transcript.prefix)
    # And from the words alone, where the words were written as the family writes them.
    written = begun(engine, templates[name], system=False)
    written.rebuild(transcript.messages)
    assert text(written) == text(transcript)


def test_what_is_held_goes_before_the_next_question(engine: FakeEngine, templates: Mapping[str, ChatTemplate]) -> None:
    transcript = begun(engine, templates["hermes"])
    transcript.ask([USER])
    transcript.answer(CALL, said(turn_text(CALL)))
    transcript.held = [RESULT]
    transcript.ask([Message("user", "Well?")])
    assert transcript.held == []
    assert transcript.messages[-2:] == [RESULT, Message("user", "Well?")]
    assert text(transcript).index("rain\n</tool_response>") < text(transcript).index("Well?")


def test_what_fails_leaves_it_as_it_was(
    engine: FakeEngine, templates: Mapping[str, ChatTemplate], monkeypatch: pytest.MonkeyPatch
) -> None:
    transcript = begun(engine, templates["hermes"])
    for step in range(2):
        before = transcript.copy()
        engine.dead = True
        with pytest.raises(EngineError):
            transcript.ask([USER])
        engine.dead = False

        def refuse(*_: Any, **__: Any) -> Sequence[Segment]:
            raise TemplateError("no")

        with monkeypatch.context() as patch:
            patch.setattr(ChatTemplate, "head", refuse)
            patch.setattr(ChatTemplate, "continuation", refuse)
            with pytest.raises(TemplateError):
                transcript.ask([USER])
        assert (transcript.messages, transcript.tokens, transcript.held) == (before.messages, before.tokens, before.held), step
        transcript.ask([USER])
        transcript.answer(Message("assistant", "Yes."), said("Yes."))


def test_going_back_undoes_everything(engine: FakeEngine, templates: Mapping[str, ChatTemplate]) -> None:
    transcript = begun(engine, templates["hermes"])
    transcript.ask([USER])
    transcript.answer(CALL, said(turn_text(CALL)))
    transcript.held = [RESULT]
    kept, shown = transcript.copy(), text(transcript)
    transcript.ask([Message("user", "Well?")])
    transcript.rebuild([Message("user", "Else")])
    transcript.go_back(kept)
    assert text(transcript) == shown
    assert (transcript.messages, transcript.held, transcript.turns, transcript.prefix) == (
        kept.messages, kept.held, kept.turns, kept.prefix,
    )  # fmt: skip
    transcript.tokens.append(1)
    assert len(kept.tokens) == len(shown), "the copy is its own"


def test_the_cost_of_more_words_is_known_beforehand(engine: FakeEngine, templates: Mapping[str, ChatTemplate]) -> None:
    transcript = begun(engine, templates["qwen3"])
    transcript.ask([USER])
    transcript.answer(Message("assistant", "Yes."), said("Yes."))
    before = len(transcript.tokens)
    transcript.ask([Message("user", "Sure?")])
    added = text(transcript)[before:]
    assert added == "<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"


def test_the_date_stays(engine: FakeEngine, templates: Mapping[str, ChatTemplate]) -> None:
    transcript = begun(engine, templates["llama3"])
    transcript.ask([USER])
    transcript.answer(Message("assistant", "Yes."), said("Yes."))
    assert "05 Mar 2031" in text(transcript)
    before = text(transcript)
    transcript.rebuild([*transcript.messages, Message("user", "Sure?")], transcript.turns)
    assert text(transcript).startswith(before)


def test_a_conversation_that_an_assistant_begins_gets_an_empty_question(
    engine: FakeEngine, templates: Mapping[str, ChatTemplate], tmp_path: Path
) -> None:
    transcript = begun(engine, templates["gemma2"], system=False)
    transcript.rebuild([Message("assistant", "Hello."), Message("user", "Hi")])
    shown = text(transcript).rpartition("for 20 minutes.<end_of_turn>\n")[2]  # behind the example turns
    assert shown.count("<start_of_turn>user") == 2
    assert shown.endswith("Hello.<end_of_turn>\n<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n")
