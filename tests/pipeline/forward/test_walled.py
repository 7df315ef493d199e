"""The pipeline's children that read a stranger's file reach that file, what they are given to write, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.children import process as confined
from agent.errors import GGUFError
from pipeline.forward.process import ForwardProcess
from tests.fixtures.paths import ROOT
from tests.fixtures.tiny import llama
from tests.fixtures.trespass import held

pytestmark = pytest.mark.usefixtures("started")
HELD = confined.report()
landlocked = pytest.mark.skipif("landlock+seccomp" not in HELD, reason=f"the kernel confines with {HELD} only")
_IDS = [1, 5, 9, 7, 5, 9, 7, 8]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    return llama(tmp_path / "m" / "tiny.gguf")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "s" / "secret"
    path.parent.mkdir()
    path.write_text("mine")
    return path


@landlocked
def test_a_child_reaches_its_model_what_it_is_given_and_nothing_else(model: Path, secret: Path, tmp_path: Path) -> None:
    folder, given = tmp_path / "w", tmp_path / "given"
    folder.mkdir()
    given.write_text("given")
    before = model.read_bytes()
    with ForwardProcess(
        model, "tests.pipeline.forward.trespasser", n_ctx=16, n_outputs=8, reads=[given], writes=[folder]
    ) as process:
        assert process.ask("trespass", model=str(model), folder=str(folder), secret=str(secret))["through"] == []
        process.ask("use", read=str(given), written=str(folder / "written"))
        assert process.logits(_IDS).shape == (8, process.n_vocab)
    assert (model.read_bytes(), secret.read_text(), sorted(p.name for p in tmp_path.rglob("*") if p.is_file())) == (
        before, "mine", ["given", "secret", "tiny.gguf", "written"],
    )  # fmt: skip
    assert [p.name for p in folder.iterdir()] == ["written"]


CHILDREN = {  # module, what is asked of it so that its libraries have started their threads
    "pipeline.forward.child": [("tokenize", {"text": "a blue bee", "special": False})],
    "pipeline.evaluate.child": [("lengths", {"ids": [5, 9]})],
    "pipeline.evaluate.tasks.child": [("likelihood", {"ids": _IDS, "first": 4})],
    "pipeline.calibrate.child": [("scout", {"ids": _IDS})],
    "pipeline.prune.parts.influence_child": [("read", {"ids": _IDS})],
    "pipeline.distill.data.tokens_child": [("ids", {"sequences": [[[[["a", False]], True]]]})],
}


@pytest.mark.skipif("seccomp" not in HELD, reason=f"the kernel confines with {HELD} only")
@pytest.mark.parametrize("module", CHILDREN)
def test_every_thread_of_every_child_is_held(model: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds a process holds the threads that began later, and NumPy's begin with its import."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    with ForwardProcess(model, module, n_ctx=16, threads=2, layers=1) as process:
        for op, message in CHILDREN[module]:
            process.ask(op, **message)
        threads = held(process._child.pid)
    assert len(threads) > 1
    assert {(thread["Seccomp"], thread["NoNewPrivs"]) for thread in threads} == {("2", "1")}


@pytest.mark.slow
@landlocked
def test_a_calibration_writes_its_sums_where_they_belong_only(model: Path, tmp_path: Path) -> None:
    sums, elsewhere = tmp_path / "hessians", tmp_path / "elsewhere.npz"
    sums.mkdir()
    with ForwardProcess(model, "pipeline.calibrate.child", n_ctx=16, threads=1, writes=[sums]) as process:
        inputs = process.ask("scout", ids=_IDS)["inputs"][:1]
        products = inputs[0]["weights"][:1]
        for place in (sums / "0.npz", elsewhere):
            process.ask("begin", inputs=inputs, products=products, files=[str(place)])
            process.ask("window", ids=_IDS, number=0)
            if place is elsewhere:
                with pytest.raises(GGUFError, match=r"cannot write .*elsewhere"):
                    process.ask("keep")
            else:
                process.ask("keep")
    assert [p.name for p in sums.iterdir()] == ["0.npz"]
    assert not elsewhere.exists()


@landlocked
def test_a_tokenizer_that_is_tried_reaches_nothing(secret: Path, model: Path, tmp_path: Path) -> None:
    code = f"""
from pipeline.vocab import trial
from tests.fixtures.trespass import went_through
def hostile(kind, raw): raise ValueError(f"through: {{went_through({str(model)!r}, {str(tmp_path)!r}, {str(secret)!r})}}")
trial._use = hostile
trial.main()
"""
    done = subprocess.run([sys.executable, "-c", code, "json"], input=b"", capture_output=True, cwd=ROOT, check=True)
    assert done.stdout == b"through: []"


def test_where_the_kernel_has_no_walls_the_child_computes_all_the_same(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on an emulated machine, where neither call is passed on."""
    no_walls = "sandbox.landlock = lambda rules: False; seccomp.install = lambda strict: False"
    (tmp_path / "sitecustomize.py").write_text(f"from agent.children import sandbox, seccomp\n{no_walls}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    with ForwardProcess(model, n_ctx=16, n_outputs=8, threads=1) as process:
        assert process.logits(_IDS).shape == (8, process.n_vocab)
        assert {thread.get("Seccomp") for thread in held(process._child.pid)} == {held(os.getpid())[0].get("Seccomp")}
