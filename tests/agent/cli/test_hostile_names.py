"""Every command is given names and values that would move a cursor, hide a letter or forge a line: none of them gets out so."""

from __future__ import annotations

import io
import json
import unicodedata
from pathlib import Path

import pytest

from agent.agent import Agent
from agent.cli.console import Console
from agent.cli.lines import EventLines
from agent.events import Done as Ended
from agent.events import Text
from agent.messages import Message, ToolCall
from agent.sessions.store import Store
from agent.text import reveal
from tests.fixtures.command import Done, sprig
from tests.fixtures.fake_engine import FakeEngine
from tests.fixtures.tiny import llama_keys, llama_weights, write

# A title, a clear screen, a C1 introducer, an override, a tag, private use, a line of its own, a carriage return.
EVIL = "a\x1b]0;t\x07\x1b[2J\x9b2J\u202eb\u200b\U000e0041\ue000\U000f0001\nsprig: FORGED\r"
FAMILY = "👨\u200d👩\u200d👧\u200d👦"


def safe(text: str) -> bool:
    """No line holds what is hidden or obeyed, and none was forged."""
    lines = text.split("\n")
    return all(reveal(line) == line and not line.startswith("sprig: FORGED") for line in lines)


def controls(text: str) -> list[str]:
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    models = home / "models"
    models.mkdir()
    keys = llama_keys(
        general__name=EVIL, general__license=EVIL, general__author=EVIL, sprig__recipe=EVIL, llama__context_length=2048
    )
    keys |= {
        EVIL: "x",
        "tokenizer.chat_template": EVIL,
        "general.languages": [EVIL],
        "general.source.huggingface.repository": EVIL,
    }
    write(models / f"{EVIL}.gguf", keys, {**llama_weights(), EVIL[:40]: next(iter(llama_weights().values()))})
    write(models / "tame.gguf", keys, llama_weights())
    (models / f"broken{EVIL}.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + EVIL.encode() * 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPRIG_HOME", str(home))
        with Store() as store:
            session = store.create(title=EVIL, model=EVIL, system=EVIL)
            session.append(Message("user", f"words {EVIL}"))
            session.append(Message("assistant", EVIL, EVIL, (ToolCall(EVIL, {EVIL: EVIL}, EVIL),)))
            session.append(Message("tool", EVIL, call_id=EVIL, name=EVIL), ok=False, data=[EVIL])
    (home / f"{EVIL}.toml").write_text(f"[sampling]\n'{EVIL.splitlines()[0][:1]}\\u001b' = 1\n")
    return home


@pytest.fixture
def session(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SPRIG_HOME", str(home))
    with Store() as store:
        return store.sessions()[0].id


FILES = (f"models/{EVIL}.gguf", "models/tame.gguf", f"models/broken{EVIL}.gguf", f"models/none{EVIL}.gguf", f"{EVIL}.toml")
COMMANDS: list[tuple[str, ...]] = [
    ("models",), ("models", "list"), ("models", "show", EVIL), ("models", "show", "tame"), ("models", "show", f"broken{EVIL}"),
    ("models", "show", f"no{EVIL}"), ("models", "remove", EVIL), ("models", "remove", f"no{EVIL}", "--yes"),
    ("sessions",), ("sessions", "--search", "words"), ("sessions", "--search", EVIL), ("sessions", "show", EVIL),
    ("sessions", "rename", EVIL, EVIL), ("sessions", "delete", EVIL), ("sessions", "repair", f"none{EVIL}"),
    ("ask", EVIL, "-m", EVIL), ("ask", "x", "--settings", EVIL), ("ask", "x", "--schema", EVIL), ("ask", "x", "--session", EVIL),
    ("bench", "-m", EVIL), ("embed", EVIL, "-m", EVIL), ("pull", EVIL), ("inspect", EVIL), ("chat", "--plain", "-m", EVIL),
    ("chat", "--settings", EVIL),
]  # fmt: skip
WITHOUT_JSON = [
    ("quantize", EVIL), ("evaluate", EVIL), ("compress", EVIL), ("distill", EVIL, EVIL), ("prune", EVIL), ("calibrate", EVIL),
    ("deploy", EVIL, EVIL),
]  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [*COMMANDS, *((*words, "--json") for words in COMMANDS), *WITHOUT_JSON],
    ids=lambda words: " ".join(word[:8] for word in words if word.isprintable()),
)
def test_a_command_lets_nothing_hostile_out(words: tuple[str, ...], home: Path) -> None:
    check(sprig(*words, home=home, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1"), "--json" in words)


@pytest.mark.parametrize("command", ["inspect", "bench", "ask"])
@pytest.mark.parametrize("file", FILES, ids=["evil", "tame", "broken", "none", "toml"])
@pytest.mark.parametrize("json_too", [False, True])
def test_a_file_lets_nothing_hostile_out(command: str, file: str, json_too: bool, home: Path) -> None:
    path = home / file
    words = {"bench": ["bench", "-m", path], "ask": ["ask", "x", "-m", path]}.get(command, [command, path])
    check(sprig(*words, *(["--json"] if json_too else []), home=home), json_too)


def check(done: Done, json_too: bool) -> None:
    assert safe(done.stderr), done.stderr
    assert safe(done.stdout) or done.args[0] == "ask", done.stdout  # a pipe gets what the model said
    assert not controls(done.stdout)
    if json_too and done.stdout:
        assert isinstance(json.loads(done.stdout), dict)


def test_a_kept_conversation_moves_no_cursor(session: str, home: Path) -> None:
    shown = sprig("sessions", "show", session, home=home)
    assert shown.returncode == 0
    assert "\u202eb\u200b" in shown.stdout  # a pipe gets what was said
    assert not controls(shown.stdout)
    check(sprig("sessions", "show", session, "--json", home=home), json_too=True)


def test_json_holds_what_is_there(home: Path) -> None:
    told = json.loads(sprig("models", "--json", home=home).stdout)["models"]
    assert EVIL in {model["name"] for model in told}
    assert EVIL in json.loads(sprig("inspect", home / "models/tame.gguf", "--json", home=home).stdout)["keys"].values()


class FakeScreen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("screen", [True, False])
def test_a_result_is_safe_on_a_screen_and_what_was_said_in_a_pipe(screen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = FakeScreen() if screen else io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    Console().result({}, f"{FAMILY} {EVIL}")
    shown = stream.getvalue()
    assert FAMILY in shown
    assert not controls(shown)
    assert ("\u202eb\u200b" in shown) is not screen
    Console(json=True).result({"a": EVIL}, "")
    assert safe(stream.getvalue().splitlines()[-1])


def test_an_answer_is_safe_on_a_screen_and_what_was_said_in_a_pipe() -> None:
    for screen in (True, False):
        written: list[str] = []
        lines = EventLines(written.append, written.append, screen=screen)
        for piece in f"{FAMILY} pay\u200dpal {EVIL}12":
            lines.show(Text(piece))
        lines.show(Ended(None))  # type: ignore[arg-type]
        said = "".join(written)
        assert said.startswith(FAMILY)
        assert said.endswith("12\n")
        assert not controls(said)
        assert ("pay\u200dpal" in said) is not screen


@pytest.mark.slow
def test_what_stats_and_notes_say_is_one_safe_line_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def agent(settings: object, session: object, file: object, out: Console, *rest: object) -> Agent:
        engine = FakeEngine(["Yes."])
        for name in ("name", "type"):
            object.__setattr__(engine.file, name, EVIL)
        return Agent(engine)

    monkeypatch.setattr("agent.cli.ask._agent", agent)
    done = sprig("ask", "Is it?", "--stats", home=tmp_path)
    assert "tokens" in done.stderr
    assert done.stderr.count("\n") == 1
    check(done, False)
