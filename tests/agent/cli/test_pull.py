"""`sprig pull`: what there is and what fits is listed, one is chosen, and a script gets one object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.hub import client
from agent.models import remote
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.command import Done, one_line, only_json, sprig
from tests.fixtures.loopback_hub import LoopbackHub
from tests.fixtures.tiny import llama_keys, llama_weights, write

REPO = "org/basil-GGUF"
Here = Callable[..., Done]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "repo").mkdir()
    chat_model(tmp_path / "repo" / "basil-Q4_K_M.gguf", "hermes")
    chat_model(tmp_path / "repo" / "basil-instruct-Q8_0.gguf", "hermes", llama__rope__scale=1.0)
    return tmp_path / "repo"


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setattr(client, "BACKOFF_SECONDS", 0.001)
    remote.forget_headers()
    with LoopbackHub({REPO: folder}) as hub:
        yield hub


@pytest.fixture
def here(tmp_path: Path, hub: LoopbackHub) -> Here:
    """`sprig` in this process, with a home and a Hub of its own."""
    own = {"HOME": str(tmp_path), "HF_ENDPOINT": hub.url, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return lambda *args, **env: sprig(*args, home=tmp_path / "home", **own, **env)


def test_a_repository_with_several_is_listed_and_the_command_for_one_is_told(here: Here, tmp_path: Path) -> None:
    done = here("pull", REPO)
    assert done.returncode == 0
    first, small, large = done.stdout.splitlines()
    assert first.startswith(f"2 GGUFs in {REPO} at ")
    assert "Q4_K_M" in small
    assert "fits with a context of 4,096" in small
    assert "basil-instruct-Q8_0.gguf" in large
    assert done.stderr == f"nothing was pulled: name one, as in sprig pull {REPO}:Q8_0\n"
    assert not (tmp_path / "home").exists()
    data = only_json(here("pull", REPO, "--json"))
    assert [(file["quantization"], file["fits"], file["parts"]) for file in data["files"]] == [
        ("Q4_K_M", True, 1), ("Q8_0", True, 1),
    ]  # fmt: skip


def test_a_person_chooses_from_the_list(here: Here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from agent.cli import pull

    class Terminal:
        stdin = stderr = type("Tty", (), {"isatty": staticmethod(lambda: True)})()

    monkeypatch.setattr(pull, "sys", Terminal)
    answers = iter(["", "9", "one", "2"])
    monkeypatch.setattr(pull.typer, "prompt", lambda *said, **how: next(answers))
    assert "nothing was pulled" in here("pull", REPO).stderr
    for wrong in ("9", "one"):
        assert f"'{wrong}' is no number from 1 to 2" in here("pull", REPO).stderr
    done = here("pull", REPO)
    assert "  2  Q8_0" in done.stderr
    assert "basil-instruct-Q8_0" in done.stdout
    assert (tmp_path / "home" / "models" / "basil-instruct-Q8_0.gguf").is_file()


@pytest.mark.slow
def test_what_is_named_is_pulled_and_listed_with_its_origin(here: Here, folder: Path) -> None:
    done = here("pull", f"https://huggingface.co/{REPO}/blob/main/basil-Q4_K_M.gguf")
    assert done.returncode == 0, done.stderr
    assert f"from   {REPO}:basil-Q4_K_M.gguf at " in done.stdout
    assert "sprig chat -m basil-Q4_K_M" in done.stdout
    assert "download" in done.stderr
    assert "already" in here("pull", f"{REPO}:q4_k_m").stdout
    (model,) = only_json(here("models", "--json"))["models"]
    assert (model["source"], model["origin"]["files"]) == (REPO, ["basil-Q4_K_M.gguf"])
    assert REPO in here("models").stdout
    assert f"pulled from {REPO} at {model['commit']}: basil-Q4_K_M.gguf" in here("models", "show", "basil-Q4_K_M").stdout
    assert only_json(here("models", "remove", "basil-Q4_K_M", "--yes", "--json"))["removed"] == ["basil-Q4_K_M"]
    assert only_json(here("models", "--json"))["models"] == []


def test_the_only_one_is_taken_and_a_script_gets_one_object(here: Here, hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    chat_model(tmp_path / "one" / "mint.gguf", "hermes")
    hub.publish("org/mint", tmp_path / "one", "v1")
    done = only_json(here("pull", "org/mint", "--revision", "v1", "--name", "garden", "--json"))
    assert (done["name"], done["repo"], done["revision"], done["new"]) == ("garden", "org/mint", "v1", True)
    assert done["files"] == ["mint.gguf"]
    assert Path(done["path"]).read_bytes() == (tmp_path / "one" / "mint.gguf").read_bytes()


def test_a_cut_pull_says_how_to_go_on(here: Here, hub: LoopbackHub) -> None:
    hub.fail("*Q4_K_M.gguf", cut_after=10_000, skip=1)
    hub.fail("*/resolve/*", status=503, times=1000, skip=2)
    done = here("pull", f"{REPO}:Q4_K_M", "--name", "my basil")
    assert done.returncode == 1
    assert "the Hub answers 503" in done.stderr
    command = f"sprig pull {REPO}:basil-Q4_K_M.gguf --name 'my basil'"
    assert f"not finished: `{command}` goes on" in only_json(here("models", "--json"))["models"][0]["problem"]
    hub.heal()
    assert here("pull", f"{REPO}:basil-Q4_K_M.gguf", "--name", "my basil").returncode == 0


def test_an_interrupted_pull_says_how_to_go_on(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agent.models.pull.fetch_into", interrupted)
    done = here("pull", f"{REPO}:Q4_K_M")
    assert done.returncode == 130
    assert done.stderr == "sprig: interrupted; the same command goes on where it was\n"


def test_what_will_not_work_here_is_said_before_it_is_pulled(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.models.memory.available_memory", lambda: 20_000_000)
    done = here("pull", f"{REPO}:Q4_K_M")
    assert done.returncode == 0
    assert done.stderr.startswith("basil-Q4_K_M will not work on this machine: needs ")


def test_a_hostile_listing_cannot_write_on_the_screen(here: Here, hub: LoopbackHub, folder: Path) -> None:
    (folder / "red\x9b31m-Q4_0.gguf").write_bytes(b"GGUF" + bytes(30))
    hub.publish(REPO, folder)
    assert "which no honest model does" in one_line(here("pull", REPO))
    assert "'\\x1b[31m' names no model on the Hub" in one_line(here("pull", "\x1b[31m"))


def test_the_models_of_other_programs_are_listed_too(here: Here, tmp_path: Path) -> None:
    assert "no GGUF in the Hub's cache" in here("models", "--everywhere").stdout
    place = tmp_path / ".lmstudio/models/me/Basil"
    place.mkdir(parents=True)
    write(place / "basil.gguf", llama_keys(llama__context_length=2048), llama_weights())
    done = here("models", "list", "--everywhere")
    assert "lmstudio:me/Basil/basil.gguf" in done.stdout
    assert "LM Studio" in done.stdout
    (found,) = only_json(here("models", "--everywhere", "--json"))["elsewhere"]
    assert (found["name"], found["path"], found["context"]) == (
        "lmstudio:me/Basil/basil.gguf", str(place / "basil.gguf"), 2048,
    )  # fmt: skip
    assert "options go behind 'list'" in here("models", "--everywhere", "list").stderr
