"""Which small faults in the guard do its own tests notice? ``make mutants``; needs cosmic-ray, which knows the faults.

    python tests/mutants.py [PART ...] [--count 200] [--seed 1] [--again FILE] [--write FILE]

A part of the guard gets one fault at a time, drawn from all that cosmic-ray can make in its modules; faults that change no more
than annotations are left out. It happens in a copy of the checkout. Its own tests (GUARD) run until the first fails: the fault
is noticed. A process that has imported what costs time forks for each fault. What nobody notices is printed as a diff: it wants
a test, or it changes nothing that anybody could see.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Part of the guard -> its modules -> their own tests, those that answer soonest first.
A = "tests/agent/"
GUARD: dict[str, dict[str, tuple[str, ...]]] = {
    "approval": dict.fromkeys(
        (
            f"agent/approval/{name}.py"
            for name in (
                "arguments",
                "danger",
                "offers",
                "patterns",
                "policy",
                "programs",
                "question",
                "spellings",
                "trust",
            )
        ),
        (A + "approval",),
    ),
    "gguf": dict.fromkeys(
        ("agent/gguf/check.py", "agent/gguf/keys.py"),
        (A + "gguf/test_check.py", A + "gguf/test_untrusted.py", A + "gguf/test_reader.py", A + "gguf/test_fuzz.py"),
    ),
    "files": dict.fromkeys(
        ("agent/tools/builtin/root.py", "agent/tools/builtin/files.py", "agent/tools/builtin/changes.py"),
        (A + "tools/builtin/test_changes.py", A + "tools/builtin/test_files.py"),
    ),
    "display": dict.fromkeys(
        ("agent/text/__init__.py", "agent/text/joiners.py"), (A + "text/test_text.py", A + "text/test_all_characters.py")
    ),
    "text": {
        "agent/text/address.py": (A + "text/test_address.py",),
        "agent/text/secrets.py": (A + "text/test_secrets.py",),
        **dict.fromkeys(("agent/text/command_line.py", "agent/text/shell_words.py"), (A + "text/test_command_line.py",)),
    },
    "sandbox": dict.fromkeys(
        (f"agent/children/{name}.py" for name in ("namespaces", "protected", "rules", "sandbox", "seccomp")),
        (A + "children/test_seccomp.py", A + "children/test_walls.py", A + "children/test_sandbox.py"),
    ),
    "constraint": {
        "agent/dialects/constrain.py": (A + "grammar/test_constrain.py", A + "grammar/test_constrain_generated.py"),
        **dict.fromkeys(("agent/grammar/matcher.py", "agent/grammar/leaves.py", "agent/grammar/fresh.py"), (A + "grammar",)),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(GUARD)}; by default all")
    parser.add_argument("--count", type=int, default=200, help="faults of each part")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again", type=Path, help="a file of --write: only the faults that nobody noticed there")
    parser.add_argument("--write", type=Path, help="the faults that nobody noticed, as JSON")
    parser.add_argument("--seconds", type=float, default=120, help="for the tests of one fault; more counts as noticed")
    arguments = parser.parse_args()
    for part in arguments.parts:
        if part not in GUARD:
            parser.error(f"{part} is no part of the guard: {', '.join(GUARD)}")
    again = json.loads(arguments.again.read_text()) if arguments.again else None
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "checkout"
        _copy(copy)
        os.chdir(copy)
        _get_ready(copy)
        living: list[tuple[str, str]] = []
        for tests in {tests for part in arguments.parts or GUARD for tests in GUARD[part].values()}:
            if not _pass(tests, 600, Path("tests.log")):
                parser.exit(1, f"{Path('tests.log').read_text()}\nwithout any fault, these fail: {' '.join(tests)}\n")
        for part in arguments.parts or GUARD:
            faults = draw(part, arguments.count, arguments.seed) if again is None else [f for f in again if f[0] in GUARD[part]]
            here = [
                (module, text) for module, text in faults if not _noticed(module, text, GUARD[part][module], arguments.seconds)
            ]
            living += here
            print(f"== {part}: {len(faults) - len(here)} of {len(faults)} noticed", flush=True)
        if arguments.write:
            arguments.write.write_text(json.dumps(living))


def draw(part: str, count: int, seed: int) -> list[tuple[str, str]]:
    """Module and its text with one fault, ``count`` times at most."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    places = []
    for module in GUARD[part]:
        nodes = list(ast_nodes(get_ast(Path(module).read_text())))
        for name in sorted(operator_names()):
            if name.rsplit("/")[-1] in ("VariableReplacer", "VariableInserter", "RemoveDecorator"):
                continue  # the first two want names; without its decorator no dataclass can be made at all
            operator = get_operator(name)()
            number = sum(len(list(operator.mutation_positions(node))) for node in nodes)
            places += [(module, operator, i) for i in range(number)]
    random.Random(seed).shuffle(places)
    seen = {_meaning(Path(module).read_text()) for module in GUARD[part]}
    found: list[tuple[str, str]] = []
    for module, operator, i in places:
        text = mutate_code(Path(module).read_text(), operator, i)
        try:
            meaning = _meaning(text)
        except SyntaxError:
            continue
        if meaning not in seen and len(found) < count:
            seen.add(meaning)
            found.append((module, text))
    return found


def _meaning(text: str) -> str:
    """What runs, without annotations and the places in the text."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
            among = node.args  # a star among parameters is not a product
            among.args, among.posonlyargs, among.kwonlyargs = among.posonlyargs + among.args + among.kwonlyargs, [], []
            among.defaults, among.kw_defaults = among.defaults + [d for d in among.kw_defaults if d], []
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return ast.dump(tree)


def _copy(copy: Path) -> None:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in names.split("\0"):
        if name and (ROOT / name).is_file():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)


def _get_ready(copy: Path) -> None:
    """This process imports nothing of Sprig, and all else that the tests ask for."""
    subprocess.run([sys.executable, "-m", "compileall", "-q", "agent", "tests", "pipeline", "tui"], check=True)
    os.environ.update({"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"})
    os.environ.setdefault("SPRIG_TEST_SHARE", "0.1")
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(copy)]
    for name in (
        "hypothesis",
        "jinja2",
        "llama_cpp",
        "numpy",
        "pydantic",
        "pytest",
        "pytest_asyncio",
        "pytest_timeout",
        "textual.app",
    ):
        importlib.import_module(name)


def _noticed(module: str, text: str, tests: tuple[str, ...], seconds: float) -> bool:
    path = Path(module)
    whole = path.read_text()
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()
    path.write_text(text)
    passed = _pass(tests, seconds)
    path.write_text(whole)
    if passed:
        print("\n".join(_changed(whole, text, module)), flush=True)
    return not passed


def _changed(whole: str, fault: str, name: str) -> list[str]:
    lines = difflib.unified_diff(whole.splitlines(), fault.splitlines(), name, name, n=1, lineterm="")
    return ["", name, *(line for line in lines if not line.startswith(("---", "+++")))]


def _pass(tests: tuple[str, ...], seconds: float, log: Path = Path(os.devnull)) -> bool:
    """Whether the tests pass, in a process of their own group that is gone afterwards."""
    child = os.fork()
    if child == 0:
        os.setsid()
        said = os.open(log, os.O_RDWR | os.O_CREAT)
        for number in (0, 1, 2):
            os.dup2(said, number)
        import pytest

        code = 1
        try:
            code = int(
                pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning", *tests])
            )
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + seconds
    status = None
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.02)
    else:
        status = None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if status is None:
        os.waitpid(child, 0)
        return False
    return os.waitstatus_to_exitcode(status) == 0


if __name__ == "__main__":
    main()
