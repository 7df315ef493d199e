"""An adapter in its base: every row is what the formula of its kind says, and what does not belong together is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from agent.errors import SprigError
from pipeline.sources.adapter import LoraConfig, read_lora_config
from pipeline.sources.base_model import open_model
from pipeline.sources.checkpoint import Checkpoint
from pipeline.sources.merged import floats
from pipeline.sources.source import headers, open_checkpoint
from tests.fixtures.adapters import PREFIX, Floats, products, random_matrix, write_adapter
from tests.fixtures.random_llama import SMALL, write_checkpoint

MLP, ATTENTION = "model.layers.1.mlp.down_proj", "model.layers.0.self_attn.q_proj"
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hf") / "base", SMALL, shards=2)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hf") / "tied", replace(SMALL, tied=True))


def opened(base: Path, folder: Path, tensors: Mapping[str, Any], **config: Any) -> tuple[Checkpoint, Checkpoint]:
    """The merged checkpoint and the plain one."""
    adapter = write_adapter(folder / "adapter", tensors, **config)
    source = open_model(str(adapter), base=str(base))
    merged = open_checkpoint(source)
    assert headers(source) == merged.tensors
    return merged, open_checkpoint(replace(source, adapter=None))


def a_and_b(tensors: Mapping[str, Floats], module: str) -> tuple[Floats, Floats]:
    return tensors[f"{PREFIX}{module}.lora_A.weight"], tensors[f"{PREFIX}{module}.lora_B.weight"]


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 8 / 4),
        ({"lora_alpha": 3}, 3 / 4),
        ({"use_rslora": True}, 8 / 2),
        ({"alpha_pattern": {"q_proj": 1, "down_proj": 40}}, 40 / 4),
        ({"alpha_pattern": {r"^model\.layers\.1\.mlp\.down_proj": 40, "down_proj": 1}, "use_rslora": True}, 40 / 2),
        ({"alpha_pattern": {"proj": 40, "layers.0.mlp.down_proj": 1}}, 8 / 4),
    ],
)
def test_what_is_added_is_the_product_times_the_scale(config: dict[str, Any], scale: float, base: Path, tmp_path: Path) -> None:
    tensors = products(base, [MLP, ATTENTION])
    merged, plain = opened(base, tmp_path, tensors, **config)
    a, b = a_and_b(tensors, MLP)
    want = floats(plain, f"{MLP}.weight") + np.float32(scale) * (b @ a)
    assert merged.tensors[f"{MLP}.weight"].dtype == "F32"
    np.testing.assert_allclose(floats(merged, f"{MLP}.weight"), want, rtol=1e-5, atol=1e-6)
    for start, stop in ((0, 1), (7, 64), (255, 256)):
        np.testing.assert_allclose(floats(merged, f"{MLP}.weight", start, stop), want[start:stop], rtol=1e-5, atol=1e-6)
    untouched = "model.layers.2.mlp.down_proj.weight"
    assert merged.tensors[untouched] == plain.tensors[untouched]
    assert np.array_equal(merged.rows(untouched, 3, 9), plain.rows(untouched, 3, 9))


def test_ranks_may_differ_and_names_may_carry_what_a_program_left_there(base: Path, tmp_path: Path) -> None:
    tensors = products(base, [MLP], rank=2) | products(base, [ATTENTION], rank=8)
    renamed = {
        name.replace("model.layers.1", "_orig_mod.layers.1").replace("lora_A.weight", "lora_A.default.weight"): array
        for name, array in tensors.items()
    }
    merged, plain = opened(base, tmp_path, renamed)
    for module, rank in ((MLP, 2), (ATTENTION, 8)):
        a, b = a_and_b(tensors, module)
        want = floats(plain, f"{module}.weight") + np.float32(8 / rank) * (b @ a)
        np.testing.assert_allclose(floats(merged, f"{module}.weight"), want, rtol=1e-5, atol=1e-6)


def test_dora_brings_each_row_to_its_trained_length(base: Path, tmp_path: Path) -> None:
    tensors, length = products(base, [MLP]), np.linspace(0.5, 2, SMALL.width).astype(np.float32)
    merged, plain = opened(base, tmp_path, {**tensors, f"{PREFIX}{MLP}.lora_magnitude_vector": length}, use_dora=True)
    a, b = a_and_b(tensors, MLP)
    direction = floats(plain, f"{MLP}.weight") + np.float32(2) * (b @ a)
    want = length[:, None] * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    np.testing.assert_allclose(floats(merged, f"{MLP}.weight", 100, 140), want[100:140], rtol=1e-4, atol=1e-6)


def test_an_embedding_and_a_weight_that_lie_transposed(base: Path, tmp_path: Path) -> None:
    a, b = random_matrix((4, SMALL.vocab), 1), random_matrix((SMALL.width, 4), 2)
    q = random_matrix((4, SMALL.width), 3), random_matrix((SMALL.width, 4), 4)
    tensors = {
        f"{PREFIX}{EMBEDDING}.lora_embedding_A": a, f"{PREFIX}{EMBEDDING}.lora_embedding_B": b,
        f"{PREFIX}{ATTENTION}.lora_A.weight": q[0], f"{PREFIX}{ATTENTION}.lora_B.weight": q[1],
    }  # fmt: skip
    merged, plain = opened(base, tmp_path, tensors, fan_in_fan_out=True)
    for name, product in ((EMBEDDING, (b @ a).T), (ATTENTION, (q[1] @ q[0]).T)):
        want = floats(plain, f"{name}.weight") + np.float32(2) * product
        np.testing.assert_allclose(floats(merged, f"{name}.weight", 10, 90), want[10:90], rtol=1e-5, atol=1e-6)


def test_whole_tensors_and_single_rows_take_the_place_of_the_bases(base: Path, tmp_path: Path) -> None:
    norm, rows = random_matrix((SMALL.width,), 1), random_matrix((2, SMALL.width), 2)
    tensors = {
        f"{PREFIX}model.norm.modules_to_save.default.weight": norm,
        f"{PREFIX}{EMBEDDING}.token_adapter.trainable_tokens_delta": rows,
    }
    merged, plain = opened(base, tmp_path, tensors, trainable_token_indices={"embed_tokens": [300, 7]})
    assert np.array_equal(floats(merged, "model.norm.weight")[0], norm)
    want = floats(plain, f"{EMBEDDING}.weight").copy()
    want[[300, 7]] = rows
    assert np.array_equal(floats(merged, f"{EMBEDDING}.weight"), want)
    assert np.array_equal(floats(merged, f"{EMBEDDING}.weight", 7, 8), rows[1:])


def test_a_table_that_has_grown_stands_in_the_bases_place_also_below_a_product(base: Path, tmp_path: Path) -> None:
    grown = random_matrix((SMALL.vocab + 5, SMALL.width), 1)
    a, b = random_matrix((4, SMALL.vocab + 5), 2), random_matrix((SMALL.width, 4), 3)
    tensors = {
        f"{PREFIX}{EMBEDDING}.base_layer.weight": grown, f"{PREFIX}{HEAD}.weight": grown * 2,
        f"{PREFIX}{EMBEDDING}.lora_embedding_A": a, f"{PREFIX}{EMBEDDING}.lora_embedding_B": b,
    }  # fmt: skip
    merged, _ = opened(base, tmp_path, tensors)
    assert np.array_equal(floats(merged, f"{HEAD}.weight"), grown * 2)
    np.testing.assert_allclose(floats(merged, f"{EMBEDDING}.weight"), grown + 2 * (b @ a).T, rtol=1e-5, atol=1e-6)


def test_a_bias_of_b_is_added_as_it_is_scaled(base: Path, tmp_path: Path) -> None:
    with_bias = tmp_path / "with-bias"
    with_bias.mkdir()
    weights = {n: w.astype(np.float32) for n, w in products(base, [MLP]).items()}
    (with_bias / "config.json").write_text((base / "config.json").read_text())
    bias, step = random_matrix((SMALL.width,), 8), random_matrix((SMALL.width,), 9)
    save_file({f"{MLP}.weight": random_matrix((SMALL.width, SMALL.ffn), 7), f"{MLP}.bias": bias}, with_bias / "model.safetensors")
    merged, _ = opened(with_bias, tmp_path, {**weights, f"{PREFIX}{MLP}.lora_B.bias": step}, lora_bias=True)
    np.testing.assert_allclose(floats(merged, f"{MLP}.bias")[0], bias + 2 * step, rtol=1e-6)


@pytest.mark.parametrize("what", ["head", "embedding", "whole embedding", "tied on purpose", "single tokens"])
def test_of_a_head_that_is_the_embedding_only_what_was_trained_is_changed(what: str, tied: Path, tmp_path: Path) -> None:
    a, b = random_matrix((4, SMALL.width), 1), random_matrix((SMALL.vocab, 4), 2)
    new, config = random_matrix((SMALL.vocab, SMALL.width), 3), {}
    tensors: dict[str, Floats] = {f"{PREFIX}{EMBEDDING}.weight": new}
    if what == "head":
        tensors = {f"{PREFIX}{HEAD}.lora_A.weight": a, f"{PREFIX}{HEAD}.lora_B.weight": b}
    elif what == "embedding":
        tensors = {
            f"{PREFIX}{EMBEDDING}.lora_embedding_A": np.ascontiguousarray(b.T),
            f"{PREFIX}{EMBEDDING}.lora_embedding_B": np.ascontiguousarray(a.T),
        }
    elif what == "single tokens":
        tensors = {f"{PREFIX}{EMBEDDING}.token_adapter.trainable_tokens_delta": new[:1]}
        config = {"trainable_token_indices": [9]}
    elif what == "tied on purpose":
        config = {"ensure_weight_tying": True}
    merged, plain = opened(tied, tmp_path, tensors, **config)
    before = floats(plain, f"{EMBEDDING}.weight")
    product = before + np.float32(2) * (b @ a)
    wanted = {
        "head": (before, product), "embedding": (product, before), "whole embedding": (new, before),
        "tied on purpose": (new, None),
        "single tokens": (np.concatenate([before[:9], new[:1], before[10:]]), None),
    }[what]  # fmt: skip
    for name, want in zip((EMBEDDING, HEAD), wanted, strict=True):
        assert (f"{name}.weight" in merged.tensors) == (want is not None)
        if want is not None:
            np.testing.assert_allclose(floats(merged, f"{name}.weight"), want, rtol=1e-5, atol=1e-6)


REFUSED_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "another kind": ("of the kind 'IA3'", {"peft_type": "IA3"}),
    "prompts": ("of the kind 'PREFIX_TUNING'", {"peft_type": "PREFIX_TUNING"}),
    "aLoRA": ("alora_invocation_tokens", {"alora_invocation_tokens": [3]}),
    "parameters of experts": ("target_parameters", {"target_parameters": ["experts.down_proj"]}),
    "layers used twice": ("layer_replication", {"layer_replication": [[0, 2]]}),
    "QA-LoRA": ("use_qalora", {"use_qalora": True}),
    "PiSSA": ("trained from 'pissa_niter_16'", {"init_lora_weights": "pissa_niter_16"}),
    "a pattern that is a program": ("names no module", {"alpha_pattern": {"(a+)+$": 3}}),
    "patterns that are none": ("names no module", {"alpha_pattern": "q_proj|k_proj"}),
    "alpha of zero": ("lora_alpha is 0", {"lora_alpha": 0}),
    "alpha that is none": ("lora_alpha is 'much'", {"lora_alpha": "much"}),
    "tokens that are none": ("no rows of an embedding", {"trainable_token_indices": [1, -1]}),
}


@pytest.mark.parametrize("what", REFUSED_CONFIGS)
def test_another_kind_of_adapter_is_refused_by_its_name(what: str, base: Path, tmp_path: Path) -> None:
    expected, config = REFUSED_CONFIGS[what]
    adapter = write_adapter(tmp_path / "adapter", products(base, [MLP]), **config)
    assert expected in refusal(adapter, base)


def refusal(adapter: Path, base: Path | None) -> str:
    with pytest.raises(SprigError) as caught:
        headers(open_model(str(adapter), base=str(base) if base else None))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without_b(t: dict[str, Any]) -> dict[str, Any]:
    return {n: w for n, w in t.items() if ".lora_B" not in n}


REFUSED_TENSORS: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "nothing": ("holds no weights", lambda t: {}),
    "one matrix": ("the two matrices", without_b),
    "a part that is not known": (
        "a part of LoRA that is not known", lambda t: {**t, f"{PREFIX}{MLP}.lora_router.weight": random_matrix((4, 4), 1)},
    ),
    "a bias of A": ("just the two matrices", lambda t: {**t, f"{PREFIX}{MLP}.lora_A.bias": random_matrix((4,), 1)}),
    "a module that is not there": (
        "changes 'model.layers.9.mlp.down_proj'", lambda t: {n.replace("layers.1", "layers.9"): w for n, w in t.items()},
    ),
    "a whole tensor that is not there": ("does not have", lambda t: {**t, f"{PREFIX}score.weight": random_matrix((2, 256), 1)}),
    "another width": ("of shape", lambda t: {n: w[:, :100].copy() if "lora_A" in n else w for n, w in t.items()}),
    "two ranks": ("have the shapes", lambda t: {n: w[:2].copy() if "lora_A" in n else w for n, w in t.items()}),
    "vectors": ("have the shapes", lambda t: {n: w.ravel().copy() for n, w in t.items()}),
    "whole numbers": ("no plain float", lambda t: {n: w.astype(np.int32) for n, w in t.items()}),
    "a norm of another size": ("of shape [100]", lambda t: {**t, f"{PREFIX}model.norm.weight": random_matrix((100,), 1)}),
    "two adapters": ("twice", lambda t: {**t, **{n.replace(".lora_A", "._orig_mod.lora_A"): w for n, w in t.items()}}),
    "DoRA of another size": ("of shape [3]", lambda t: {**t, f"{PREFIX}{MLP}.lora_magnitude_vector": random_matrix((3,), 1)}),
    "tokens that the base lacks": (
        "of shape", lambda t: {f"{PREFIX}{EMBEDDING}.token_adapter.trainable_tokens_delta": random_matrix((1, 256), 1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED_TENSORS)
def test_matrices_that_do_not_belong_to_the_base_are_refused(what: str, base: Path, tmp_path: Path) -> None:
    expected, spoil = REFUSED_TENSORS[what]
    adapter = write_adapter(tmp_path / "adapter", spoil(products(base, [MLP])), trainable_token_indices=[100_000])
    assert expected in refusal(adapter, base)


def test_a_base_that_is_not_named_or_is_none_is_said(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", products(base, [MLP]))
    assert "does not say of which model; name that with --base" in refusal(adapter, None)
    write_adapter(adapter, products(base, [MLP]), base_model_name_or_path=str(tmp_path / "gone"))
    assert "--base names another place or model" in refusal(adapter, None)
    assert "an adapter too" in refusal(adapter, adapter)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert "a GGUF, where a checkpoint is needed" in refusal(adapter, tmp_path / "x.gguf")
    with pytest.raises(SprigError, match="is a whole model; --base is for an adapter"):
        open_model(str(base), base=str(base))
    write_adapter(adapter, products(base, [MLP]), base_model_name_or_path=str(base))
    assert open_model(str(adapter)).path == base
    (adapter / "adapter_config.json").write_text("[")
    assert "broken adapter_config.json" in refusal(adapter, base)
    (adapter / "adapter_config.json").unlink()
    assert "has no adapter_config.json" in refusal(adapter, base)


def test_the_tokenizer_and_the_template_of_the_adapter_come_before_the_bases(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", products(base, [MLP]))
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    files = open_model(str(adapter), base=str(base)).files
    assert files["chat_template.jinja"] == b"{{ messages }}"
    assert files["tokenizer.json"] == (base / "tokenizer.json").read_bytes()
    (adapter / "tokenizer.json").write_text("{}")
    files = open_model(str(adapter), base=str(base)).files
    assert files["tokenizer.json"] == b"{}"
    assert "tokenizer_config.json" not in files, "two tokenizers are not mixed"
    assert files["config.json"] == (base / "config.json").read_bytes()


@pytest.mark.slow
def test_a_bin_adapter_is_read_too(base: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = products(base, [MLP])
    merged, _ = opened(base, tmp_path, tensors)
    folder = tmp_path / "adapter"
    torch.save(
        {n: torch.from_numpy(w) for n, w in load_file(folder / "adapter_model.safetensors").items()}, folder / "adapter_model.bin"
    )
    (folder / "adapter_model.safetensors").unlink()
    with open_checkpoint(open_model(str(folder), base=str(base))) as again:
        assert np.array_equal(floats(again, f"{MLP}.weight"), floats(merged, f"{MLP}.weight"))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["LORA", "pissa", "q_proj"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from([
    "peft_type", "lora_alpha", "alpha_pattern", "use_rslora", "init_lora_weights", "base_model_name_or_path", "revision",
    "trainable_token_indices", "fan_in_fan_out", "task_type", "layer_replication",
])  # fmt: skip


@given(st.dictionaries(_KEYS, _JSON, max_size=5) | _JSON)
def test_any_config_is_read_or_refused_in_one_line(config: Any) -> None:
    try:
        found: LoraConfig | str = read_lora_config(json.dumps(config).encode(), "some adapter")
    except SprigError as e:
        found = str(e)
    assert "\n" not in found if isinstance(found, str) else 0 < found.scale("model.layers.0.mlp", 4) < 1e9
