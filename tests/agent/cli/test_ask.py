"""``sprig ask`` as a person or a script meets it: in real processes where streams or signals matter, with a tiny model that says
anything at all."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from typer.main import get_command

from agent.approval.policy import Rule
from agent.children.process import confines_files
from agent.cli.ask import _question, ask_app
from agent.cli.embed import _lines
from agent.cli.options import AgentOptions, tools_of
from agent.errors import SprigError
from agent.sessions.store import Store
from agent.settings.file import agent_settings
from agent.text import display
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.command import Done, one_line, only_json, sprig
from tests.fixtures.fake_engine import FakeEngine, call_text
from tests.fixtures.paths import ROOT
from tui.cli import chat_app
from tui.plain import chat_plainly
from tui.settings.values import chat_settings
from tui.talk.setup import Setup

pytestmark = pytest.mark.slow

FEW = ["--max-tokens", "24", "--seed", "5", "--threads", "1", "-c", "2048"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_model(tmp_path_factory.mktemp("model") / "tiny.gguf", "hermes")


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was found out about the template is kept here, so that each process starts fast."""
    return tmp_path_factory.mktemp("shared") / "home"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def environment(home: Path, **env: str) -> dict[str, str]:
    return {**os.environ, "SPRIG_HOME": str(home), "COLUMNS": "80", **env}


def process(*args: str | Path, home: Path, stdin: str = "") -> Done:
    return subprocess.run(
        [sys.executable, "-m", "sprig", "ask", *map(str, args)], env=environment(home), cwd=ROOT, capture_output=True,
        text=True, timeout=120, start_new_session=True, input=stdin,
    )  # fmt: skip


def ask(*args: str | Path, home: Path, **given: str) -> Done:
    """The same in this process, with a worker and a template in processes of their own as ever."""
    return sprig("ask", *args, home=home, **given)


@pytest.fixture(autouse=True)
def no_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPRIG_MODEL", raising=False)


SCHEMA = {
    "type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}, "on": {"type": "boolean"}},
    "required": ["n", "on"], "additionalProperties": False,
}  # fmt: skip


def test_an_object_on_standard_output_is_all_there_is(model: Path, shared_home: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    done = process("Well?", "-m", model, "--schema", schema, "--json", *FEW, home=shared_home)
    assert done.returncode == 0, done.stderr
    told = only_json(done)
    assert told["reason"] == "done"
    assert json.loads(told["text"]) == told["value"]
    assert 0 <= told["value"]["n"] <= 9
    assert told["usage"]["generated_tokens"] > 0
    assert told["model"] == str(model)
    plain = ask("Well?", "-m", model, "--schema", schema, *FEW, "--stats", home=shared_home)
    assert plain.returncode == 0, plain.stderr
    assert json.loads(plain.stdout) == told["value"], "the same seed draws the same"
    assert plain.stdout.endswith("\n")
    assert "t/s" in plain.stderr


@pytest.mark.slow
def test_an_answer_that_was_cut_off_is_status_one_and_says_so(model: Path, shared_home: Path) -> None:
    done = ask("Well?", "-m", model, *FEW, home=shared_home)
    assert (done.returncode, "limit of tokens" in done.stderr) in ((1, True), (0, False))
    assert done.stdout.endswith("\n")
    told = ask("Well?", "-m", model, *FEW, "--json", home=shared_home)
    assert display(only_json(told)["text"], lines=True).split() == done.stdout.split()
    assert told.returncode == done.returncode


@pytest.mark.slow
def test_a_stop_ends_the_answer(model: Path, shared_home: Path) -> None:
    whole = only_json(ask("Well?", "-m", model, *FEW, "--json", home=shared_home))["text"]
    stop = next(c for c in whole[2:] if c.isascii() and c.isprintable() and not c.isspace())
    told = only_json(ask("Well?", "-m", model, *FEW, "--json", "--stop", "never said", "--stop", stop, home=shared_home))
    assert (told["text"], told["stop"], told["reason"]) == (whole[: whole.find(stop)].strip(), stop, "done")


@pytest.mark.slow
def test_nothing_that_a_model_says_reaches_the_terminal_raw(model: Path, shared_home: Path) -> None:
    """Random weights say every byte, escapes among them."""
    wild = ["--temperature", "3", "--max-tokens", "600", "--threads", "1", "--seed"]
    shown = "".join(process("Well?", "-m", model, *wild, str(seed), home=shared_home).stdout for seed in range(2))
    assert len(shown) > 300
    assert not any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in shown)


@pytest.mark.slow
def test_what_is_piped_in_is_added_to_the_question(model: Path, shared_home: Path) -> None:
    few = ("-m", model, "--max-tokens", "1", "--threads", "1", "--json")

    def prompt(done: Done) -> int:
        return int(only_json(done)["usage"]["prompt_tokens"])

    alone = prompt(ask("Well?", *few, home=shared_home))
    assert prompt(process("Well?", *few, home=shared_home, stdin="abcdefgh")) >= alone + 8
    assert prompt(ask(*few, home=shared_home, piped="Well?")) == alone


@pytest.mark.real
def test_the_demo_model_answers_by_its_name(home: Path) -> None:
    done = ask("Say hello.", "-m", "demo", "--max-tokens", "8", "--threads", "1", "--json", "-c", "512", home=home)
    told = only_json(done)
    assert told["text"]
    assert Path(told["model"]).name.startswith("SmolLM2-135M-Instruct")


@pytest.mark.slow
def test_wrong_use_is_one_line(model: Path, home: Path, tmp_path: Path) -> None:
    assert "there is no question" in one_line(ask("-m", model, home=home))
    why = one_line(ask("x", home=home))
    assert "no model is named and none is in the store" in why
    assert "-m demo" in why
    assert "there is no model 'nothing'" in one_line(ask("x", "-m", "nothing", home=home))
    assert "there is no model 'nothing'" in one_line(ask("x", home=home, SPRIG_MODEL="nothing"))
    assert "'nonsense'" in one_line(ask("x", "-m", model, "--tool", "nonsense", home=home))
    assert "there is no session yet" in one_line(ask("x", "-m", model, "--session", "last", home=home))
    assert "there is no session 'zzz'" in one_line(ask("x", "-m", model, "--session", "zzz", home=home))
    assert "f16 or q8_0" in one_line(ask("x", "-m", model, "--cache", "q4", home=home))
    for text, said in (("[1]", "must be an object"), ("{", "is not JSON"), (None, "cannot read")):
        schema = tmp_path / "s.json"
        schema.unlink(missing_ok=True)
        if text is not None:
            schema.write_text(text)
        assert said in one_line(ask("x", "-m", model, "--schema", schema, home=home))
    for args in (("--nonsense",), ("-c", "x"), ("--max-tokens", "0")):
        done = ask("x", "-m", model, *args, home=home)
        assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # as Python reads in a UTF-8 locale, and in a C locale
def test_bytes_that_are_no_text_are_refused(errors: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for read in (lambda: _question("What is this?"), lambda: _lines("-")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"GGUF\x90\xff"), "utf-8", errors=errors))
        with pytest.raises(SprigError, match="standard input is no"):
            read()


def test_an_error_as_json(home: Path) -> None:
    done = ask("x", "-m", "nothing", "--json", home=home)
    assert done.returncode == 1
    assert "there is no model" in only_json(done)["error"]["message"]


def test_a_schema_that_cannot_be_used_is_one_line(model: Path, shared_home: Path, tmp_path: Path) -> None:
    schema = tmp_path / "s.json"
    schema.write_text('{"type": "nonsense"}')
    done = ask("x", "-m", model, "--schema", schema, "--json", *FEW, home=shared_home)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "nonsense" in done.stderr


@pytest.mark.slow
def test_tools_by_name_and_from_a_file(model: Path, shared_home: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("from agent import tool\n@tool\ndef shout(word: str) -> str:\n    'Shout.'\n    return word.upper()\n")
    done = ask("x", "-m", model, "--tool", "clock", "--tool", mine, "--json", *FEW, home=shared_home)
    assert only_json(done)["usage"]["prompt_tokens"] > 200
    none, broken = tmp_path / "none.py", tmp_path / "broken.py"
    none.write_text("x = 1\n")
    broken.write_text("1 / 0\n")
    assert "defines no tool" in one_line(ask("x", "-m", model, "--tool", none, home=shared_home))
    assert "ZeroDivisionError" in one_line(ask("x", "-m", model, "--tool", broken, home=shared_home))
    assert "there is no file" in one_line(ask("x", "-m", model, "--tool", tmp_path / "no.py", home=shared_home))


@pytest.mark.slow
def test_sessions_go_on(model: Path, home: Path) -> None:
    first = only_json(ask("one", "-m", model, "--session", "new", "--json", "--system", "Be brief.", *FEW, home=home))
    second = only_json(ask("two", "-m", model, "--session", "last", "--json", *FEW, home=home))
    third = only_json(ask("three", "-m", model, "--session", first["session"][:6], "--json", *FEW, home=home))
    assert first["session"] == second["session"] == third["session"]
    with Store(home / "sessions.db") as store:
        kept = store.open(first["session"])
        assert [m.message.text for m in kept.messages() if m.message.role == "user"] == ["one", "two", "three"]
        assert kept.info.system == "Be brief."
        assert kept.info.model == "tiny hermes"
    prompts = [told["usage"]["prompt_tokens"] for told in (first, second, third)]
    assert prompts == sorted(prompts)
    assert prompts[1] > prompts[0] + first["usage"]["generated_tokens"]


def test_the_settings_say_what_no_option_says(model: Path, home: Path, tmp_path: Path) -> None:
    home.mkdir()
    settings = home / "settings.toml"
    settings.write_text(
        f"model = '{model}'\nsystem = 'Be brief.'\n[sampling]\nmax_tokens = 3\nseed = 5\n[engine]\ncontext = 2048\nthreads = 1\n"
        "[screen]\ntheme = 'nord'\n[keys]\n'chat.new' = 'f2'\n"
    )
    first = only_json(ask("Well?", "--json", "--session", "new", home=home))
    assert (first["model"], first["usage"]["generated_tokens"]) == (str(model), 3)
    with Store(home / "sessions.db") as store:
        assert store.open(first["session"]).info.system == "Be brief."
    again = only_json(ask("Well?", "--json", "--max-tokens", "5", "-s", "", home=home))
    assert again["usage"]["generated_tokens"] == 5
    assert again["usage"]["prompt_tokens"] < first["usage"]["prompt_tokens"], "the command line says: no system prompt"
    settings.write_text(settings.read_text().replace("[sampling]", "tools = ['clock']\n[sampling]", 1))
    with_tool = only_json(ask("Well?", "--json", home=home))["usage"]["prompt_tokens"]
    assert with_tool > first["usage"]["prompt_tokens"] + 50
    assert only_json(ask("Well?", "--json", "--tool", "none", home=home))["usage"]["prompt_tokens"] < with_tool
    other = tmp_path / "other.toml"
    other.write_text("sampling.max_tokens = 0")
    assert "other.toml, line 1: sampling.max_tokens is 0" in one_line(ask("Well?", "--settings", other, home=home))
    assert "no settings file" in one_line(ask("Well?", "--settings", tmp_path / "nowhere.toml", home=home))


def test_ask_and_chat_take_the_same_options() -> None:
    shared = {field.name for field in fields(AgentOptions)}
    ask_takes, chat_takes = ({p.name: p for p in get_command(app).params} for app in (ask_app, chat_app))
    assert shared <= ask_takes.keys()
    assert shared <= chat_takes.keys()
    for name in shared:
        assert (ask_takes[name].opts, ask_takes[name].help) == (chat_takes[name].opts, chat_takes[name].help)  # type: ignore[attr-defined]


PRESS = """
import sys
from agent import tool
from agent.cli.ask import ask_app
from tests.fixtures.fake_engine import FakeEngine, call_text
import agent.settings.use
said = [call_text("press", {"button": "red"}), "ok"]
agent.settings.use.model_of = lambda settings: FakeEngine(said)
sys.argv = ["ask", "Press it", "--tool", sys.argv[1]]
ask_app()
"""


@pytest.fixture
def press(tmp_path: Path) -> Path:
    """A tool that must be asked for, and leaves a mark where it ran."""
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from pathlib import Path\nfrom agent import tool\n@tool(approval='ask')\ndef press(button: str) -> str:\n"
        f"    'Press.'\n    with Path({str(tmp_path / 'pressed')!r}).open('a') as f: f.write(button)\n    return 'pressed'\n"
    )
    return mine


def at_a_terminal(
    tool: Path | str, home: Path, reply: bytes | None, *, ahead: bytes = b"", program: str = PRESS, piped: bytes | None = None,
    output: Path | None = None, cwd: Path = ROOT, status: int = 0,
) -> str:  # fmt: skip
    """What a person sees who asks for something that needs a tool; ``reply`` is typed when the question comes."""
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tool)], stdin=subprocess.DEVNULL if piped is None else subprocess.PIPE,
        stdout=slave if output is None else output.open("wb"), stderr=slave, cwd=cwd,
        env=environment(home, PYTHONPATH=str(ROOT)), start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(2, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    os.write(master, ahead)
    if piped is not None and child.stdin is not None:
        child.stdin.write(piped)
        child.stdin.close()
    seen = b""
    with contextlib.suppress(OSError):  # the terminal is gone with its last process
        while piece := os.read(master, 65536):
            seen += piece
            if reply is not None and b"Or write why not:" in seen:
                time.sleep(0.2 if ahead else 0.0)  # whoever took what was typed before would have answered by now
                os.write(master, reply)
                reply = None
    os.close(master)
    assert child.wait(30) == status, seen
    return seen.decode()


@pytest.mark.parametrize(("reply", "ran"), [(b"y\n", True), (b"later\n", False)])
def test_what_must_be_asked_is_asked_on_the_terminal(press: Path, home: Path, reply: bytes, ran: bool) -> None:
    seen = at_a_terminal(press, home, reply)
    assert "The model wants to run a tool" in seen
    assert "button: red" in seen
    assert (press.parent / "pressed").exists() == ran
    assert not (home / "settings.toml").exists()


def test_end_of_file_is_no_and_an_interrupt_ends_it(press: Path, home: Path) -> None:
    seen = at_a_terminal(press, home, b"\x04")
    assert "was not run: the user said no" in seen
    assert seen.rstrip().endswith("ok"), "the model goes on"
    assert "sprig: interrupted" in at_a_terminal(press, home, b"\x03", status=130)
    assert not (press.parent / "pressed").exists()


def test_what_is_typed_before_the_question_is_no_answer(press: Path, home: Path) -> None:
    at_a_terminal(press, home, b"n\n", ahead=b"y\ny\ny\n")
    assert not (press.parent / "pressed").exists()


def test_it_asks_on_the_terminal_also_between_pipes(press: Path, home: Path, tmp_path: Path) -> None:
    """As in `git diff | sprig ask ... > notes.txt`."""
    seen = at_a_terminal(press, home, b"y\n", piped=b"+ a line\n", output=tmp_path / "notes.txt")
    assert "button: red" in seen
    assert (tmp_path / "notes.txt").read_text() == "ok\n", "the answer alone"
    assert (press.parent / "pressed").read_text() == "red"


def test_without_a_terminal_it_says_what_to_do(press: Path, home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRESS, str(press)], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT, timeout=60,
        env=environment(home, PYTHONPATH=str(ROOT)), start_new_session=True,
    )  # fmt: skip
    assert done.stdout == "ok\n"
    assert "there is no terminal to ask on: run it on one, or allow the tool beforehand (--allow press," in done.stderr
    assert not (press.parent / "pressed").exists()


TOUCH = """
import sys
import agent.settings.use
from agent.cli.ask import ask_app
from agent.children import process
from tests.fixtures.fake_engine import FakeEngine, call_text
if sys.argv[1] == "unconfined":
    process.confines_files = lambda: False
said = [call_text("run_command", {"command": "touch made"}), "ok"]
agent.settings.use.model_of = lambda settings: FakeEngine(said)
sys.argv = ["ask", "Make it", "--tool", "run_command", *(["--allow", "run_command"] if sys.argv[1] == "unconfined" else [])]
ask_app()
"""


@pytest.mark.parametrize("kind", ["confined", "unconfined"])
def test_a_command_is_asked_for_whether_it_is_confined_or_not(kind: str, home: Path, tmp_path: Path) -> None:
    if kind == "confined" and not confines_files():
        pytest.skip("nothing confines files here")
    seen = at_a_terminal(kind, home, b"y\n", program=TOUCH, cwd=tmp_path)
    assert "run_command: touch made" in seen
    assert ("nothing keeps a command" in seen) == (kind == "unconfined"), "a rule does not help there"
    assert (tmp_path / "made").exists()


OVERWRITE = """
import sys
import agent.settings.use
from agent.cli.ask import ask_app
from tests.fixtures.fake_engine import FakeEngine, call_text
said = [call_text("write_file", {"path": "notes.txt", "content": "water\\nmilk\\n"}), "ok"]
agent.settings.use.model_of = lambda settings: FakeEngine(said)
sys.argv = ["ask", "Write it", "--tool", "write_file"]
ask_app()
"""


def test_overwriting_is_not_approved_blind(home: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("water\nbread\neggs\n")
    seen = at_a_terminal("", home, b"n\n", program=OVERWRITE, cwd=tmp_path).replace("\r\n", "\n")
    assert "write_file: notes.txt\nreplaces 2 lines with 1\n@@ -1,3 +1,2 @@\n water\n-bread\n-eggs\n+milk\n" in seen
    assert (tmp_path / "notes.txt").read_text() == "water\nbread\neggs\n"


def test_always_is_a_rule_in_the_settings_and_is_not_asked_again(press: Path, home: Path) -> None:
    assert "a: always, for press" in at_a_terminal(press, home, b"a\n")
    assert agent_settings(home / "settings.toml").load().rules == (Rule("allow", "press", "*", '{"button": "red"}', exact=True),)
    assert "wants to run" not in at_a_terminal(press, home, None)
    assert (press.parent / "pressed").read_text() == "redred"


def test_an_always_given_in_the_chat_counts_in_ask(press: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRIG_HOME", str(home))
    file = chat_settings(home / "settings.toml")
    terminal = io.StringIO("Press it\na\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    engine = FakeEngine([call_text("press", {"button": "red"}), "ok"])
    setup = Setup(model="fake", tools=tuple(tools_of(press)))
    chat_plainly(setup, source=terminal, out=io.StringIO(), make_engine=lambda s: engine, keep_rule=file.add_rule)
    assert "wants to run" not in at_a_terminal(press, home, None)
    assert (press.parent / "pressed").read_text() == "redred"


def _hear_interrupts() -> None:
    # A test run in the background of a shell ignores Ctrl-C, and its children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def talking(model: Path, shared_home: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of an answer: what it writes to has room for a few letters more, so that it waits, however fast."""
    reader, writer = os.pipe()
    room = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    full = os.write(writer, b"." * (room - 10))
    wild = ["--threads", "1", "--temperature", "3", "--seed", "1"]
    command = [sys.executable, "-m", "sprig", "ask", "Talk", "-m", str(model), *wild]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(shared_home), stdout=writer, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        text=True, errors="replace", start_new_session=True,
        preexec_fn=_hear_interrupts,
    )  # fmt: skip
    os.close(writer)
    process.stdout = os.fdopen(reader, errors="replace")
    end = time.monotonic() + 60
    while int.from_bytes(fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), sys.byteorder) <= full:
        assert time.monotonic() < end, "it says nothing"
        time.sleep(0.01)
    yield process
    process.kill()
    process.communicate()


def test_an_interrupt_ends_in_130_with_one_line(talking: subprocess.Popen[str]) -> None:
    talking.send_signal(signal.SIGINT)
    _, errors = talking.communicate(timeout=30)
    assert talking.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("sprig: interrupted")
    assert "Traceback" not in errors


def test_a_reader_who_leaves_ends_it_quietly(talking: subprocess.Popen[str]) -> None:
    assert talking.stdout is not None
    assert talking.stderr is not None
    start = time.monotonic()
    talking.stdout.close()
    errors = talking.stderr.read()
    talking.wait(30)
    assert time.monotonic() - start < 30
    assert talking.returncode == 1
    assert "Traceback" not in errors
    assert "Exception" not in errors
