"""Probing: what a template can do is seen in what it renders, and is found again on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest

from agent.dialects import families
from agent.dialects.base import Thinking
from agent.dialects.probe import difference
from agent.errors import TemplateError
from agent.messages import Message
from agent.templates.chat_template import CHATML_FALLBACK, ChatTemplate
from agent.templates.profile import Profile
from tests.fixtures.chat_templates import CHATML, HERMES, TEMPLATES

PROFILES: dict[str, Profile] = {}


def profile_of(name: str) -> Profile:
    """Probed once for all tests of this file."""
    if name not in PROFILES:
        with closing(ChatTemplate(TEMPLATES[name][0], bos="<s>", eos="</s>")) as template:
            PROFILES[name] = template.profile
    return PROFILES[name]


def names(test: Callable[[Profile], bool]) -> set[str]:
    return {name for name in TEMPLATES if test(profile_of(name))}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_dialect_is_found_by_looking(name: str) -> None:
    found = profile_of(name)
    assert found.error is None
    assert found.dialect.name == TEMPLATES[name][1]


@pytest.mark.parametrize("name", [n for n in TEMPLATES if n in families.DIALECTS])
def test_a_familys_marks_are_the_ones_that_are_known_of_it(name: str) -> None:
    assert profile_of(name).dialect == families.DIALECTS[name]


def test_a_format_of_no_family_becomes_a_dialect_of_what_was_seen() -> None:
    odd = profile_of("odd").dialect
    assert (odd.section_open, odd.section_close, odd.separator, odd.trigger) == ("<acts>[", "]</acts>", ";", "<acts>")
    assert (odd.name_key, odd.arguments_key, odd.style, odd.parallel) == ("act", "with", "json", True)


def test_what_templates_cannot_do_is_noticed() -> None:
    assert names(lambda p: not p.system) == {"gemma2"}
    assert names(lambda p: not p.calls) == {"chatml", "gemma2", "lfm2", "granite3", "phi4", "smollm3"}
    assert names(lambda p: not p.results) == {"chatml", "gemma2"}
    assert names(lambda p: p.calls and not p.parallel) == {"llama3"}
    assert names(lambda p: p.alternates) == {"gemma2", "ministral", "mistral-small", "mistral-nemo"}
    assert names(lambda p: p.user_first) == {"gemma2", "ministral", "mistral-small", "mistral-nemo"}
    assert names(lambda p: not p.tools) == {"chatml", "gemma2", "deepseek"}


def test_how_templates_want_things_is_noticed() -> None:
    assert names(lambda p: p.arguments == "string") == {"functionary-3.2", "deepseek"}
    assert names(lambda p: p.null_content) == {"deepseek"}
    assert names(lambda p: p.empty_tools) == {"functionary-3.1"}
    assert {profile_of("phi4").tools, profile_of("smollm3").tools} == {"system", "xml_tools"}
    assert profile_of("functionary-3.2").prefix.endswith(">>>")
    assert profile_of("gemma2").prefix == "<start_of_turn>model\n"


def test_thinking_is_found_with_its_marks_its_place_and_its_switch() -> None:
    assert names(lambda p: p.thinking == families.THINK) == {
        "qwen3", "qwen-coder", "lfm2.5", "minicpm5", "deepseek", "smollm3"
    }  # fmt: skip
    assert profile_of("ministral").thinking == families.MISTRAL_THINK
    assert profile_of("ministral").thinking_key == "blocks"
    assert profile_of("lfm2.5").thinking_key == "thinking"
    assert profile_of("qwen3").thinking_key == "reasoning_content"
    for name in ("qwen3", "qwen-coder", "smollm3"):
        assert profile_of(name).thinking_off == {"enable_thinking": False}
        assert profile_of(name).thinking_on == {"enable_thinking": True}
        assert "enable_thinking" in profile_of(name).options


def test_marks_of_a_thought_that_nobody_knows_are_read_off() -> None:
    source = CHATML.replace(
        "~ m.content ~", "~ ('{musing}' ~ m.reasoning_content ~ '{/musing}' if m.reasoning_content else '') ~ m.content ~"
    )
    with closing(ChatTemplate(source)) as template:
        assert template.profile.thinking == Thinking("{musing}", "{/musing}")


def test_an_option_that_changes_the_past_is_an_option() -> None:
    source = CHATML.replace("m.content ~", "(m.thinking if preserve_thinking and m.thinking else '') ~ m.content ~")
    with closing(ChatTemplate("{% set preserve_thinking = preserve_thinking | default(false) %}" + source)) as template:
        assert template.profile.options == ("preserve_thinking",)


def test_a_template_that_renders_nothing_says_why() -> None:
    with closing(ChatTemplate("{{ raise_exception('Not today') }}")) as template:
        assert template.profile.error == "Not today"
        with pytest.raises(TemplateError, match="does not render a conversation: Not today"):
            template.head([Message("user", "x")])


def test_the_fallback_is_the_plain_format() -> None:
    with closing(ChatTemplate(CHATML_FALLBACK)) as template:
        assert (template.profile.dialect.name, template.profile.system, template.profile.results) == ("generic", True, False)


def test_a_difference_cuts_no_mark_in_two() -> None:
    assert difference("<|user|>x<|say|>W<|end|>", "<|user|>x<|start|>call<|send|>") == ("<|start|>call<|send|>", "<|user|>x")
    assert difference("aWz", "az") == ("", "a")


def test_a_profile_is_kept_and_read_back(tmp_path: Path) -> None:
    with closing(ChatTemplate(TEMPLATES["qwen3"][0], cache=tmp_path / "templates")) as template:
        found = template.profile
    (kept,) = (tmp_path / "templates").iterdir()
    assert Profile.from_dict(json.loads(kept.read_text())) == found
    kept.write_text(json.dumps({**asdict(found), "prefix": "kept"}))
    with closing(ChatTemplate(TEMPLATES["qwen3"][0], cache=tmp_path / "templates")) as template:
        assert template.profile.prefix == "kept"
    with closing(ChatTemplate(TEMPLATES["qwen3"][0], bos="<s>", cache=tmp_path / "templates")) as template:
        assert template.profile.prefix == found.prefix


@pytest.mark.parametrize(
    "spoilt", ["", "[]", "{}", '{"prefix": 1}', "[" * 5000, '{"thinking": null, "options": [], "dialect": {}}']
)
def test_a_spoilt_profile_is_probed_again(tmp_path: Path, spoilt: str) -> None:
    with closing(ChatTemplate(HERMES, cache=tmp_path)) as template:
        found = template.profile
    (kept,) = tmp_path.iterdir()
    kept.write_text(spoilt)
    with closing(ChatTemplate(HERMES, cache=tmp_path)) as template:
        assert template.profile == found
    assert json.loads(kept.read_text()) == json.loads(json.dumps(asdict(found)))


def test_a_profile_with_a_wrong_type_is_none() -> None:
    with pytest.raises(TypeError, match="parallel is not a bool"):
        Profile.from_dict({**asdict(Profile()), "parallel": "yes"})


def test_a_folder_that_cannot_be_written_costs_only_the_probe(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with closing(ChatTemplate(CHATML, cache=tmp_path / "file")) as template:
        assert template.profile.error is None


def test_probing_takes_a_moment() -> None:
    with closing(ChatTemplate(TEMPLATES["gemma4"][0])) as template:
        template._process.render([])  # the child is up
        started = time.process_time(), time.monotonic()
        assert template.profile.calls
        assert time.process_time() - started[0] < 0.5
        assert time.monotonic() - started[1] < 10
