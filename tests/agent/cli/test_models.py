"""`sprig models`: what lies in the store is listed, shown and removed, whatever it is called."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.files import exclusive
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.command import Done, one_line, only_json, sprig
from tests.fixtures.tiny import llama_keys, llama_weights, write

Here = Callable[..., Done]

ODD_NAMES = ["a name with spaces", "-q", "--yes", "ünïcödé 🌱", "a'b\"c$(d)", "tab\tnewline\n", "\x1b[31mred", "x.gguf", "a.b.c"]
ESCAPES = ["..", "../x", "../../etc/passwd", "/etc/passwd", ".hidden", "", "a/../../b", "nul\\back", "x" * 5000]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def here(home: Path) -> Here:
    """`sprig` in this process, at home."""
    return lambda *args: sprig(*args, home=home)


def fill(home: Path, *names: str) -> Path:
    folder = home / "models"
    folder.mkdir(parents=True)
    for name in names:
        write(folder / f"{name}.gguf", llama_keys(llama__context_length=2048, sprig__recipe="Q4_0"), llama_weights())
        (folder / f"{name}.md").write_text("Made by Sprig 0.1.0\n")
    return folder


def test_an_empty_store_says_how_to_fill_it(home: Path, here: Here) -> None:
    done = here("models")
    assert done.returncode == 0
    assert "sprig quantize" in done.stdout
    assert only_json(here("models", "list", "--json"))["models"] == []
    assert not home.exists()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_model_of_any_name_is_listed_shown_and_removed(name: str, home: Path, here: Here) -> None:
    folder = fill(home, name, "bystander")
    listed = here("models")
    assert listed.returncode == 0
    assert "\x1b" not in listed.stdout
    assert len(listed.stdout.splitlines()) == 3
    assert name in {m["name"] for m in only_json(here("models", "--json"))["models"]}
    shown = only_json(here("models", "show", "--json", "--", name))
    assert (shown["context"], shown["recipe"], len(shown["files"])) == (2048, "Q4_0", 2)
    removed = here("models", "remove", "--yes", "--json", "--", name)
    assert only_json(removed)["removed"] == [name]
    assert sorted(p.name for p in folder.iterdir()) == ["bystander.gguf", "bystander.md"]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("command", [["show"], ["remove", "--yes"]])
def test_no_name_leads_out_of_the_store(command: list[str], name: str, home: Path, here: Here, tmp_path: Path) -> None:
    fill(home, "inside")
    outside = tmp_path / "x.gguf"
    outside.write_bytes(b"precious")
    (home / "x.gguf").write_bytes(b"precious")
    one_line(here("models", *command, "--", name))
    assert outside.read_bytes() == (home / "x.gguf").read_bytes() == b"precious"
    assert len(list((home / "models").iterdir())) == 2


def test_removing_takes_the_card_and_the_leftovers_and_nothing_else(home: Path, here: Here) -> None:
    folder = fill(home, "a", "ab")
    (folder / "a.gguf.part").write_bytes(b"x" * 10)
    (folder / "a.gguf.part.journal").write_text("journal\n")
    (folder / "README.md").write_text("mine")
    assert here("models", "remove", "a", "--yes").returncode == 0
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "ab.gguf", "ab.md"]
    assert "README" in one_line(here("models", "remove", "README", "--yes"))


def test_an_unfinished_run_is_listed_and_can_be_removed(home: Path, here: Here) -> None:
    folder = fill(home)
    (folder / "half.gguf.part").write_bytes(b"x" * 10)
    (model,) = only_json(here("models", "--json"))["models"]
    assert (model["name"], model["finished"], model["size"]) == ("half", False, 10)
    assert "--resume" in here("models", "show", "half").stdout
    assert only_json(here("models", "remove", "half", "--yes", "--json"))["freed"] == 10
    assert list(folder.iterdir()) == []


def test_a_model_that_is_being_made_is_not_removed(home: Path, here: Here) -> None:
    folder = fill(home)
    part = folder / "busy.gguf.part"
    with exclusive(part) as fd:
        os.write(fd, b"x" * 10)
        assert "another run" in one_line(here("models", "remove", "busy", "--yes"))
        assert part.read_bytes() == b"x" * 10
    assert here("models", "remove", "busy", "--yes").returncode == 0
    assert not part.exists()


def test_nothing_is_removed_unless_somebody_says_yes(home: Path, here: Here) -> None:
    folder = fill(home, "a", "b")
    assert "--yes" in one_line(here("models", "remove", "a"))
    assert "--yes" in only_json(here("models", "remove", "a", "--json"))["error"]["message"]
    one_line(here("models", "remove", "a", "missing", "--yes"))
    assert len(list(folder.iterdir())) == 4, "one wrong name among several removes none"


def test_the_list_says_what_fits_this_machines_memory(home: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home / "models"
    folder.mkdir(parents=True)
    chat_model(folder / "small.gguf", "hermes")
    (folder / "broken.gguf").write_bytes(b"<html>not found</html>" * 9)

    def fits() -> tuple[str, object, object]:
        line = next(line for line in here("models").stdout.splitlines() if line.startswith("small"))
        listed = {m["name"]: m for m in only_json(here("models", "--json"))["models"]}
        assert (listed["broken"]["fits"], listed["broken"]["needs"]) == (None, None)
        return line.split()[-2], listed["small"]["fits"], listed["small"]["needs"] > 1_000_000

    assert fits() == ("yes", True, True)
    monkeypatch.setattr("agent.models.memory.available_memory", lambda: 1000)
    assert fits() == ("no", False, True)


def test_a_broken_file_does_not_hide_the_others(home: Path, here: Here) -> None:
    folder = fill(home, "good")
    (folder / "broken.gguf").write_bytes(b"<html>not found</html>" * 9)
    listed = {m["name"]: m for m in only_json(here("models", "--json"))["models"]}
    assert listed["good"]["problem"] is None
    assert "not a GGUF file" in listed["broken"]["problem"]
    assert here("models", "remove", "broken", "--yes").returncode == 0


def test_a_model_that_llama_cpp_would_not_take_says_so(home: Path, here: Here) -> None:
    folder = fill(home, "good")
    write(folder / "hollow.gguf", {"general.architecture": "llama", "llama.context_length": 2048}, {})
    listed = {m["name"]: m for m in only_json(here("models", "--json"))["models"]}
    assert listed["good"]["problem"] is None
    assert listed["hollow"]["problem"]


def test_a_journal_without_its_output_can_still_be_removed(home: Path, here: Here) -> None:
    folder = fill(home)
    (folder / "lost.gguf.part.journal").write_text("journal\n")
    assert "remove it" in here("models").stdout
    assert here("models", "remove", "lost", "--yes").returncode == 0
    assert list(folder.iterdir()) == []


def test_the_second_list_reads_no_model_again(home: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(home, "a", "b")
    first = here("models").stdout
    monkeypatch.setattr("agent.gguf.check.check", lambda path: pytest.fail(f"{path} was read again"))
    assert here("models").stdout == first
