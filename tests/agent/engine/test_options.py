"""What an engine's settings are called elsewhere: each foreign name is answered with the one here, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.agent import Agent
from agent.engine.handle import Engine
from agent.engine.options import ANSWERS, FOREIGN
from agent.errors import SprigError
from agent.settings.file import agent_settings
from agent.settings.kinds import SettingsError


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("n_ctx", "here it is context"),
        ("n_threads", "here it is threads"),
        ("n_batch", "here it is batch"),
        ("type_k", "here it is cache"),
        ("n_seq_max", "here it is conversations"),
        ("n_gpu_layers", "computed on the processor"),
        ("use_mmap", r"Engine\(repack=\.\.\.\)"),
        ("verbose", "leave it out"),
        ("chat_format", "own chat template"),
        ("temperature", r"Agent\(sampling=\{'temperature': \.\.\.\}\)"),
        ("temp", r"Agent\(sampling=\{'temperature': \.\.\.\}\)"),
        ("n_predict", r"Limits\(tokens=\.\.\.\)"),
        ("contxt", r"did you mean context\?"),
        ("quux", "there are context, cache, threads"),
    ],
)
def test_a_name_that_an_engine_does_not_have_is_answered(name: str, said: str) -> None:
    for make in (lambda **given: Engine("no model", **given), lambda **given: Agent("no model", engine=given)):
        with pytest.raises(SprigError, match=f"an engine has no setting '{name}': .*{said}") as e:
            make(**{name: 1})
        assert "\n" not in str(e.value)


def test_what_is_named_here_is_there() -> None:
    ours = set(Engine.__init__.__annotations__) | {"max_tokens", "temperature"}
    assert set(FOREIGN.values()) <= ours
    assert not ours & {name for name in {**FOREIGN, **ANSWERS} if name not in ("max_tokens", "temperature")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[engine]\nn_ctx = 4096", r"line 2: engine\.n_ctx is unknown; here it is engine\.context"),
        ("n_threads = 2", r"line 1: n_threads is unknown; here it is engine\.threads"),
        ("[engine]\nn_gpu_layers = 9", r"line 2: engine\.n_gpu_layers is unknown; .*on the processor here"),
        ("[sampling]\ntemp = 1", r"line 2: sampling\.temp is unknown; here it is sampling\.temperature"),
    ],
)
def test_the_settings_file_answers_the_same_names(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        agent_settings(path).load()


def test_a_double_of_an_engine_has_settings_of_its_own() -> None:
    class FakeOne(Engine):
        def __init__(self, **anything: Any) -> None:
            self._closed = True

    assert FakeOne(n_ctx=1)
