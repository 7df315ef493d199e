"""PLAN.toml of a compression: what it says, what is wrong with it in one line, and that what is saved is read again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import SprigError
from pipeline.compress.plan import COMMANDS as PLANNED
from pipeline.compress.plan import CompressPlan, WayDown, plan_text, read_compress_plan, read_time
from pipeline.steps.commands import command_options
from pipeline.steps.options import PlanError
from tests.fixtures.paths import ROOT
from tests.pipeline.compress.fakes import COMMANDS

WHOLE = """
model = "org/small"
revision = "abc"
size = "300MB"
data = ["letters.txt"]
time = "1h30m"
threads = 2

[quantize]
types = "Q4_0,Q8_0"

[[candidate]]
name = "whole"

[[candidate]]
name = "ffn"
why = "neurons are cheap"
prune = { ffn = "20%" }
distill = { tokens = "150k", for = "Q4_0" }
"""


def plan(folder: Path, text: str) -> CompressPlan:
    file = folder / "plan.toml"
    file.write_text(text)
    return read_compress_plan(file, COMMANDS)


def test_a_plan_says_budget_data_time_and_candidates(tmp_path: Path) -> None:
    found = plan(tmp_path, WHOLE)
    assert (found.model, found.revision, found.size, found.time, found.threads) == ("org/small", "abc", 300_000_000, 5400, 2)
    assert found.data == (tmp_path / "letters.txt",)
    assert found.quantize == {"types": "Q4_0,Q8_0"}
    assert found.ways == (
        WayDown("whole"),
        WayDown("ffn", {"ffn": "20%"}, {"tokens": "150k", "for": "Q4_0"}, "neurons are cheap"),
    )


def test_what_is_saved_is_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    found = plan(tmp_path, WHOLE.replace("org/small", "m"))
    assert found.model == str(tmp_path / "m")
    text = plan_text(found, ("a note",), tmp_path)
    assert 'data = ["letters.txt"]' in text, "what lies beside the plan travels with it"
    assert 'model = "m"' in text
    assert "# a note" in text
    assert plan(tmp_path, text) == found


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20).filter(str.strip)
ways = st.builds(
    WayDown,
    st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True),
    st.fixed_dictionaries({"ffn": words}, optional={"heads": st.integers(1, 99), "vocab_size": st.integers(1, 9999)}),
    st.none() | st.fixed_dictionaries({}, optional={"tokens": st.integers(1, 10**9)}),
)


@given(model=words, size=st.integers(1, 10**12), way=ways, seconds=st.none() | st.integers(1, 10**6))
def test_any_plan_comes_back(tmp_path_factory: pytest.TempPathFactory, model: str, size: int, way: WayDown, seconds: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    wanted = CompressPlan(f"org/{model}", size=size, ways=(way,), time=seconds, folder=folder, where=str(folder / "plan.toml"))
    assert plan(folder, plan_text(wanted, (), folder)) == wanted


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("size =", "sise =", "there is no key 'sise'; did you mean size?"),
        ("tokens =", "token =", "[[candidate]] 2, distill: there is no key 'token'; did you mean tokens?"),
        ("ffn = ", "fnn = ", "[[candidate]] 2, prune: there is no key 'fnn'; did you mean ffn?"),
        ('types = "Q4_0,Q8_0"', 'token = "hf_x"', "[quantize]: there is no key 'token'"),
        ('ffn = "20%"', "sparsity = 0.5", "sparsity is never part of a plan"),
        ('tokens = "150k"', 'time = "2h"', "there is no key 'time'"),
        ('size = "300MB"', 'size = "large"', "size 'large' is no size; '300MB' and '1.5GB' are"),
        ('size = "300MB"', "bpw = nan", "bpw is a number above 0 and at most 32, not nan"),
        ('size = "300MB"', "", "it needs a budget: size, bpw or device"),
        ('size = "300MB"', 'size = "1GB"\nbpw = 4', "size and bpw are two budgets; give one"),
        ('time = "1h30m"', 'time = "soon"', "'soon' is no time; 2h, 90min and 1h30m are"),
        ("threads = 2", "threads = 0", "threads is a whole number of at least 1, not 0"),
        ('model = "org/small"', "", "it needs a model, as a text"),
        ('data = ["letters.txt"]', 'data = "letters.txt"', "data is a list of files"),
        ('name = "ffn"', 'name = "whole"', "two candidates are called whole"),
        ('name = "ffn"', 'name = "../x"', "is no short word"),
        ('prune = { ffn = "20%" }', "prune = {}", "prune says nothing to cut"),
        ('ffn = "20%"', "ffn = [1]", "ffn is a text or a number, not [1]"),
        ("[[candidate]]", "[candidate]", "is no TOML"),
        ('model = "org/small"', "model =", "is no TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(PlanError) as e:
        plan(tmp_path, WHOLE.replace(old, new))
    assert said in str(e.value)
    assert "plan.toml" in str(e.value)
    assert "\n" not in str(e.value)


def test_only_the_whole_model_cuts_nothing(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="rest cuts nothing and learns nothing; only whole is so"):
        plan(tmp_path, 'model = "m"\nbpw = 4\n[[candidate]]\nname = "rest"\n')


@pytest.mark.parametrize(("text", "seconds"), [("2h", 7200), ("90min", 5400), ("1h30m", 5400), ("45s", 45), ("1.5 h", 5400)])
def test_a_time(text: str, seconds: float) -> None:
    assert read_time(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "2 days"])
def test_no_time(text: str) -> None:
    with pytest.raises(SprigError, match="is no time"):
        read_time(text)


def test_a_plan_needs_one_budget() -> None:
    some: dict[str, Any] = {"size": 1, "device": "pi5"}
    with pytest.raises(PlanError, match="size and device are two budgets"):
        CompressPlan("m", **some)
    assert replace(CompressPlan("m", size=1), bpw=None).size == 1


def test_the_example_is_a_plan() -> None:
    commands = {name: command_options(name) for name in PLANNED}
    found = read_compress_plan(ROOT / "examples" / "compress-plan.toml", commands)
    assert found.size == 80_000_000
    assert [way.name for way in found.ways or ()] == ["whole", "ffn", "ffn-taught"]
