"""`sprig embed`: vectors on standard output or in a file, and a search of files; a failure is one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from agent import Embedder
from agent.messages import Message
from agent.sessions.store import Store
from tests.fixtures.command import Done, one_line, only_json, sprig
from tests.fixtures.tiny import llama

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("m")
    return str(llama(folder / "mean.gguf", llama__pooling_type=1, llama__context_length=300, sprig__prompt__query="ask: "))


def embed(*arguments: str, piped: str = "") -> Done:
    return sprig("embed", *arguments, home=Path(os.environ["SPRIG_HOME"]), piped=piped)


@pytest.mark.slow
def test_vectors_for_a_person_and_for_a_script(model: str) -> None:
    shown = embed(model, "a dog", "a\x1bcat").stdout.splitlines()
    assert shown[0] == "a dog"
    assert shown[1].endswith("... 32 numbers")
    assert "cosine with the first 0." in shown[3]
    assert "\x1b" not in shown[2]
    found = only_json(embed(model, "a dog", "a cat", "--json"))
    with Embedder(model) as embedder:
        wanted = embedder.embed(["a dog", "a cat"])
    assert np.array_equal(np.array(found["vectors"], np.float32), wanted)
    assert (found["width"], found["pooling"], found["count"]) == (32, "mean", 2)


@pytest.mark.slow
def test_each_line_of_a_file_or_of_standard_input_into_a_file(model: str, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("one\n\nthree\n")
    done = only_json(embed(model, "--file", str(tmp_path / "texts"), "-o", str(tmp_path / "v.npy"), "--json"))
    assert (done["count"], done["path"]) == (3, str(tmp_path / "v.npy"))
    assert np.load(tmp_path / "v.npy").shape == (3, 32)
    embed(model, "-f", "-", "-o", str(tmp_path / "v.jsonl"), piped="one\n\nthree\n")
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["one", "", "three"]
    assert np.array_equal(np.array([row["vector"] for row in rows], np.float32), np.load(tmp_path / "v.npy"))


@pytest.mark.slow
def test_what_a_model_wants_before_a_text_is_put_there(model: str) -> None:
    asked = [only_json(embed(model, *more, "--json"))["vectors"] for more in (["x", "--as", "query"], ["ask: x"])]
    assert asked[0] == asked[1]
    assert only_json(embed(model, "x", "--prompt", "ask: ", "--json"))["vectors"] == asked[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["MODEL"], "there is no text: sprig embed MODEL TEXT, or --file FILE"),
        ([], "there is no model"),
        (["MODEL", "word " * 200], "texts[0] has"),
        (["MODEL", "x", "-o", "v.txt"], "v.txt must end in .npy or .jsonl"),
        (["MODEL", "x", "-o", "/nowhere/v.npy"], "there is no folder /nowhere"),
        (["MODEL", "-f", "/nowhere"], "cannot read /nowhere"),
        (["MODEL", "-f", "MODEL"], "is no UTF-8 text"),
        (["MODEL", "--search", "x", "--in", "/nowhere"], "/nowhere is no folder"),
        (["--search", "x"], "no embedding model is named"),
        (["nothing-like-this", "x"], "there is no model 'nothing-like-this'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(model: str, arguments: list[str], said: str) -> None:
    assert said in one_line(embed(*(model if a == "MODEL" else a for a in arguments)))


@pytest.mark.parametrize(
    "arguments",
    [["--as", "poem"], ["--as", "query", "--prompt", "y"], ["--in", "."], ["--search", "y"], ["--pooling", "max"]],
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert embed("model", "text", *arguments).returncode == 2


@pytest.mark.slow
def test_a_search_of_files_with_the_model_of_the_settings(model: str, tmp_path: Path, home: Path) -> None:
    home.mkdir()
    (home / "settings.toml").write_text(f"embedding_model = {json.dumps(model)}\n")
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("first\n\nthe bath is warm\n")
    (folder / "b.md").write_text("nothing of that kind at all\n")
    found = only_json(embed("--search", "first\n\nthe bath is warm", "--in", str(folder), "-n", "1", "--json"))
    assert (found["documents"], found["embedded"]) == (2, 2)
    assert [(m["path"], m["first"], m["last"]) for m in found["matches"]] == [("a.md", 1, 3)]
    again = embed("--search", "the bath", "--in", str(folder))
    assert any(line.startswith("a.md:1  0.") for line in again.stdout.splitlines())
    assert only_json(embed("--search", "x", "--in", str(folder), "--json"))["embedded"] == 0


@pytest.mark.slow
def test_conversations_are_found_by_meaning(model: str, home: Path) -> None:
    home.mkdir()
    (home / "settings.toml").write_text(f"embedding_model = {json.dumps(model)}\n")
    with Store() as store:
        session = store.create()
        session.append(Message("user", "the bath is warm"))
    found = only_json(sprig("sessions", "--meaning", "the bath is warm", "--json", home=home))
    assert [(hit["session"], hit["text"]) for hit in found["hits"]] == [(session.id, "the bath is warm")]
    assert sprig("sessions", "--meaning", "x", "--search", "y", home=home).returncode == 2
