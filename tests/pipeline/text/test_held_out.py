"""The held-out texts: enough of each domain, nothing twice, nothing that calibration has seen."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import jsonschema
import pytest

from pipeline.forward.process import ForwardProcess
from pipeline.text import calibration, held_out, seeds
from pipeline.text.configs import config_files
from pipeline.text.tool_talk import tool_talks
from tests.fixtures.smollm2 import original

ROOT = Path(__file__).parents[3]
# Figures in docs/fidelity.md are of exactly these texts. Whoever changes the texts changes this, and makes the figures anew.
DIGEST = "58a1c4f5ea2d893ffd0b427ac0a6ffcd6d2df43e9f8d79ae32497954004f1381"
WINDOWS = 3
RUN = 8  # words; of Chinese and Japanese, characters


def words(text: str) -> list[str]:
    return re.findall(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+", text.lower())


def runs(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[i : i + RUN]) for i in range(len(found) - RUN + 1)}


def calibration_text() -> str:
    """All that a model is calibrated with and that is ours: plain text, requests, tools."""
    asked = [
        "\n".join(
            [
                *(message.text for message in prompt.messages),
                *(json.dumps(t.as_openai(), ensure_ascii=False) for t in prompt.tools),
            ]
        )
        for prompt in seeds.prompts()
    ]
    return "\n\n".join([calibration.own_text(), *asked])


@pytest.fixture(scope="module")
def smollm2():
    try:
        path = original()
    except FileNotFoundError as e:
        pytest.skip(str(e))
    with ForwardProcess(path, n_ctx=64, threads=1) as process:
        yield process


def test_every_domain_has_three_windows_of_512_tokens(smollm2: ForwardProcess) -> None:
    tokens = {name: len(smollm2.tokenize(text)) for name, text in held_out.domains().items()}
    assert min(tokens.values()) > WINDOWS * 512, tokens
    assert sum(tokens.values()) > 24_000, tokens
    assert len(smollm2.tokenize(calibration.own_text())) > 3_000


def test_four_languages_and_what_an_agent_reads_are_among_the_domains() -> None:
    assert {"chat", "tools", "code", "en", "de", "fr", "es", "zh"} <= set(held_out.domains())


def test_no_sentence_stands_there_twice() -> None:
    prose = "\n".join([text for name, text in held_out.domains().items() if name not in ("code", "tools")])
    sentences = [s.strip() for s in re.split(r"(?<=[.!?。？！؟।])\s*|\n", prose)]
    twice = [s for s, n in Counter(sentences).items() if n > 1 and len(words(s)) > 2]
    assert not twice


def test_no_run_of_eight_words_stands_in_two_domains() -> None:
    of = {name: runs(text) for name, text in held_out.domains().items()}
    assert not [(a, b, of[a] & of[b]) for a in of for b in of if a < b and of[a] & of[b]]


def test_calibration_has_not_seen_eight_words_of_it() -> None:
    seen = runs(calibration_text())
    assert not [(name, run) for name, text in held_out.domains().items() for run in runs(text) & seen]


def test_the_texts_are_those_that_the_figures_were_made_with() -> None:
    texts = sorted(held_out.domains().items())
    parts = [part.encode() for named in texts for part in named]
    assert hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).hexdigest() == DIGEST


def test_every_generated_call_keeps_to_the_definition_of_its_tool() -> None:
    for talk in tool_talks(seed=3):
        definitions, *turns = talk.split("\n\n")
        schemas = {tool["name"]: tool["parameters"] for tool in json.loads(definitions.partition("\n")[2])}
        calls = [json.loads(line.removeprefix("Call: ")) for turn in turns for line in turn.split("\n")[1:2]]
        assert len(calls) == 4
        for call in calls:
            jsonschema.validate(call["arguments"], schemas[call["name"]])
        assert "{" not in "".join(turn.split("\n")[0] + turn.split("\n")[3] for turn in turns)


def test_generated_files_can_be_parsed() -> None:
    toml, js = config_files(seed=3, n=2)
    assert len(tomllib.loads(toml)["sensor"]) == len(json.loads(js)["stations"]) == 2
    assert config_files(seed=3, n=2) == [toml, js]
    assert config_files(seed=4, n=2) != [toml, js]


def test_a_wheel_has_the_texts() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["pipeline"]
    package = ROOT / "pipeline"
    data = [file for file in (package / "text").rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")]
    assert len(data) > 10
    assert not [file for file in data if not any(fnmatch(str(file.relative_to(package)), pattern) for pattern in patterns)]
