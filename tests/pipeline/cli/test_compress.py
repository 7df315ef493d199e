"""`sprig compress` on the command line: what is refused, what a dry run says, a plan that is saved and read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.command import one_line, only_json, sprig
from tests.fixtures.random_llama import LlamaShape, write_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_checkpoint(folder, LlamaShape(256, 512, 2, 4, 2, 320))
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m"], "give one of --size, --bpw and --device"),
        (["m", "--size", "1MB", "--bpw", "4"], "give one of --size, --bpw"),
        (["plan.toml", "--size", "1MB"], "--size stands in the plan"),
    ],
)
def test_usage(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = sprig("compress", *arguments, home=tmp_path)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m", "--size", "large"], "--size: 'large' is no size such as 300MB or 1.5GB"),
        (["m", "--bpw", "99"], "--bpw: 99 bits for each weight cannot be"),
        (["m", "--size", "1MB", "--time", "soon"], "'soon' is no time; 2h, 90min and 1h30m are"),
        (["gone.toml"], "cannot read the plan gone.toml: No such file"),
    ],
)
def test_what_makes_no_sense(tmp_path: Path, arguments: list[str], said: str) -> None:
    assert said in one_line(sprig("compress", *arguments, home=tmp_path))


def test_a_dry_run_says_the_plan_and_writes_nothing(model: Path, tmp_path: Path) -> None:
    told = only_json(sprig("compress", model, "--size", "790kB", "-o", tmp_path / "x.gguf", "--dry-run", "--json", home=tmp_path))
    assert [one["name"] for one in told["candidates"]] == ["whole", "ffn"]
    assert told["stages"][0]["name"] == "reference"
    assert told["work"] == str(tmp_path / "x.compress")
    assert not list(tmp_path.iterdir())


def test_a_plan_is_saved_and_read_again(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    first = sprig(
        "compress", model, "--bpw", "4.7", "--threads", "1", "-o", tmp_path / "x.gguf", "--save-plan", file, home=tmp_path
    )
    assert first.returncode == 0, first.stderr
    assert first.stderr == f"plan: {file}\n"
    again = sprig("compress", file, "-o", tmp_path / "x.gguf", "--dry-run", home=tmp_path)
    stages = [line for line in first.stdout.splitlines() if line.startswith(("whole.", "ffn."))]
    assert stages
    assert [line for line in again.stdout.splitlines() if line.startswith(("whole.", "ffn."))] == stages
    file.write_text(file.read_text().replace("prune", "prnue"))
    assert "[[candidate]] 2: there is no key 'prnue'; did you mean prune?" in one_line(sprig("compress", file, home=tmp_path))


def test_a_budget_below_the_smallest(model: Path, tmp_path: Path) -> None:
    said = one_line(sprig("compress", model, "--size", "1kB", home=tmp_path))
    assert "cannot be 1,000 bytes (1 kB): the smallest of these candidates has " in said
