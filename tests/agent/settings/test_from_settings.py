"""An agent as the settings file describes it: for a script, without a screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent import Agent, SprigError, tool
from agent.approval.policy import Rule
from agent.settings.file import agent_settings
from agent.settings.kinds import SettingsError
from agent.settings.values import Settings
from tests.fixtures.fake_engine import FakeEngine, call_text
from tests.fixtures.mcp_servers import raw


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SPRIG_MODEL", raising=False)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Which models are opened, and how."""
    found: list[tuple[str, dict[str, Any]]] = []

    class Noted(FakeEngine):
        def __init__(self, model: str, **engine: Any) -> None:
            super().__init__()
            found.append((model, engine))

    monkeypatch.setattr("agent.agent.Engine", Noted)
    return found


def test_everything_in_the_file_is_what_the_agent_has(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "garden").mkdir()
    (home / "settings.toml").write_text(
        f"model = 'mine'\nsystem = 'Be brief.'\nroot = '{tmp_path / 'garden'}'\n"
        "tools = ['clock', 'read_file']\nunconfined = true\n"
        "sampling = { temperature = 0.25, seed = 7, max_tokens = 99 }\nlimits = { rounds = 3, seconds = 60 }\n"
        "engine = { context = 4096, cache = 'q8_0', threads = 2, lora = ['a.gguf=0.5'] }\n"
        "[[rules]]\naction = 'deny'\ntool = 'clock'\n"
        "[screen]\ntheme = 'what the chat alone knows'\n[keys]\nx = 'y'\n"
    )
    models = opened(monkeypatch)
    with Agent.from_settings() as agent:
        assert models == [("mine", {"context": 4096, "cache": "q8_0", "threads": 2, "memory": None, "lora": ("a.gguf=0.5",)})]
        assert agent.system == "Be brief."
        assert [t.name for t in agent.tools] == ["clock", "read_file"]
        assert (agent.gate.policy.rules, agent.gate.policy.unconfined) == ((Rule("deny", "clock"),), True)
        assert (agent.limits.rounds, agent.limits.tokens, agent.limits.seconds) == (3, 99, 60.0)
        assert (agent.sampling.temperature, agent.sampling.seed) == (0.25, 7)


def test_without_a_file_it_is_an_agent_with_the_defaults() -> None:
    with Agent.from_settings(model=FakeEngine(["Hello."])) as agent:
        assert agent.run("Hi").text == "Hello."
        assert (agent.tools, agent.system, agent.limits.rounds) == ((), "", 20)


def test_arguments_come_before_the_file(home: Path, tmp_path: Path) -> None:
    (home / "settings.toml").write_text("system = 'of the file'\ntools = ['clock']\nlimits.rounds = 3\n")
    other = tmp_path / "other.toml"
    other.write_text("system = 'of another file'\n")

    def water(bed: int) -> str:
        return "wet"

    with Agent.from_settings(model=FakeEngine(), tools=[water], system="mine") as agent:
        assert ([t.name for t in agent.tools], agent.system, agent.limits.rounds) == (["water"], "mine", 3)
    with Agent.from_settings(other, model=FakeEngine()) as agent:
        assert (agent.system, agent.limits.rounds) == ("of another file", 20)
    with Agent.from_settings(Settings(system="in hand"), model=FakeEngine()) as agent:
        assert agent.system == "in hand"
    with pytest.raises(SettingsError, match="there is no settings file"):
        Agent.from_settings(tmp_path / "nowhere.toml")
    other.write_text("limits.rounds = 0")
    with pytest.raises(SettingsError, match=r"other.toml, line 1: limits.rounds is 0"):
        Agent.from_settings(other)


def test_the_model_is_named_by_the_environment_the_file_or_the_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = opened(monkeypatch)
    with pytest.raises(SprigError, match="none is in the store"):
        Agent.from_settings()
    (home / "models").mkdir()
    (home / "models" / "one.gguf").touch()
    Agent.from_settings().close()
    (home / "models" / "two.gguf").touch()
    with pytest.raises(SprigError, match=r"the store has 2.* one of one, two"):
        Agent.from_settings()
    agent_settings(home / "settings.toml").change("model", "two")
    Agent.from_settings().close()
    monkeypatch.setenv("SPRIG_MODEL", "three")
    Agent.from_settings().close()
    assert [model for model, _ in models] == [str(home / "models" / "one.gguf"), "two", "three"]


@pytest.mark.slow
def test_a_rule_of_the_file_lets_a_tool_run_that_would_be_asked_for(home: Path) -> None:
    done: list[str] = []

    @tool(approval="ask")
    def press(button: str) -> str:
        done.append(button)
        return "pressed"

    script = [call_text("press", {"button": "red"}), "ok"]
    with Agent.from_settings(model=FakeEngine(script), tools=[press]) as agent:
        agent.run("Press it")
    assert done == []
    agent_settings(home / "settings.toml").add_rule(Rule("allow", "press"))
    with Agent.from_settings(model=FakeEngine(script), tools=[press]) as agent:
        agent.run("Press it")
    assert done == ["red"]


@pytest.mark.slow
def test_mcp_servers_of_the_file_live_as_long_as_the_agent(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    config = raw(tmp_path, "")
    agent_settings(home / "settings.toml").change(
        f"mcp.{config.name}", {"command": config.command[0], "args": list(config.command[1:])}
    )
    agent_settings(home / "settings.toml").change("mcp.gone", {"command": str(tmp_path / "nowhere")})
    with Agent.from_settings(model=FakeEngine(), tools=["clock"]) as agent:
        assert [t.name for t in agent.tools] == ["clock", f"{config.name}__go"]
        assert [note.count("MCP server gone: ") for note in agent.notes] == [1], "said once, on one line"
    with Agent.from_settings(model=FakeEngine(), mcp=()) as agent:
        assert agent.tools == ()
