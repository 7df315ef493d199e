"""A model with LoRA adapters: it says what the merged model says, and nothing of the plain one is taken for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from agent import Agent
from agent.engine.handle import Engine
from agent.errors import SprigError
from agent.models.adapter import Lora, read_adapters, with_adapters
from agent.models.file import read_model
from agent.models.memory import need
from agent.sessions.store import Store
from tests.agent.engine.test_engine import PROMPT, answer
from tests.fixtures.adapters import gguf_adapter, gguf_products
from tests.fixtures.chat_ggufs import chat_keys
from tests.fixtures.tiny import llama_weights, write

pytestmark = pytest.mark.usefixtures("home")

CHANGED = ("blk.0.attn_q.weight", "blk.0.attn_v.weight", "blk.0.ffn_down.weight")
KEYS = chat_keys("hermes")
VOCABULARY = len(KEYS["tokenizer.ggml.tokens"])
WEIGHTS = llama_weights(VOCABULARY)
MATRICES = gguf_products(WEIGHTS, CHANGED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an adapter for it, and the same model with the adapter merged by hand, fully and by half."""
    folder = tmp_path_factory.mktemp("lora")
    write(folder / "plain.gguf", KEYS, WEIGHTS)
    gguf_adapter(folder / "adapter.gguf", MATRICES)
    for name, scale in (("merged", 8 / 4), ("half", 0.5 * 8 / 4)):
        merged = {n: WEIGHTS[n] + np.float32(scale) * MATRICES[f"{n}.lora_b"] @ MATRICES[f"{n}.lora_a"] for n in CHANGED}
        write(folder / f"{name}.gguf", KEYS, {**WEIGHTS, **merged})
    return folder


def said(model: Path, *lora: Lora, prefix: int = 0) -> tuple[list[int], str]:
    """What a model says greedily, and where its cache came from."""
    with Engine(model, context=512, threads=1, batch=64, repack=False, lora=lora) as engine:
        ids, end = answer(engine, "a", PROMPT, count=24, prefix=prefix)
    return ids, str(end.timing["cache_source"])


@pytest.mark.slow
def test_an_adapter_says_what_the_merged_model_says(folder: Path) -> None:
    plain, adapter = folder / "plain.gguf", folder / "adapter.gguf"
    whole = said(plain, adapter)
    assert whole == said(folder / "merged.gguf")
    assert whole != said(plain)
    assert said(plain, (adapter, 0.5)) == said(plain, f"{adapter}=0.5") == said(folder / "half.gguf")
    assert said(plain, (adapter, 0.0)) == said(plain)


@pytest.mark.slow
def test_a_kept_state_of_another_adapter_is_not_taken(folder: Path) -> None:
    plain, adapter, prefix = folder / "plain.gguf", folder / "adapter.gguf", 64
    assert said(plain, prefix=prefix)[1] != "disk"
    assert said(plain, prefix=prefix)[1] == "disk"
    with_it = said(plain, adapter, prefix=prefix)
    assert with_it[1] != "disk"
    assert said(plain, (adapter, 0.5), prefix=prefix)[1] != "disk"
    assert said(plain, adapter, prefix=prefix) == (with_it[0], "disk")


def test_a_model_with_an_adapter_is_another_model_and_larger(folder: Path) -> None:
    plain = read_model(folder / "plain.gguf")
    loaded, doubled = (with_adapters(plain, read_adapters([(folder / "adapter.gguf", scale)], plain)) for scale in (1, 2))
    assert len({plain.identity, loaded.identity, doubled.identity}) == 3
    bytes_of = sum(m.nbytes for m in MATRICES.values())
    asked: dict[str, Any] = {"context": 512, "sequences": 1, "batch": 64, "cache": "f16"}
    assert need(loaded, **asked).total - need(plain, **asked).total == bytes_of
    assert with_adapters(plain, ()) is plain


@pytest.mark.slow
def test_an_agent_with_an_adapter_does_not_take_up_the_tokens_of_the_plain_model(folder: Path, home: Path) -> None:
    options: dict[str, Any] = {"engine": {"context": 1024, "threads": 1}, "sampling": {"temperature": 0}}
    with Store() as store:
        session = store.create()
        with Agent(folder / "plain.gguf", session=session, **options) as agent:
            agent.run("hello")
        with Agent(folder / "plain.gguf", session=session, lora=[folder / "adapter.gguf"], **options) as agent:
            agent.run("and now")
        first, second = (m.fingerprint for m in session.messages() if m.message.role == "assistant")
    assert first != second


def test_an_adapter_is_found_by_its_name(folder: Path, home: Path) -> None:
    (home / "adapters").mkdir(parents=True)
    (home / "adapters" / "pirate.gguf").write_bytes((folder / "adapter.gguf").read_bytes())
    for name, scale in (("pirate", 1), ("pirate.gguf", 1), ("pirate=0.25", 0.25), (("pirate", 2), 2)):
        (found,) = read_adapters([name], read_model(folder / "plain.gguf"))
        assert (found.path, found.scale) == (str(home / "adapters" / "pirate.gguf"), scale)


def zeros(*shape: int) -> npt.NDArray[np.float32]:
    return np.zeros(shape, np.float32)


def pair(a: npt.NDArray[Any], b: npt.NDArray[Any], name: str = CHANGED[0]) -> dict[str, Any]:
    return {f"{name}.lora_a": a, f"{name}.lora_b": b}


WRONG_KEYS: dict[str, tuple[str, dict[str, Any]]] = {
    "of another kind": ("of the type 'control'", {"adapter__type": "control"}),
    "alpha is an integer": (r"adapter\.lora\.alpha", {"adapter__lora__alpha": 8}),
    "alpha is no number": (r"adapter\.lora\.alpha", {"adapter__lora__alpha": float("nan")}),
    "without an architecture": ("for which architecture", {"general__architecture": None}),
    "for another architecture": ("adapter for qwen3", {"general__architecture": "qwen3"}),
    "awake at certain tokens": ("aLoRA", {"adapter__alora__invocation_tokens": [1, 2]}),
}
WRONG_TENSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("has no tensor", {}),
    "one half": ("no other half", {f"{CHANGED[0]}.lora_a": zeros(4, 32)}),
    "a whole tensor": ("no other half", {CHANGED[0]: zeros(32, 32)}),
    "of a tensor that is not there": ("does not have", pair(zeros(4, 32), zeros(32, 4), "blk.1.attn_q.weight")),
    "of another width": ("do not fit", pair(zeros(4, 64), zeros(32, 4))),
    "of two ranks": ("do not fit", pair(zeros(4, 32), zeros(32, 8))),
    "of three dimensions": ("do not fit", pair(zeros(2, 4, 32), zeros(2, 32, 4))),
    "of a norm": ("do not fit", pair(zeros(1, 32), zeros(1, 1), "output_norm.weight")),
    "of an embedding that is the head": ("output of", pair(zeros(VOCABULARY, 4), zeros(32, 4), "token_embd.weight")),
    "NaN": ("NaN", pair(zeros(4, 32) + np.float32("nan"), zeros(32, 4))),
}


def refusal(path: Lora, folder: Path) -> str:
    with pytest.raises(SprigError) as caught:
        read_adapters([path], read_model(folder / "plain.gguf"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("what", WRONG_KEYS)
def test_keys_that_llama_cpp_would_abort_over_are_refused_before(what: str, folder: Path, tmp_path: Path) -> None:
    expected, changes = WRONG_KEYS[what]
    assert re.search(expected, refusal(gguf_adapter(tmp_path / "x.gguf", MATRICES, **changes), folder))


@pytest.mark.parametrize("what", WRONG_TENSORS)
def test_matrices_that_do_not_belong_to_the_model_are_refused_before(what: str, folder: Path, tmp_path: Path) -> None:
    expected, tensors = WRONG_TENSORS[what]
    assert expected in refusal(gguf_adapter(tmp_path / "x.gguf", tensors), folder)


def test_a_file_that_is_no_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "there is no GGUF adapter" in refusal(tmp_path / "none.gguf", folder)
    for odd in ("~nosuchuser/none", "x" * 5000, "none\0"):
        assert "there is no GGUF adapter" in refusal(odd, folder)
    (tmp_path / "peft").mkdir()
    for named in (str(tmp_path / "peft"), "org/pirate"):
        assert f"`sprig quantize {named} --lora` makes one" in refusal(named, folder)
    assert "of the type 'model'" in refusal(folder / "plain.gguf", folder)
    raw, bad = (folder / "adapter.gguf").read_bytes(), tmp_path / "bad.gguf"
    bad.write_bytes(raw[:-1000])
    assert "not a sound GGUF file" in refusal(bad, folder)
    at = raw.index(b"lora_a") + 6 + 4 + 16  # behind name, number of dimensions and two of these: the type
    bad.write_bytes(raw[:at] + (26).to_bytes(4, "little") + raw[at + 4 :])  # I32
    assert "none of LoRA" in refusal(bad, folder)


def test_a_scale_that_is_no_number_is_refused(folder: Path) -> None:
    adapter = folder / "adapter.gguf"
    assert "'much' behind the adapter" in refusal(f"{adapter}=much", folder)
    for scale in (1e9, float("nan"), True):
        assert "must be a number from -100 to 100" in refusal((adapter, scale), folder)
    assert "must be a number from -100 to 100" in refusal(f"{adapter}=inf", folder)


@pytest.mark.slow
def test_an_adapter_named_twice_or_given_to_an_engine_that_is_loaded_is_refused(folder: Path) -> None:
    plain, adapter = folder / "plain.gguf", folder / "adapter.gguf"
    with pytest.raises(SprigError, match="named twice"):
        read_adapters([adapter, (adapter, 0.5)], read_model(plain))
    with pytest.raises(SprigError, match="lora is a list"):
        Engine(plain, lora=str(adapter))
    with Engine(plain, context=512, threads=1) as engine, pytest.raises(SprigError, match="loaded already"):
        Agent(engine, lora=[adapter])
