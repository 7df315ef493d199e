"""The ground: what imports what, what a device installs, how little `sprig --help` needs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections import Counter
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.fixtures.paths import ROOT
from tests.house import (
    ARCHITECTURE,
    MAP_BEGINS,
    PACKAGES,
    circles,
    house_map,
    module_graph,
    modules,
    room_graph,
    source,
    structure,
)

HEAVY = {"agent", "pipeline", "tui", "llama_cpp", "numpy", "huggingface_hub", "tokenizers", "textual", "rich", "torch"}
EXTRAS = ["huggingface_hub", "tokenizers", "sentencepiece", "yaml", "torch", "transformers", "safetensors", "gguf", "requests"]
CODE_RUNNERS = {"transformers", "pickle", "cloudpickle", "dill", "joblib"}
NOT_ON_A_PHONE = {
    "pydantic", "pydantic-core", "tokenizers", "psutil", "llguidance", "torch", "transformers", "huggingface-hub", "safetensors",
}  # fmt: skip


def python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True, timeout=60)


def imports(path: Path, *, at_once: bool = False) -> set[str]:
    """The packages that a file imports, anywhere in it or, ``at_once``, when it is imported itself; those under TYPE_CHECKING
    cost nothing and are left out."""
    found = [i for i in source(path).imports if not i.typing and not (at_once and i.later)]
    assert not [i for i in found if i.module.startswith(".")], f"{path}: relative import"
    return {i.module.partition(".")[0] for i in found}


def roots(package: str) -> dict[str, set[str]]:
    return {str(f.relative_to(ROOT)): imports(f) for f in sorted((ROOT / package).rglob("*.py"))}


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["-h"], ["nonsense"]])
def test_help_needs_nothing_heavy(args: list[str]) -> None:
    code = (
        "import sys, sprig\n"
        "try: sprig.main()\n"
        "except SystemExit: pass\n"
        f"print('heavy:', *sorted(set(sys.modules) & {HEAVY!r}), file=sys.stderr)"
    )
    assert python(code, *args).stderr.splitlines()[-1].strip() == "heavy:"


def test_help_of_a_pipeline_command_needs_no_model_library() -> None:
    code = (
        "import sys, sprig\n"
        "try: sprig.main()\n"
        "except SystemExit: pass\n"
        "print(*sorted(set(sys.modules) & {'llama_cpp', 'huggingface_hub', 'tokenizers', 'textual', 'gguf'}), file=sys.stderr)"
    )
    done = python(code, "quantize", "--help")
    assert "--recipe" in done.stdout
    assert done.stderr.strip() == ""


def test_the_agent_stands_on_what_a_phone_has() -> None:
    allowed = {"agent", "llama_cpp", "jinja2", "numpy", "platformdirs", "tomlkit", *sys.stdlib_module_names}
    # The command line is in the base install too.
    extras = {
        f"agent/cli/{name}.py": {"typer"} for name in ("ask", "bench", "doctor", "embed", "models", "pull", "sessions", "options")
    }
    extras["agent/cli/progress.py"] = {"rich"}  # comes with Textual, as does the next
    extras["agent/sessions/markdown.py"] = {"markdown_it"}
    mcp = {"mcp", "mcp_types", "httpx2", "anyio"}  # an extra, imported when a server is to be reached
    strangers = {
        name: left
        for name, found in roots("agent").items()
        if (left := found - allowed - extras.get(name, set()) - (mcp if "/mcp" in name else set()))
    }
    assert strangers == {}
    for name in (n for n in roots("agent") if "/mcp" in n):
        assert not imports(ROOT / name, at_once=True) & mcp, f"{name} needs the extra at import"


def test_pipeline_and_tui_do_not_know_each_other() -> None:
    assert {name for name, found in roots("pipeline").items() if "tui" in found} == set()
    assert {name for name, found in roots("tui").items() if found & {"pipeline", "llama_cpp"}} == set()


def test_the_pipeline_never_runs_a_models_code() -> None:
    """transformers would, unless it is given nothing but a configuration; torch is only there for old .bin checkpoints, and only
    its weights-only loader, and to learn with."""
    found = roots("pipeline")
    network = "pipeline/network/build.py"
    assert {name for name, modules in found.items() if modules & CODE_RUNNERS} <= {network}
    assert not re.search(r"trust_remote_code|from_pretrained|auto_map(?!\")", (ROOT / network).read_text())
    rooms = {
        "tune": ("student", "layers", "divergence", "train"),
        "distill": ("batches", "learner", "lora", "loop", "loss", "processes", "rounded", "teacher", "work", "write"),
    }
    learning = {f"pipeline/{room}/{name}.py" for room, names in rooms.items() for name in names} | {network}
    torch = {name for name, modules in found.items() if "torch" in modules}
    assert torch <= {"pipeline/sources/torch_bin.py", "pipeline/tune/tune.py", "pipeline/distill/distill.py", *learning}
    at_once = {name.removesuffix(".py").replace("/", ".") for name in learning}
    for name in found.keys() - learning:
        modules = [i.module for i in source(ROOT / name).imports if not i.typing and not i.later]
        assert "torch" not in {m.partition(".")[0] for m in modules}, "torch would be loaded for every model"
        assert not at_once.intersection(modules), name


def test_the_agent_runs_without_the_pipelines_dependencies() -> None:
    """Every module of the agent, and the commands that a device has, with the extras made impossible to import."""
    code = (
        "import sys, pkgutil, importlib\n"
        f"for name in {EXTRAS!r}: sys.modules[name] = None\n"
        "import agent\n"
        "names = [m.name for m in pkgutil.walk_packages(agent.__path__, 'agent.')]\n"
        "for name in names:\n"
        "    if not name.endswith('_child'): importlib.import_module(name)\n"
        "print(len(names), *sorted({m.partition('.')[0] for m in sys.modules} & {'pipeline', 'tui'}))"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    count, *leaked = done.stdout.split()
    assert int(count) >= 10
    assert leaked == []


def test_without_the_extra_the_pipeline_says_what_to_install(tmp_path: Path) -> None:
    block = f"import sys\nfor name in {EXTRAS!r}: sys.modules[name] = None\nimport sprig\nsprig.main()"
    done = python(block, "quantize", "org/model", "-o", str(tmp_path / "x.gguf"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "gguf" in done.stderr
    assert "pip install '.[pipeline]'" in done.stderr
    assert "pip install '.[pipeline]'" in python(block, "inspect", "org/model").stderr
    assert python(block, "models").returncode == 0


def test_the_base_install_has_nothing_a_phone_lacks() -> None:
    """Every distribution that `pip install sprig-llm` would bring, followed through the metadata of what is installed here."""
    with (ROOT / "pyproject.toml").open("rb") as f:
        pending = list(tomllib.load(f)["project"]["dependencies"])
    closure: set[str] = set()
    while pending:
        wanted = Requirement(pending.pop())
        if wanted.name.lower() in closure or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        closure.add(wanted.name.lower())
        try:
            pending += requires(wanted.name) or []
        except PackageNotFoundError:
            pytest.fail(f"{wanted.name} is needed and not installed")
    assert {"llama-cpp-python", "textual", "typer", "jinja2", "numpy", "platformdirs"} <= closure
    assert closure & NOT_ON_A_PHONE == set()


FILES = modules(*PACKAGES)


def test_no_module_imports_itself_through_others() -> None:
    assert circles(module_graph(FILES)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_stand_on_floors(package: str) -> None:
    """Every arrow between the files and folders of a package runs down."""
    assert structure(room_graph(module_graph(FILES), package)).back == ()


def test_a_folder_can_be_taken_in_at_a_glance() -> None:
    """Architectures are a registry: one small file each, found by its name."""
    counts = Counter(f.parent for f in FILES.values() if f.name != "__init__.py" and f.parent.name != "architectures")
    assert {str(folder.relative_to(ROOT)): n for folder, n in counts.items() if n > 16} == {}


def test_no_file_and_no_function_is_too_long_to_read() -> None:
    long = {name: n for name, file in FILES.items() if (n := source(file).lines) > 450}
    long |= {f"{name}.{function}": n for name, file in FILES.items() for function, n in source(file).functions if n > 60}
    assert long == {}


def test_importing_a_package_costs_nothing() -> None:
    """A child process pays for every line of the packages above its module."""
    full = {name for name, file in FILES.items() if file.name == "__init__.py" and file.read_text().strip()}
    assert full == {"agent", "agent.text", "pipeline"}


def test_one_word_means_one_thing() -> None:
    """No two public classes of the house share a name."""
    homes: dict[str, list[str]] = {}
    for name, file in FILES.items():
        for word in source(file).classes:
            if not word.startswith("_"):
                homes.setdefault(word, []).append(name)
    assert {word: where for word, where in homes.items() if len(where) > 1} == {}


def test_the_map_of_the_house_is_that_of_the_house() -> None:
    text = ARCHITECTURE.read_text()
    assert house_map() in text, "write it anew: make map"


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_files_that_a_page_names_are_there(page: str) -> None:
    prose = (ROOT / page).read_text().partition(MAP_BEGINS)[0]
    named = set(re.findall(r"`((?:agent|pipeline|tui|tests|docs|examples|benchmarks|\.ci)/[\w./-]*)`", prose))
    assert len(named) >= 3
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_a_command_with_its_argument_that_a_message_names_is_there() -> None:
    from agent.cli.models import models_app
    from agent.cli.sessions import sessions_app

    groups = {"models": models_app, "sessions": sessions_app}
    for group, app in groups.items():
        known = {command.name or str(command.callback.__name__) for command in app.registered_commands if command.callback}
        for package in ("agent", "pipeline", "tui", "install"):
            for path in sorted((ROOT / package).rglob("*.py")):
                for named in re.findall(rf"\bsprig {group} ([a-z]+) [A-Z]{{2}}", path.read_text()):
                    assert named in known, f"{path.relative_to(ROOT)}: sprig {group} {named}"
