"""The settings file: a person opens it, changes a line, makes mistakes, and lets the program change it."""

from __future__ import annotations

import os
import stat
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.approval.policy import Rule
from agent.tools.builtin.catalogue import BUILTIN_NAMES
from tests.fixtures.generated import runs
from tui.settings.file import SettingsError, add_rule, change, load, parse
from tui.settings.schema import OPTIONS, default
from tui.settings.text import default_text
from tui.settings.toml_lines import line_of, lines
from tui.settings.values import LimitSettings, SamplingSettings, ScreenSettings, Settings

_ACTIONS = ("quit", "app.stop", "copy")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def _error(text: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        parse(text, known_actions=_ACTIONS)
    assert "\n" not in str(caught.value)
    return caught.value


# Reading.


def test_without_a_file_everything_is_at_its_default(path: Path) -> None:
    assert load(path) == Settings()


def test_the_default_text_changes_nothing_and_neither_does_taking_every_comment_sign_away() -> None:
    text = default_text()
    assert parse(text) == Settings()
    live = "\n".join(line[1:] if line[:1] == "#" and line[1:2].strip() else line for line in text.splitlines())
    assert parse(live) == Settings()
    said = tomllib.loads(live)
    for one in OPTIONS:  # each is there, so each was really read
        value: Any = said
        for part in one.where:
            value = value[part]
        assert one.kind.read(value, one.where) == default(one)


def test_the_default_text_fits_a_terminal_and_names_every_tool_and_theme() -> None:
    text = default_text()
    assert max(map(len, text.splitlines())) <= 80
    for name in (*BUILTIN_NAMES, "sprig-light", "sprig-contrast", "sprig-16"):
        assert name in text


def test_the_examples_in_the_default_text_work_as_they_are() -> None:
    examples = [line[6:] for line in default_text().splitlines() if line.startswith("#     ")]
    found = parse("\n".join(["[keys]", *examples]))
    assert [server.name for server in found.mcp] == ["weather", "house"]
    assert found.mcp[0].command == ("npx", "-y", "weather-server")
    assert found.mcp[1].allow == ("get_*",)
    assert found.rules == (Rule("allow", "run_command", "command", "git status", exact=True),)
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
        known_actions=_ACTIONS,
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
        ("\n[sampling]\ntop_k = 1\ntemperature = 3.5", 4, 'sampling.temperature is 3.5; it goes from 0 to 2, or is "auto"'),
        ("[sampling]\ntemperature = nan", 2, "sampling.temperature is nan"),
        ("[sampling]\ntop_k = 1.5", 2, "it is a whole number from 0 to 100 000"),
        ("[limits]\nrounds = true", 2, "limits.rounds is true; it is a whole number"),
        ("[screen]\nthme = 1", 2, "screen.thme is unknown; did you mean theme?"),
        ("theme = 'sprig'", 1, "theme belongs below [screen]"),
        ("[screen]\nmodel = 'x'", 2, "model belongs above the first [table]"),
        ("temprature = 1", 1, "did you mean sampling.temperature?"),
        ("zzz = 1", 1, "zzz is unknown; there are model, system"),
        ("screen.theme = 'sprgi'", 1, 'theme "sprgi" does not exist; did you mean "sprig"?'),
        ("tools = [\n  'clock',\n  # hm\n  'raed_file']", 4, 'did you mean "read_file"?'),
        ("tools = ['clock', 5]", 1, "tools is 5"),
        ("tools = 'clock'", 1, 'it is an array: ["one", "two"]'),
        ("system = '''\na\nb'''\nroot = 'here'", 4, "begins with / or ~"),
        ("model = 'a\\u0000'\nsystem = \"a\\u0000\"", 2, "holds no NUL"),
        ('model = """a\nb"""', 1, "it is one line"),
        ("engine = { threads = 4, cache = 'q4' }", 1, 'it is "f16" or "q8_0"'),
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
        ("[[rules]]\naction = 'ask'\n\n[[rules]]\ntool = 'x'\naction = 'alow'", 6, "rules.action"),
        ("[[rules]]\naction = 'ask'\n\n[[rules]]\ntool = 'x'", 4, "a rule needs an action"),
        ("[[rules]]\naction = 'ask'\npattern = 'x'", 1, "names no argument"),
        ("[[rules]]\naction = 'ask'\npatern = 'x'", 3, "did you mean pattern?"),
        ("rules = [\n{ action = 'ask' },\n{ action = 5 }]", 3, "rules.action is 5"),
        ("rules = ['x']", 1, "below a line with [[rules]]"),
        ("rules = 5", 1, "below a line with [[rules]]"),
        ("mcp = 5", 1, "below a line with [mcp.NAME]"),
        ("mcp.a = 5", 1, "below a line with [mcp.NAME]"),
        ("[mcp.a]\nurl = 'https://a.example'\n[mcp.b]\nurl = 'ftp://b'", 3, "MCP server b: 'ftp://b' is no http"),
        ("[mcp.a]\nurl = 'https://a.example'\ncommand = 'x'", 1, "a command or a url, and not both"),
        ("[mcp.a]\nurl = 'https://a.example'\nargs = ['x']", 3, "args and no command"),
        ("[mcp.a]\ncommand = 'x'\nenv = { A = 'x',  B = 5 }", 3, "mcp.a.env.B is 5"),
        ("[mcp.a.headers]\nX = 'y'\nZ = 5\n", 3, "mcp.a.headers.Z"),
        ("[mcp.a]\ncommand = 'x'\nallow = 'x'", 3, "an array of texts"),
        ("[mcp.a]\ncommand = 'x'\nenv = 'x'", 3, "a table of texts"),
        ("[mcp.a]\ncomand = 'x'", 2, "did you mean command?"),
        ("[mcp.'a b']\ncommand = 'x'", 1, "cannot be called 'a b'"),
        ("[mcp.a]\ncommand = 'x'\ntimeout = 0", 3, "mcp.a.timeout is 0"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_what_would_be_right(text: str, line: int, said: str) -> None:
    error = _error(text)
    assert str(error).startswith(f"settings.toml, line {line}: "), error
    assert said in str(error)
    assert error.line == line


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("model = 'a'\nroot = 1e", 2, "not TOML"),
        ("a = 1\nb = 2\na = 3\n", 3, "this key is there twice"),
        ('model = "x"\nsystem = """\nnever\nended\n', 2, "unterminated string"),
        ("model = 'x'\ntools = [\n'clock',\n", 2, "not TOML"),
        ("[screen]\n[screen]\n", 2, "cannot declare"),
        ("model = '\x1b[2J'", 1, "not TOML"),
        ("a = " + "[" * 100_000, None, "nested too deep"),
        ("a = " + "9" * 10_000, None, "cannot be read"),
    ],
)
def test_what_is_no_toml_is_named_with_its_line(text: str, line: int | None, said: str) -> None:
    for form in (text, text.replace("\n", "\r\n")):
        error = _error(form)
        assert said in str(error)
        assert error.line == line
        assert "\x1b" not in str(error)


def test_what_a_file_says_cannot_write_to_the_terminal() -> None:
    assert _error('thinking = "\\u001b[2J\\u202e"').args[0].isprintable()
    assert _error('"a\\u001bb" = 1').args[0].isprintable()
    assert _error('tools = ["\\u001b[2J"]').args[0].isprintable()
    assert len(str(_error(f'thinking = "{"x" * 50_000}"'))) < 200


def test_files_of_other_editors_and_other_things_than_files(path: Path) -> None:
    path.write_bytes("\ufeffmodel = 'grün'\r\nsystem = '''a\r\nb'''\r\n".encode())
    assert load(path).model == "grün"
    assert load(path).system == "a\nb"
    path.write_bytes(b"model = 'a'\nroot = 'gr\xfcn'\n")
    with pytest.raises(SettingsError, match=r"^settings.toml, line 2: byte 0xfc is not UTF-8; save it as UTF-8$"):
        load(path)
    path.write_bytes("model = 'a'".encode("utf-16"))
    with pytest.raises(SettingsError, match="line 1: it is UTF-16; save it as UTF-8"):
        load(path)
    path.write_bytes(b"#" * 1_000_001)
    with pytest.raises(SettingsError, match="larger than 1 MB"):
        load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(SettingsError, match="is a folder"):
        load(path)
    path.rmdir()
    os.mkfifo(path)  # which would wait for a writer
    with pytest.raises(SettingsError, match="is no file"):
        load(path)
    with pytest.raises(SettingsError, match="cannot be read: Not a directory"):
        load(path / "settings.toml")


# Lines.

_WORD = st.sampled_from(["a", "b", "c", "d-1", "'e.f'", '"g \\u0068"', "'#'", "'['"])
_TEXTS = [
    "'x'", '"a \\" # ["', '"""a\n#b\n[c]\n\\""" d"""', "'''\n'a' ''\n= '''", '""', "''", '""""quoted"""""',
    "''''q'''''", '"""\\\n  x"""',
]  # fmt: skip
_LEAF = st.sampled_from([*_TEXTS, "1", "-1.5e3", "true", "inf", "1979-05-27 07:32:00Z"])
_NEWLINES = st.sampled_from([" ", "\n", "  # ] } , '\n", "\n\n\t"])


def _arrays(of: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def join(items: list[str], spaces: list[str], comma: bool) -> str:
        padded = [f"{spaces[i]}{item}{spaces[i + 1]}" for i, item in enumerate(items)]
        return f"[{','.join(padded)}{',' if comma and items else ''}{spaces[-1]}]"

    return st.builds(join, st.lists(of, max_size=3), st.lists(_NEWLINES, min_size=4, max_size=4), st.booleans())


def _inline(of: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.lists(st.tuples(_WORD, of), max_size=3, unique_by=lambda pair: pair[0])
    return pairs.map(lambda found: "{ " + ", ".join(f"{k} = {v}" for k, v in found) + " }")


_VALUE = st.recursive(_LEAF, lambda of: _arrays(of) | _inline(of), max_leaves=6)
_STATEMENT = st.one_of(
    st.builds("{} = {}".format, st.lists(_WORD, min_size=1, max_size=3).map(".".join), _VALUE),
    st.lists(_WORD, min_size=1, max_size=3).map(lambda key: f"[ {' . '.join(key)} ]"),
    st.lists(_WORD, min_size=1, max_size=2).map(lambda key: f"[[{'.'.join(key)}]]"),
    st.sampled_from(["", "# comment = 'x'", "\t# [x]"]),
)


def _ways(value: Any, where: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {where} | {way for key, item in inner for way in _ways(item, (*where, key))}


@settings(max_examples=runs(300))
@given(st.lists(_STATEMENT, max_size=8))
def test_the_line_finder_finds_what_tomllib_reads_and_nothing_else(statements: list[str]) -> None:
    # Only what TOML allows: a statement that clashes with those before it is left out.
    kept: list[str] = []
    for statement in statements:
        try:
            tomllib.loads("\n".join([*kept, statement]))
        except tomllib.TOMLDecodeError:
            continue
        kept.append(statement)
    text = "\n".join(kept)
    assert set(lines(text)) | {()} == _ways(tomllib.loads(text))


@settings(max_examples=runs(200))
@given(st.lists(st.tuples(_VALUE, _NEWLINES.filter(lambda s: "\n" in s)), min_size=1, max_size=6), st.data())
def test_each_key_is_on_the_line_where_it_was_written(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    text, expected = "", {}
    for i, (value, space) in enumerate(pairs):
        header = data.draw(st.sampled_from(["", f"[t{i}]\n", "[[many]]\n"]))
        text += header
        expected[i] = text.count("\n") + 1
        text += f"  key{i} = {value}{space}"
    found = {str(way[-1]): line for way, line in lines(text).items() if str(way[-1]).startswith("key")}
    assert found == {f"key{i}": line for i, line in expected.items()}


def test_what_has_no_line_has_that_of_what_is_around_it() -> None:
    assert line_of("a = 1\n[b]\nc = 2", ("b", "x", 0)) == 2
    assert line_of("", ("b",)) == 1


# Writing.


def test_the_first_change_makes_the_whole_file_and_changes_one_line_of_it(path: Path) -> None:
    assert change(path, "screen.theme", "sprig-16").screen.theme == "sprig-16"
    before, after = default_text().splitlines(), path.read_text().splitlines()
    assert [(a, b) for a, b in zip(before, after, strict=True) if a != b] == [('#theme = "sprig"', 'theme = "sprig-16"')]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600  # an MCP server's password may come to stand in it


def test_every_setting_can_be_changed_and_lands_in_its_own_place(path: Path) -> None:
    wanted: dict[str, Any] = {
        "model": "a.gguf", "system": 'Say "hm".\nOnce.', "root": "~/x", "tools": ("clock",), "thinking": "on", "unconfined": True,
        "sampling.temperature": 0.5, "sampling.top_k": 3, "sampling.top_p": 0.5, "sampling.min_p": 0.1,
        "sampling.repeat_penalty": 1.1, "sampling.seed": 7, "sampling.max_tokens": 9, "limits.rounds": 3, "limits.seconds": 60.0,
        "engine.context": 4096, "engine.cache": "q8_0", "engine.threads": 2, "screen.theme": "sprig-light",
        "screen.reduced_motion": True, "screen.mouse": False, "screen.line_mode": True, "screen.fold_results": 3,
        "screen.approval_grace": 1.0, "screen.bell": False,
    }  # fmt: skip
    assert set(wanted) == {one.key for one in OPTIONS}
    for key, value in wanted.items():
        change(path, key, value)
    found = load(path)
    for key, value in wanted.items():
        at: Any = found
        for part in key.split("."):
            at = getattr(at, part)
        assert at == value
    comments = [line for line in default_text().splitlines() if line.startswith("# ")]
    assert [line for line in path.read_text().splitlines() if line.startswith("# ")] == comments
    assert len(path.read_text().splitlines()) == len(default_text().splitlines()) + 2  # the system prompt has three lines
    for key in wanted:
        change(path, key, default(next(one for one in OPTIONS if one.key == key)))
    assert load(path) == Settings()


def test_what_the_owner_wrote_stays_as_it_was(path: Path) -> None:
    path.write_text(
        "# mine\nmodel='a'   # the good one\n\n[ sampling ]\n  top_p=0.90 # as it was\n#temperature = 0.3   # too cold\n\n"
        "# end of sampling\n[screen]\n\n# a note\n"
    )
    change(path, "model", "b")
    change(path, "sampling.temperature", 0.7)
    change(path, "sampling.top_k", 5)
    change(path, "sampling.top_p", 0.9)  # it is that already
    change(path, "screen.bell", False)
    change(path, "engine.threads", 2)
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
    before = load(path)
    server = {"command": "npx", "args": ["-y", "b"], "env": {"K": "v w"}}
    change(path, "screen.theme", "sprig-16")
    change(path, "sampling.top_k", 7)
    change(path, "keys.app.stop", "escape", known_actions=_ACTIONS)
    change(path, "keys.copy", "ctrl+y", known_actions=_ACTIONS)
    change(path, "mcp.b", server)
    change(path, "mcp.b.timeout", 5)
    rule = Rule("allow", "run_command", "command", 'echo "a"\tb', exact=True)
    add_rule(path, rule)
    found = add_rule(path, rule)
    assert found == load(path, _ACTIONS)
    assert found.rules == (*before.rules, rule)
    assert found.keys == {**before.keys, "app.stop": "escape", "copy": "ctrl+y"}
    assert [s.name for s in found.mcp] == [*(s.name for s in before.mcp), "b"]
    assert found.mcp[-1].timeout == 5
    rest = replace(
        before, screen=replace(before.screen, theme="sprig-16"), sampling=SamplingSettings(top_k=7),
        keys=found.keys, mcp=found.mcp, rules=found.rules,
    )  # fmt: skip
    assert found == rest
    change(path, "mcp.b", {"url": "https://b.example"})
    assert load(path).mcp[-1].url == "https://b.example"
    assert all(line in path.read_text() for line in text.splitlines() if line.startswith("#"))


def test_rules_come_after_rules_and_servers_before_them(path: Path) -> None:
    add_rule(path, Rule("deny", "fetch_url"))
    change(path, "mcp.a", {"url": "https://a.example"})
    add_rule(path, Rule("allow", "read_file"))
    text = path.read_text()
    deny, allow = '[[rules]]\naction = "deny"\ntool = "fetch_url"\n', '[[rules]]\naction = "allow"\ntool = "read_file"\n'
    assert text.endswith(f"\n\n{deny}\n{allow}")
    assert text.index("# MCP servers") < text.index("[mcp.a]\n") < text.index("# Rules:")


def test_line_ends_and_the_byte_order_mark_stay(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbfmodel = 'a'\r\n[screen]\r\n")
    change(path, "screen.theme", "nord")
    change(path, "system", "one\ntwo")
    raw = path.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfmodel = 'a'\r\n")
    assert raw.count(b"\n") == raw.count(b"\r\n") >= 4
    assert load(path).system == "one\ntwo"


def test_a_file_with_an_error_is_not_written_over(path: Path) -> None:
    for text in ("model = ", "[screen]\nthme = 'x'\n"):
        path.write_text(text)
        with pytest.raises(SettingsError, match=r"line \d"):
            change(path, "model", "b")
        with pytest.raises(SettingsError, match=r"line \d"):
            add_rule(path, Rule("deny", "fetch_url"))
        assert path.read_text() == text


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
        change(path, key, value, _ACTIONS)
    assert not path.exists()


def test_a_link_stays_a_link_and_permissions_stay(tmp_path: Path, path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("model = 'a'\n")
    real.chmod(0o640)
    path.symlink_to(real)
    change(path, "model", "b")
    assert path.is_symlink()
    assert load(real).model == "b"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_write_that_fails_leaves_the_old_file_and_no_part(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("model = 'a'\n")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SettingsError, match=r"^the settings were not saved: .*disk is full"):
        change(path, "model", "b")
    assert path.read_text() == "model = 'a'\n"
    assert [p.name for p in path.parent.iterdir()] == ["settings.toml"]


def test_changes_of_several_threads_are_all_kept(path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: add_rule(path, Rule("allow", f"tool_{n}")), range(8)))
    assert {rule.tool for rule in load(path).rules} == {f"tool_{n}" for n in range(8)}


@settings(max_examples=runs(60), deadline=None)
@given(st.text(max_size=80), st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_comes_back_as_it_was_given_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str, pattern: str
) -> None:
    path = tmp_path_factory.mktemp("s") / "settings.toml"
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        with pytest.raises(SettingsError, match=r"^system is .* it "):
            change(path, "system", text)
    else:
        assert change(path, "system", text).system == text
    if "\0" not in pattern:
        rule = Rule("allow", "run_command", "command", pattern)
        assert add_rule(path, rule).rules == (rule,)
        assert load(path).rules == (rule,)
