"""The settings file as the agent and its commands read it: a person changes lines, makes mistakes, and lets the program write."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.approval.policy import Rule
from agent.settings.declare import by_key, each_setting, find_setting
from agent.settings.edit import default_text
from agent.settings.file import agent_settings
from agent.settings.kinds import SettingsError
from agent.settings.lines import line_of
from agent.settings.values import LimitSettings, Settings
from agent.tools.builtin.catalogue import BUILTIN_NAMES
from tests.fixtures.generated import runs
from tests.fixtures.paths import ROOT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def parse(text: str) -> Settings:
    return agent_settings(Path("settings.toml")).parse(text)


def _error(text: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    return caught.value


# Reading.


def test_without_a_file_everything_is_at_its_default(path: Path) -> None:
    assert agent_settings(path).load() == Settings()


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("\n[sampling]\ntop_k = 1\ntemperature = 3.5", 4, 'sampling.temperature is 3.5; it goes from 0 to 2, or is "auto"'),
        ("[sampling]\ntemperature = nan", 2, "sampling.temperature is nan"),
        ("[sampling]\ntop_k = 1.5", 2, "it is a whole number from 0 to 100 000"),
        ("[limits]\nrounds = true", 2, "limits.rounds is true; it is a whole number"),
        ("temprature = 1", 1, "did you mean sampling.temperature?"),
        ("zzz = 1", 1, "zzz is unknown; there are model, system"),
        ("tools = [\n  'clock',\n  # hm\n  'raed_file']", 4, 'did you mean "read_file"?'),
        ("tools = ['clock', 5]", 1, "tools is 5"),
        ("tools = 'clock'", 1, 'it is an array of texts: ["one", "two"]'),
        ("system = '''\na\nb'''\nroot = 'here'", 4, "begins with / or ~"),
        ("model = 'a\\u0000'\nsystem = \"a\\u0000\"", 2, "holds no NUL"),
        ('model = """a\nb"""', 1, "it is one line"),
        ("engine.memory = 'much'", 1, 'it is a size like "1.5 GB", or is "auto"'),
        ("engine.memory = 7", 1, 'it is a size like "1.5 GB", or is "auto"'),
        ("engine = { threads = 4, cache = 'q4' }", 1, 'it is "f16", "q8_0" or "auto"'),
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
    for form in (text, text.replace("\n", "\r\n")):
        error = _error(form)
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
    assert agent_settings(path).load().model == "grün"
    assert agent_settings(path).load().system == "a\nb"
    path.write_bytes(b"model = 'a'\nroot = 'gr\xfcn'\n")
    with pytest.raises(SettingsError, match=r"^settings.toml, line 2: byte 0xfc is not UTF-8; save it as UTF-8$"):
        agent_settings(path).load()
    path.write_bytes("model = 'a'".encode("utf-16"))
    with pytest.raises(SettingsError, match="line 1: it is UTF-16; save it as UTF-8"):
        agent_settings(path).load()
    path.write_bytes(b"#" * 1_000_001)
    with pytest.raises(SettingsError, match="larger than 1 MB"):
        agent_settings(path).load()
    path.unlink()
    path.mkdir()
    with pytest.raises(SettingsError, match="is a folder"):
        agent_settings(path).load()
    path.rmdir()
    os.mkfifo(path)  # which would wait for a writer
    with pytest.raises(SettingsError, match="is no file"):
        agent_settings(path).load()
    assert agent_settings(path / "settings.toml").load() == agent_settings(path.with_name("none.toml")).load(), "there is none"


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


@settings(max_examples=runs(300), deadline=None)
@given(st.lists(_STATEMENT, max_size=8), st.data())
def test_everything_that_tomllib_reads_is_found_in_the_statement_that_brings_it(
    statements: list[str], data: st.DataObject
) -> None:
    # Only what TOML allows: a statement that clashes with those before it is left out.
    kept: list[str] = []
    expected: dict[tuple[str | int, ...], tuple[int, int]] = {(): (1, 1)}
    for statement in statements:
        try:
            found = _ways(tomllib.loads("\n".join([*kept, statement])))
        except tomllib.TOMLDecodeError:
            continue
        first = "\n".join([*kept, ""]).count("\n") + 1
        kept.append(statement)
        expected |= {way: (first, first + statement.count("\n")) for way in found - expected.keys()}
    text = "\n".join(kept)
    assert expected.keys() == _ways(tomllib.loads(text))
    way = data.draw(st.sampled_from(sorted(expected, key=repr)))
    first, last = expected[way]
    assert first <= line_of(text, way) <= last


@settings(max_examples=runs(100), deadline=None)
@given(st.lists(st.tuples(_VALUE, _NEWLINES.filter(lambda s: "\n" in s)), min_size=1, max_size=6), st.data())
def test_each_key_is_on_the_line_where_it_was_written(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    text, expected = "", {}
    for i, (value, space) in enumerate(pairs):
        header = data.draw(st.sampled_from(["", f"[t{i}]\n", "[[many]]\n"]))
        text += header
        expected[i] = text.count("\n") + 1
        text += f"  key{i} = {value}{space}"
    ways = [way for way in _ways(tomllib.loads(text)) if str(way[-1:]).startswith("('key")]
    found = {str(way[-1]): line_of(text, way) for way in ways}
    assert found == {f"key{i}": line for i, line in expected.items()}


def test_what_has_no_line_has_that_of_what_is_around_it() -> None:
    assert line_of("a = 1\n[b]\nc = 2", ("b", "x", 0)) == 2
    assert line_of("", ("b",)) == 1


# Writing.


def test_line_ends_and_the_byte_order_mark_stay(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbfmodel = 'a'\r\n[limits]\r\n")
    agent_settings(path).change("limits.rounds", 3)
    agent_settings(path).change("system", "one\ntwo")
    raw = path.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfmodel = 'a'\r\n")
    assert raw.count(b"\n") == raw.count(b"\r\n") >= 4
    assert agent_settings(path).load().system == "one\ntwo"


def test_a_file_with_an_error_is_not_written_over(path: Path) -> None:
    for text in ("model = ", "[limits]\nrouns = 3\n"):
        path.write_text(text)
        with pytest.raises(SettingsError, match=r"line \d"):
            agent_settings(path).change("model", "b")
        with pytest.raises(SettingsError, match=r"line \d"):
            agent_settings(path).add_rule(Rule("deny", "fetch_url"))
        assert path.read_text() == text


def test_a_link_stays_a_link_and_permissions_stay(tmp_path: Path, path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("model = 'a'\n")
    real.chmod(0o640)
    path.symlink_to(real)
    agent_settings(path).change("model", "b")
    assert path.is_symlink()
    assert agent_settings(real).load().model == "b"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_write_that_fails_leaves_the_old_file_and_no_part(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("model = 'a'\n")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SettingsError, match=r"^the settings were not saved: .*disk is full"):
        agent_settings(path).change("model", "b")
    assert path.read_text() == "model = 'a'\n"
    assert [p.name for p in path.parent.iterdir()] == ["settings.toml"]


def test_changes_of_several_threads_are_all_kept(path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: agent_settings(path).add_rule(Rule("allow", f"tool_{n}")), range(8)))
    assert {rule.tool for rule in agent_settings(path).load().rules} == {f"tool_{n}" for n in range(8)}


@pytest.mark.slow
def test_changes_of_several_processes_are_all_kept(path: Path) -> None:
    """An "always" in the chat and one in `sprig ask`, at the same time."""
    code = (
        "import sys; from pathlib import Path; from agent.approval.policy import Rule; "
        "from agent.settings.file import agent_settings\n"
        "for n in range(12): agent_settings(Path(sys.argv[1])).add_rule(Rule('allow', f'tool_{sys.argv[2]}_{n}'))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(who)], cwd=ROOT) for who in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(agent_settings(path).load().rules) == 36


@settings(max_examples=runs(60), deadline=None)
@given(st.text(max_size=80), st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_comes_back_as_it_was_given_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str, pattern: str
) -> None:
    path = tmp_path_factory.mktemp("s") / "settings.toml"
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        with pytest.raises(SettingsError, match=r"^system is .* it "):
            agent_settings(path).change("system", text)
    else:
        assert agent_settings(path).change("system", text).system == text
    if "\0" not in pattern:
        rule = Rule("allow", "run_command", "command", pattern)
        assert agent_settings(path).add_rule(rule).rules == (rule,)
        assert agent_settings(path).load().rules == (rule,)


# What a change leaves alone.

_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "model": st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r"), max_size=20),
    "system": st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60),
    "tools": st.lists(st.sampled_from(BUILTIN_NAMES), unique=True, max_size=4).map(tuple),
    "thinking": st.sampled_from(["auto", "on", "off"]),
    "unconfined": st.booleans(),
    "sampling.temperature": st.none() | st.floats(0, 2),
    "sampling.top_k": st.none() | st.integers(0, 100_000),
    "sampling.seed": st.none() | st.integers(0, 2**32 - 1),
    "limits.rounds": st.integers(1, 1000),
    "limits.seconds": st.none() | st.floats(1, 604_800),
    "engine.context": st.none() | st.integers(256, 16_777_216),
    "engine.cache": st.sampled_from([None, "f16", "q8_0"]),
    "engine.memory": st.none() | st.integers(0, 10**12),
}
_CHANGES = st.lists(st.sampled_from(sorted(_VALUES)).flatmap(lambda k: st.tuples(st.just(k), _VALUES[k])), max_size=5)
_MINE = [
    "# mine\nmodel = 'a' # good\n",
    "tools = [\n  'clock',\n] # the time\n",
    "# of the draws\n[sampling]\n  top_k = 7   # few\n\n# before limits\n",
    "[limits]\nrounds = 0x10\n# the end\n",
    "engine.threads = 2 # of four\n",
    "# lonely\n",
    "\n\n",
]


@settings(max_examples=runs(60), deadline=None)
@given(st.lists(st.sampled_from(_MINE), unique=True, max_size=4), _CHANGES)
def test_what_is_written_is_read_again_and_every_comment_and_other_value_stays(
    tmp_path_factory: pytest.TempPathFactory, mine: list[str], changes: list[tuple[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("s") / "settings.toml"
    mine.sort(key=lambda text: "[" in text.replace("= [", ""))  # what belongs to no table is above all tables
    text = "".join(mine)
    if text:
        path.write_text(text)
    file = agent_settings(path)
    expected = by_key(file.load())
    for key, value in changes:
        assert by_key(file.change(key, value)) == (expected := {**expected, key: value})
        assert by_key(file.load()) == expected
    comments = [line[line.index("#") :] for line in text.splitlines() if "#" in line]
    assert all(comment in path.read_text() for comment in comments)


def test_every_setting_is_declared_with_a_default_that_it_may_have() -> None:
    assert find_setting(Settings, "sampling.nonsense") is None
    for one in each_setting(Settings):
        assert one.kind.read(one.kind.write(one.default), one.where) == one.default
        assert one.teach.strip()


def test_the_default_text_of_the_agent_changes_nothing_for_it(path: Path) -> None:
    text = default_text(Settings)
    live = "\n".join(line[1:] if line[:1] == "#" and line[1:2].strip() else line for line in text.splitlines())
    assert parse(text) == parse(live) == Settings()
    assert agent_settings(path).create()
    assert not agent_settings(path).create()
    assert path.read_text() == text


def test_the_tables_of_the_screen_are_left_to_the_chat(path: Path) -> None:
    text = "[screen]\ntheme = 5\n[keys]\nx = []\n[limits]\nrounds = 7 # few\n"
    path.write_text(text)
    assert agent_settings(path).load() == Settings(limits=LimitSettings(rounds=7))
    agent_settings(path).change("limits.rounds", 8)
    assert path.read_text() == text.replace("7", "8")


def test_a_program_that_keeps_the_settings_to_itself_is_not_waited_for_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.settings.file._LOCK_SECONDS", 0.1)
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(SettingsError, match="the settings were not saved: another program has been changing them"):
            agent_settings(path).change("sampling.seed", 5)
    finally:
        os.close(fd)
    assert agent_settings(path).change("sampling.seed", 5).sampling.seed == 5
