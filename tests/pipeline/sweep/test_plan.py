"""PLAN.toml: what it makes of models and recipes, and what it says about what it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.steps.options import CommandOption, PlanError
from pipeline.sweep.plan import SweepPlan, _Reader, read_plan

QUANTIZE = {
    "recipe": CommandOption("--recipe", "value"),
    "size": CommandOption("--size", "value"),
    "bpw": CommandOption("--bpw", "value"),
    "encoder": CommandOption("--encoder", "value"),
    "types": CommandOption("--types", "value"),
    "statistics": CommandOption("--statistics", "value", path=True),
    "tune_minutes": CommandOption("--tune-minutes", "value"),
    "revision": CommandOption("--revision", "value"),
    "imatrix": CommandOption("--imatrix", "value", path=True),
    "tensor_type": CommandOption("--tensor-type", "values"),
    "pure": CommandOption("--pure", "nothing"),
    "threads": CommandOption("--threads", "value"),
    "out": CommandOption("--out", "value"),
    "token": CommandOption("--token", "value"),
}
EVALUATE = {
    "windows": CommandOption("--windows", "value"),
    "text": CommandOption("--text", "values", path=True),
    "tasks": CommandOption("--tasks", "values", path=True),
    "report": CommandOption("--report", "value", path=True),
}
GRID = """
recipes = ["Q4_0", "Q4_K_M"]
sizes = ["90MB"]
bpw = [4.5]
encoders = ["ggml", "gptq"]

[[model]]
model = "org/small@main"
revision = "abc"

[[model]]
model = "org/other"
name = "b"
"""


def plan(tmp_path: Path, text: str) -> SweepPlan:
    file = tmp_path / "plan.toml"
    file.write_text(text)
    return read_plan(file, QUANTIZE, EVALUATE)


def complaint(tmp_path: Path, text: str) -> str:
    with pytest.raises(PlanError) as e:
        plan(tmp_path, text)
    assert "\n" not in str(e.value)
    assert "plan.toml" in str(e.value)
    return str(e.value)


def test_a_grid_is_every_model_in_every_way_with_every_encoder(tmp_path: Path) -> None:
    files = plan(tmp_path, GRID).files
    assert len(files) == 2 * (2 + 1 + 1) * 2
    names = [file.name for file in files]
    assert names[:4] == ["small-Q4_0-ggml", "small-Q4_0-gptq", "small-Q4_K_M-ggml", "small-Q4_K_M-gptq"]
    assert names[-1] == "b-4.5bpw-gptq"
    first = files[0]
    assert first.quantize == ("org/small@main", "--encoder=ggml", "--recipe=Q4_0", "--revision=abc")
    assert first.choices == {"recipe": "Q4_0", "encoder": "ggml"}
    assert first.reference == ("org/small@main", "--recipe=F32", "--revision=abc")


def test_a_run_says_all_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    text = """
[quantize]
threads = 2
[[model]]
model = "here"
imatrix = "here/i.gguf"
[[run]]
model = "here"
name = "by hand"
recipe = "Q4_0"
tensor-type = ["ffn_down=Q6_K", "attn_v=Q5_0"]
pure = false
[[run]]
model = "org/else"
recipe = "Q8_0"
pure = true
reference = "BF16"
"""
    one, two = plan(tmp_path, text).files
    here = str(tmp_path / "here")
    assert one.name == "by-hand"
    assert one.quantize == (
        *(here, f"--imatrix={here}/i.gguf", "--recipe=Q4_0"),
        *("--tensor-type=ffn_down=Q6_K", "--tensor-type=attn_v=Q5_0", "--threads=2"),
    )
    assert one.reference == (here, "--recipe=F32", "--threads=2")
    assert two.name == "else-Q8_0"
    assert two.quantize == ("org/else", "--pure", "--recipe=Q8_0", "--threads=2")
    assert two.reference == ("org/else", "--recipe=BF16", "--threads=2")


def test_a_reference_may_be_there_already(tmp_path: Path) -> None:
    (tmp_path / "big.gguf").write_bytes(b"")
    text = '[[run]]\nmodel = "{}"\nrecipe = "Q4_0"\n[evaluate]\n{}windows = 8\ntext = ["a.txt"]'
    own = plan(tmp_path, text.format("big.gguf", ""))
    assert own.files[0].reference == own.files[0].quantize[0] == str(tmp_path / "big.gguf")
    assert own.evaluate == (f"--text={tmp_path}/a.txt", "--windows=8")
    assert plan(tmp_path, text.format("org/m", 'reference = "big.gguf"\n')).files[0].reference == str(tmp_path / "big.gguf")
    assert plan(tmp_path, text.format("org/m", 'reference = "org/n"\n')).files[0].reference == "org/n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipe = ['Q4_0']", "there is no key 'recipe'; did you mean recipes?"),
        ("[[model]]\nmodel = 'a'\nrevison = 'x'", "[[model]] 1: there is no key 'revison'; did you mean revision?"),
        ("[[model]]\nmodel = 'a'\nrecipe = 'Q4_0'", "[[model]] 1: there is no key 'recipe'"),
        ("[[run]]\nmodel = 'a'\ntensor-typ = 'x'", "[[run]] 1: there is no key 'tensor-typ'; did you mean tensor_type?"),
        ("[quantize]\ntoken = 'hf_x'", "[quantize]: there is no key 'token'"),
        ("[evaluate]\nwindow = 3", "[evaluate]: there is no key 'window'; did you mean windows?"),
        ("[[run]]\nname = 'a'", "[[run]] 1 needs a model, as a text"),
        ("[[run]]\nmodel = 3", "[[run]] 1 needs a model, as a text"),
        ("[run]\nmodel = 'a'", "run is written [[run]], for there may be several"),
        ("run = [3]", "[[run]] 1 is no table"),
        ("recipes = 'Q4_0'", "recipes is a list, like recipes = [...], of texts or numbers"),
        ("[[run]]\nmodel = 'a'\npure = 1", "[[run]] 1: pure is true or false, not 1"),
        ("[[run]]\nmodel = 'a'\nrecipe = ['Q4_0']", "[[run]] 1: recipe is a text or a number, not ['Q4_0']"),
        ("", "nothing is to be made"),
        ("[[model]]\nmodel = 'a'", "the models need recipes, sizes or bpw, or a [[run]]"),
        (
            "recipes = ['Q4_0']\n[[model]]\nmodel = 'a/x'\n[[model]]\nmodel = 'b/x'",
            "two models are called x; give one of them a name",
        ),
        ("[[run]]\nmodel = 'a/x'\n[[run]]\nmodel = 'b/X'", "two runs are called X; give one of them, or its model, a name"),
        ("recipes = [", "is no TOML: "),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in complaint(tmp_path, text)


def test_what_is_said_of_all_files_is_passed_on_to_those_that_it_concerns(tmp_path: Path) -> None:
    text = """
recipes = ["Q4_0"]
sizes = ["90MB"]
encoders = ["ggml", "gptq", "tune"]
[quantize]
types = "Q4_0,Q5_0"
pure = true
tune-minutes = 2
[[model]]
model = "org/m"
imatrix = "i.gguf"
statistics = "s"
[[run]]
model = "m"
recipe = "Q8_0"
encoder = "ggml"
statistics = "t"
[[run]]
model = "m"
recipe = "Q8_0"
"""
    files = {file.name: {one.partition("=")[0] for one in file.quantize[1:]} for file in plan(tmp_path, text).files}
    recipe, size = {"--encoder", "--recipe", "--pure"}, {"--encoder", "--size", "--types"}
    assert files == {
        "m-Q4_0-ggml": recipe | {"--imatrix"},
        "m-Q4_0-gptq": recipe | {"--statistics"},
        "m-Q4_0-tune": recipe | {"--statistics", "--tune-minutes"},
        "m-90MB-ggml": size | {"--imatrix"},
        "m-90MB-gptq": size | {"--statistics"},
        "m-90MB-tune": size | {"--statistics", "--tune-minutes"},
        "m-Q8_0": {"--recipe", "--pure", "--statistics"},
        "m-Q8_0-ggml": recipe | {"--imatrix", "--statistics"},  # said of this very file: the command will refuse it
    }
    usual = plan(tmp_path, "sizes = ['90MB']\n[quantize]\nrecipe = 'Q4_0'\n[[model]]\nmodel = 'm'\n[[run]]\nmodel = 'm'").files
    assert [file.quantize for file in usual] == [("m", "--size=90MB"), ("m", "--recipe=Q4_0")]


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"cannot read the plan .*nowhere\.toml: No such file"):
        read_plan(tmp_path / "nowhere.toml", QUANTIZE, EVALUATE)


KEYS = st.sampled_from(
    [*QUANTIZE, *EVALUATE, "model", "name", "reference", "run", "recipes", "sizes", "quantize", "evaluate", "x"]
)
LEAVES = st.one_of(
    st.text(max_size=8), st.integers(), st.floats(allow_nan=False), st.booleans(), st.sampled_from(["a/b", "Q4_0"])
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8)


@pytest.mark.generated
@settings(deadline=None)
@given(data=st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_content_is_a_plan_or_one_clear_line(data: dict[str, Any]) -> None:
    try:
        found = _Reader(Path("/nowhere/plan.toml"), QUANTIZE, EVALUATE).read(data)
    except PlanError as e:
        said = str(e)
    else:
        said = ""
        assert found.files
        assert all(file.name and "/" not in file.name for file in found.files)
    assert "\n" not in said
