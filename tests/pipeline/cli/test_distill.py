"""`sprig distill` on the command line: what it says while it learns, what a script gets, what is no option."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline.distill import curves
from tests.fixtures.command import Done, one_line, only_json, sprig
from tests.fixtures.later import needs
from tests.fixtures.learners import models

needs("torch", "transformers")


def run(tmp_path: Path, *more: str | Path, student: str = "small") -> Done:
    folder = models()
    few = ("--width", "16", "--batch", "4", "--threads", "1", "--no-bf16", "--rate", "0.01")
    data = ("--data", folder / "text.txt")
    return sprig("distill", folder / "teacher", folder / student, "-o", tmp_path / "out", *data, *few, *more, home=tmp_path)


@pytest.fixture(autouse=True)
def _no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "draw", lambda folder: folder)


@pytest.mark.slow
def test_a_script_gets_one_object_and_a_person_sees_how_far_it_is(tmp_path: Path) -> None:
    done = run(tmp_path, "--tokens", "0.3k", "--json")
    assert done.returncode == 0, done.stderr
    found = only_json(done)
    assert found["path"] == str(tmp_path / "out")
    assert found["after"] < found["before"]
    assert found["tokens"] >= 300
    assert "step 0: evaluation loss " in done.stderr
    assert re.search(r"^learn     done in [\d.]+ s, step \d+, loss [\d.]+, [\d,]+ tokens, \d+/s$", done.stderr, re.MULTILINE)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["hidden_size"] == 24
    assert "exists already" in one_line(run(tmp_path))


def test_a_wrong_option_is_said_in_one_line(tmp_path: Path) -> None:
    assert "'soon' is no time; 2h, 90min and 1h30m are" in run(tmp_path, "--time", "soon").stderr
    assert "'few' is no number of tokens; 150000, 150k and 2M are" in run(tmp_path, "--tokens", "few").stderr
    for wrong, says in (
        (("--divergence", "up"), "there is no divergence 'up'"), (("--temperature", "0"), "temperature must be from 0.001"),
        (("--for", "Q9"), "'Q9' is not a recipe"), (("--tokens", "9", "--time", "9m"), "tokens and time both end"),
    ):  # fmt: skip
        done = run(tmp_path, *wrong)
        assert done.returncode == 2
        assert says in done.stderr
    assert "different vocabularies" in one_line(run(tmp_path, student="stranger"))
    assert not (tmp_path / "out").exists()
