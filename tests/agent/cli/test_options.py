"""The options that `sprig ask` and `sprig chat` share: what a command line says comes before the settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from agent.approval.policy import Rule
from agent.cli.ask import ask_app
from agent.cli.options import AgentOptions, find_session
from agent.errors import SprigError
from agent.sessions.store import Store
from agent.settings.values import EngineSettings, LimitSettings, SamplingSettings, Settings
from agent.tools.mcp.config import ServerConfig
from tests.fixtures.paths import ROOT

FILE = Settings(
    model="of the file", system="of the file", root="/", tools=("clock",), thinking="on", rules=(Rule("deny", "fetch_url"),),
    mcp=(ServerConfig("house", url="https://house.example"),), sampling=SamplingSettings(temperature=0.5, max_tokens=9),
    limits=LimitSettings(rounds=3), engine=EngineSettings(context=4096, cache="q8_0"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPRIG_MODEL", raising=False)


def test_without_options_everything_is_as_the_settings_have_it() -> None:
    assert AgentOptions().over(FILE) == FILE


def test_each_option_comes_before_the_settings(tmp_path: Path) -> None:
    found = AgentOptions(
        model="m", system="", root=tmp_path, tool=["read_file"], think=False, allow=["git__*"], mcp=["b=npx b"], context=512,
        cache="f16", threads=2, memory=7, lora=["a.gguf=0.5"], temperature=0.0, seed=7, max_tokens=5, rounds=4, seconds=6.0,
    ).over(FILE)  # fmt: skip
    assert found == Settings(
        model="m", system="", root=str(tmp_path), tools=("read_file",), thinking="off",
        rules=(*FILE.rules, Rule("allow", "git__*")), mcp=(*FILE.mcp, ServerConfig("b", command=("npx", "b"))),
        sampling=SamplingSettings(temperature=0.0, seed=7, max_tokens=5), limits=LimitSettings(rounds=4, seconds=6.0),
        engine=EngineSettings(context=512, cache="f16", threads=2, memory=7, lora=("a.gguf=0.5",)),
    )  # fmt: skip


def test_the_environment_names_the_model_between_option_and_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRIG_MODEL", "of the environment")
    assert AgentOptions().over(FILE).model == "of the environment"
    assert AgentOptions(model="m").over(FILE).model == "m"
    monkeypatch.setenv("SPRIG_MODEL", "")
    assert AgentOptions().over(FILE).model == "of the file"


def test_no_tools_and_tools_of_a_file(tmp_path: Path) -> None:
    assert AgentOptions(tool=["none"]).over(FILE).tools == ()
    mine = tmp_path / "mine.py"
    mine.write_text("from agent import tool\n@tool\ndef shout(word: str) -> str:\n    'Shout.'\n    return word\nagain = shout\n")
    clock, shout = AgentOptions(tool=["clock", str(mine)]).over(FILE).tools
    assert (clock, getattr(shout, "name", "")) == ("clock", "shout")


def test_a_session_is_new_the_last_or_one_by_its_id(tmp_path: Path) -> None:
    with Store(tmp_path / "sessions.db") as store:
        assert find_session(store, "new") is None
        with pytest.raises(SprigError, match="there is no session yet"):
            find_session(store, "last")
        kept = store.create()
        for wanted in ("last", kept.id, kept.id[:6]):
            found = find_session(store, wanted)
            assert found is not None
            assert found.id == kept.id


def test_every_option_of_ask_is_in_the_guide_and_no_other() -> None:
    text = (ROOT / "docs" / "agent.md").read_text()
    guide = text[text.index("\n## sprig ask\n") :]
    table = {
        name
        for line in guide.splitlines()
        if line.startswith("| `-")
        for name in re.findall(r"`(--?[a-z-]+)`", line.split("|")[1])
    }
    real = {name for p in get_command(ask_app).params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")}
    assert table | {"--verbose"} == real - {"-h", "--help"}
