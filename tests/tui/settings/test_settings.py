"""The settings file: a person opens it, changes a line, makes mistakes, and lets the program change it."""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.approval.policy import Rule
from agent.settings.declare import each_setting
from agent.settings.edit import default_text
from agent.settings.kinds import SettingsError
from agent.settings.values import LimitSettings, SamplingSettings
from agent.tools.builtin.catalogue import BUILTIN_NAMES
from tui.settings.values import ChatSettings, ScreenSettings, chat_settings

OPTIONS = each_setting(ChatSettings)
_ACTIONS = ("quit", "app.stop", "copy")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def parse(text: str, actions: Collection[str] | None = None) -> ChatSettings:
    return chat_settings(Path("settings.toml"), actions).parse(text)


def _error(text: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        parse(text, actions=_ACTIONS)
    assert "\n" not in str(caught.value)
    return caught.value


# Reading.


def test_the_default_text_changes_nothing_and_neither_does_taking_every_comment_sign_away() -> None:
    text = default_text(ChatSettings)
    assert parse(text) == ChatSettings()
    live = "\n".join(line[1:] if line[:1] == "#" and line[1:2].strip() else line for line in text.splitlines())
    assert parse(live) == ChatSettings()
    said = tomllib.loads(live)
    for one in OPTIONS:  # each is there, so each was really read
        value: Any = said
        for part in one.where:
            value = value[part]
        assert one.kind.read(value, one.where) == one.default


def test_the_default_text_fits_a_terminal_and_names_every_tool_and_theme() -> None:
    text = default_text(ChatSettings)
    assert max(map(len, text.splitlines())) <= 80
    for name in (*BUILTIN_NAMES, "sprig-light", "sprig-contrast", "sprig-16"):
        assert name in text


def test_the_examples_in_the_default_text_work_as_they_are() -> None:
    examples = [line[6:] for line in default_text(ChatSettings).splitlines() if line.startswith("#     ")]
    found = parse("\n".join(["[keys]", *examples]))
    assert [server.name for server in found.mcp] == ["weather", "house"]
    assert found.mcp[0].command == ("npx", "-y", "weather-server")
    assert found.mcp[1].allow == ("get_*",)
    assert found.rules == (Rule("allow", "run_command", "command", "git status", exact=True, even_after_untrusted=True),)
    assert found.keys == {"app.quit": "ctrl+q,f10"}


def test_a_whole_file_is_read() -> None:
    found = parse(
        """
        model = "smollm2"
        tools = ["run_command", "clock", "clock"]
        thinking = "off"
        unconfined = true
        screen.theme = "nord"
        screen.mouse = false
        sampling = { temperature = 1, top_k = 5 }
        limits.seconds = 90
        [engine]
        context = 4096
        cache = "q8_0"
        [keys]
        quit = "ctrl+q, ?"
        app.stop = "escape"
        copy = ","
        [[rules]]
        action = "deny"
        tool = "*_file"
        """,
        actions=_ACTIONS,
    )
    assert found.model == "smollm2"
    assert found.tools == ("run_command", "clock")
    assert found.think is False
    assert found.sampling.chosen() == {"temperature": 1.0, "top_k": 5}
    assert found.limits == LimitSettings(seconds=90.0)
    assert found.screen == ScreenSettings(theme="nord", mouse=False)
    assert found.keys == {"quit": "ctrl+q,question_mark", "app.stop": "escape", "copy": "comma"}
    assert found.rules == (Rule("deny", "*_file"),)
    assert found.unconfined


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[screen]\nthme = 1", 2, "screen.thme is unknown; did you mean theme?"),
        ("theme = 'sprig'", 1, "theme belongs below [screen]"),
        ("[screen]\nmodel = 'x'", 2, "model belongs above the first [table]"),
        ("screen.theme = 'sprgi'", 1, 'theme "sprgi" does not exist; did you mean "sprig"?'),
        ("screen = 5", 1, "below a line with [screen]"),
        ("keys = 5", 1, "below a line with [keys]"),
        ("[keys]\nquti = 'q'", 2, "keys.quti: there is no such action; did you mean quit?"),
        ("[keys]\nxyzzy = 'q'", 2, "the help of the chat (F1) lists them"),
        ("[keys]\nquit = 'cntrl+q'", 2, '"cntrl" is no modifier'),
        ("[keys]\nquit = 'entr'", 2, "did you mean enter?"),
        ("[keys]\nquit = 'q,,a'", 2, "empty key"),
        ("[keys]\nquit = ''", 2, "empty key"),
        ("[keys]\nquit = 1", 2, "it is a text"),
        ("[keys]\napp.stp = 'x'", 2, "did you mean app.stop?"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_what_would_be_right(text: str, line: int, said: str) -> None:
    for form in (text, text.replace("\n", "\r\n")):
        error = _error(form)
        assert str(error).startswith(f"settings.toml, line {line}: "), error
        assert said in str(error)
        assert error.line == line


# Writing.


def test_the_first_change_makes_the_whole_file_and_changes_one_line_of_it(path: Path) -> None:
    assert chat_settings(path).change("screen.theme", "sprig-16").screen.theme == "sprig-16"
    before, after = default_text(ChatSettings).splitlines(), path.read_text().splitlines()
    assert [(a, b) for a, b in zip(before, after, strict=True) if a != b] == [('#theme = "sprig"', 'theme = "sprig-16"')]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600  # an MCP server's password may come to stand in it


@pytest.mark.slow
def test_every_setting_can_be_changed_and_lands_in_its_own_place(path: Path) -> None:
    wanted: dict[str, Any] = {
        "model": "a.gguf", "system": 'Say "hm".\nOnce.', "root": "~/x", "tools": ("clock",), "thinking": "on", "unconfined": True,
        "embedding_model": "e.gguf",
        "sampling.temperature": 0.5, "sampling.top_k": 3, "sampling.top_p": 0.5, "sampling.min_p": 0.1,
        "sampling.repeat_penalty": 1.1, "sampling.seed": 7, "sampling.max_tokens": 9, "limits.rounds": 3, "limits.seconds": 60.0,
        "engine.context": 4096, "engine.cache": "q8_0", "engine.threads": 2, "engine.memory": 10**9,
        "engine.lora": ("a.gguf", "b.gguf=0.5"),
        "screen.theme": "sprig-light", "screen.reduced_motion": True, "screen.mouse": False, "screen.line_mode": True,
        "screen.fold_results": 3, "screen.approval_grace": 1.0, "screen.bell": False,
    }  # fmt: skip
    assert set(wanted) == {one.key for one in OPTIONS}
    for key, value in wanted.items():
        chat_settings(path).change(key, value)
    found = chat_settings(path).load()
    for key, value in wanted.items():
        at: Any = found
        for part in key.split("."):
            at = getattr(at, part)
        assert at == value
    comments = [line for line in default_text(ChatSettings).splitlines() if line.startswith("# ")]
    assert [line for line in path.read_text().splitlines() if line.startswith("# ")] == comments
    lines = len(default_text(ChatSettings).splitlines())
    assert len(path.read_text().splitlines()) == lines + 2  # the system prompt has three lines
    for key in wanted:
        chat_settings(path).change(key, next(one.default for one in OPTIONS if one.key == key))
    assert chat_settings(path).load() == ChatSettings()


def test_what_the_owner_wrote_stays_as_it_was(path: Path) -> None:
    path.write_text(
        "# mine\nmodel='a'   # the good one\n\n[ sampling ]\n  top_p=0.90 # as it was\n#temperature = 0.3   # too cold\n\n"
        "# end of sampling\n[screen]\n\n# a note\n"
    )
    chat_settings(path).change("model", "b")
    chat_settings(path).change("sampling.temperature", 0.7)
    chat_settings(path).change("sampling.top_k", 5)
    chat_settings(path).change("sampling.top_p", 0.9)  # it is that already
    chat_settings(path).change("screen.bell", False)
    chat_settings(path).change("engine.threads", 2)
    assert path.read_text() == (
        '# mine\nmodel="b"   # the good one\n\n[ sampling ]\n  top_p=0.90 # as it was\n#temperature = 0.3   # too cold\n'
        "temperature = 0.7\ntop_k = 5\n\n# end of sampling\n[screen]\nbell = false\n\n# a note\n\n[engine]\nthreads = 2\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "screen = { theme = 'nord', mouse = true }\nsampling.top_k = 1\n",
        "screen.theme = 'nord'\nsampling = {}\n",
        "[screen]\ntheme = 'nord'\n[sampling]",
        "system = '''\n[screen]\n#theme = \"sprig\"\n[sampling]\n'''\n",
        "rules = [\n  { action = 'ask' }, # one\n]\n",
        "[[rules]]\naction = 'ask'\n\n[screen]\nmouse = true\n",
        "keys.app.stop = 'x'\nkeys.quit = 'q'\n",
        "# nothing but a comment",
        "[mcp.a]\nurl = 'https://a.example'\n[mcp.a.headers]\nX = 'y'",
    ],
)
def test_a_change_works_in_every_way_that_toml_can_be_written(path: Path, text: str) -> None:
    path.write_text(text)
    before = chat_settings(path).load()
    server = {"command": "npx", "args": ["-y", "b"], "env": {"K": "v w"}}
    chat_settings(path).change("screen.theme", "sprig-16")
    chat_settings(path).change("sampling.top_k", 7)
    chat_settings(path, _ACTIONS).change("keys.app.stop", "escape")
    chat_settings(path, _ACTIONS).change("keys.copy", "ctrl+y")
    chat_settings(path).change("mcp.b", server)
    chat_settings(path).change("mcp.b.timeout", 5)
    rule = Rule("allow", "run_command", "command", 'echo "a"\tb', exact=True)
    chat_settings(path).add_rule(rule)
    found = chat_settings(path).add_rule(rule)
    assert found == chat_settings(path, _ACTIONS).load()
    assert found.rules == (*before.rules, rule)
    assert found.keys == {**before.keys, "app.stop": "escape", "copy": "ctrl+y"}
    assert [s.name for s in found.mcp] == [*(s.name for s in before.mcp), "b"]
    assert found.mcp[-1].timeout == 5
    rest = replace(
        before, screen=replace(before.screen, theme="sprig-16"), sampling=SamplingSettings(top_k=7),
        keys=found.keys, mcp=found.mcp, rules=found.rules,
    )  # fmt: skip
    assert found == rest
    chat_settings(path).change("mcp.b", {"url": "https://b.example"})
    assert chat_settings(path).load().mcp[-1].url == "https://b.example"
    assert all(line in path.read_text() for line in text.splitlines() if line.startswith("#"))


def test_rules_come_after_rules_and_servers_before_them(path: Path) -> None:
    chat_settings(path).add_rule(Rule("deny", "fetch_url"))
    chat_settings(path).change("mcp.a", {"url": "https://a.example"})
    chat_settings(path).add_rule(Rule("allow", "read_file"))
    text = path.read_text()
    deny, allow = '[[rules]]\naction = "deny"\ntool = "fetch_url"\n', '[[rules]]\naction = "allow"\ntool = "read_file"\n'
    assert text.endswith(f"\n\n{deny}\n{allow}")
    assert text.index("# MCP servers") < text.index("[mcp.a]\n") < text.index("# Rules:")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("sampling.temperature", 3, "sampling.temperature is 3; it goes from 0 to 2"),
        ("screen.theme", "sprgi", "did you mean"),
        ("screen.thme", "x", "screen.thme is unknown"),
        ("model.x", "x", "model is a table"),
        ("tools", "clock", "tools is"),
        ("system", "\udcff", "Unicode"),
        ("keys.quti", "q", "did you mean quit"),
        ("mcp.a", {"comand": "x"}, "did you mean command"),
    ],
)
def test_what_cannot_be_is_not_written(path: Path, key: str, value: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        chat_settings(path, _ACTIONS).change(key, value)
    assert not path.exists()
