"""The seed prompts: varied, well formed, in the shape that a chat template takes."""

from __future__ import annotations

from collections import Counter

import jsonschema

from pipeline.text import seeds


def test_many_languages_and_tasks() -> None:
    prompts = seeds.prompts()
    languages = Counter(prompt.language for prompt in prompts)
    assert 60 <= len(prompts) <= 100
    assert len(languages) >= 8
    assert min(languages[code] for code in ("en", "zh", "de", "fr", "es")) >= 7
    assert sum(1 for prompt in prompts if prompt.tools) >= 15
    assert {tool.name for prompt in prompts for tool in prompt.tools} >= {"calculate", "run_command", "send_mail"}


def test_each_ends_with_the_user_and_none_comes_twice() -> None:
    prompts = seeds.prompts()
    assert all(prompt.messages[-1].role == "user" and prompt.messages[-1].text for prompt in prompts)
    assert len({prompt.messages for prompt in prompts}) == len(prompts)


def test_tools_are_json_schemas_of_objects() -> None:
    for tool in {tool.name: tool for prompt in seeds.prompts() for tool in prompt.tools}.values():
        jsonschema.Draft202012Validator.check_schema(tool.parameters)
        assert tool.parameters["type"] == "object"
        assert set(tool.parameters["required"]) <= set(tool.parameters["properties"])
