"""What all tests share: homes of their own, things that are made once in a run, and marks that follow from what a test uses."""

from __future__ import annotations

import gc
import inspect
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.fixtures.generated import runs
from tests.fixtures.kept_children import kept_children
from tests.fixtures.kept_templates import keep_templates
from tests.fixtures.shared import VARIABLE

# A machine that has other work is no reason to fail: what must be quick says so itself, with a limit of its own.
settings.register_profile(
    "sprig", max_examples=runs(settings.default.max_examples), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sprig")

TUI = Path(__file__).parent / "tui"
TORCH = {"tests.fixtures.checkpoints", "tests.fixtures.later", "tests.fixtures.learners", "tests.pipeline.prune.models"}
NO_SCREEN = {TUI / "serve", TUI / "talk"}  # what is asynchronous there is a server, or a queue


def pytest_configure(config: pytest.Config) -> None:
    """One folder for tests.fixtures.shared; the workers inherit its name. Ctrl-C reaches the commands that tests start."""
    for library in ("OMP", "OPENBLAS"):  # models are tiny and tests run side by side: more threads would wait for one another
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    # A shell starts what runs in its background with SIGINT ignored, all children inherit that, and no Ctrl-C ends them.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if VARIABLE not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="sprig-shared-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        config.add_cleanup(lambda: os.environ.pop(VARIABLE))
        os.environ[VARIABLE] = folder.name


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what a test is by what it uses; `real` and `slow` stand in the files themselves."""
    if hasattr(config, "workerinput"):  # each worker begins with a span of the tests, and others help it from the span's end
        items.sort(key=lambda item: not loads_torch(item))
    screens = {path for path in (TUI, *TUI.rglob("*")) if path.is_dir()} - NO_SCREEN
    for item in items:
        assert isinstance(item, pytest.Function)
        if getattr(item.obj, "is_hypothesis_test", False):
            item.add_marker("generated")
        if "browser" in item.fixturenames:
            item.add_marker("browser")
        elif item.path.parent in screens and inspect.iscoroutinefunction(inspect.unwrap(item.obj)):
            item.add_marker("screen")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is loaded by its end stays: a collection of garbage need not look at hundreds of thousands of objects each time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        gc.set_threshold(20_000, 20, 20)


def loads_torch(item: pytest.Item) -> bool:
    """Whether the file of a test has something of a module that does; one worker of several runs all of these."""
    assert isinstance(item, pytest.Function)
    return any(getattr(value, "__module__", "") in TORCH for value in vars(item.module).values())


@pytest.fixture(scope="session", autouse=True)
def _kept_children() -> Iterator[None]:
    with kept_children():
        yield


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sprig's children are started as outside of tests: for what is about their start, or knows them by their command."""
    monkeypatch.setattr("agent.children.launch.Popen", subprocess.Popen)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SPRIG_HOME of one test; it does not exist yet."""
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def kept_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chat templates are rendered by processes that stay for the next test."""
    keep_templates(monkeypatch)


@pytest.fixture(scope="module")
def module_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """SPRIG_HOME of all tests of a file: what was found out about a chat template is found out once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("SPRIG_HOME", str(folder))
        yield folder
