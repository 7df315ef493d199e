"""Same words: the F32 GGUF of a model says in llama.cpp what the model says in transformers.

For each architecture and its awkward variants a tiny random checkpoint goes through the real pipeline; the log-probabilities
of all tokens at all 64 positions are compared (for the encoders, the embedding of each token).
"""

from __future__ import annotations

import ctypes
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from agent.gguf.reader import read_header
from pipeline import quantize
from pipeline.architectures.gemma2 import Gemma2
from pipeline.architectures.qwen3_5 import Qwen35
from pipeline.architectures.shared.base import Architecture
from pipeline.architectures.shared.decoder import Decoder
from pipeline.architectures.shared.moe import MixtureOfExperts
from pipeline.architectures.shared.tensor import Tensor
from pipeline.inspect_model import inspect_model
from tests.fixtures import cases_dense, cases_encoders, cases_experts
from tests.fixtures.checkpoints import CASES, ENCODERS, WRAPPERS, build, is_encoder, save, use_ggml_gelu, wrapper
from tests.fixtures.quiet_llama import quiet_llama
from tests.fixtures.tokenizers import make_tokenizer

if TYPE_CHECKING:
    import torch
    import transformers

pytestmark = pytest.mark.slow
Floats = npt.NDArray[np.float64]

POSITIONS, VOCABULARY = 64, 512
TOLERANCE = 1e-3
# ggml's CPU backend computes GELU in its tanh form and reads it from a table of F16 values (ggml-cpu/vec.h). Against a model
# that does the same, what is left is a value that now and then falls on the other side of a rounding (measured over five
# seeds: up to 3.5e-3).
# Against the original's own GELU the table itself shows (up to 5.6e-3), and may even choose
# another expert.
TABLE_TOLERANCE, GELU_TOLERANCE = 4e-3, 1e-2
GELU = ("gemma2", "gemma3", "gemma4", "bert", "distilbert", *cases_dense.GELU, *cases_experts.GELU, *cases_encoders.GELU)


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> None:
    """transformers on one thread and without a word. Both libraries are loaded when a test of this file runs, not before."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    made = {encoder: tmp_path_factory.mktemp("tokenizer") for encoder in (False, True)}
    for encoder, folder in made.items():
        make_tokenizer("bert-uncased" if encoder else "smollm2", folder, VOCABULARY)
    return lambda encoder: made[encoder]


@pytest.fixture
def convert(tokenizers: Callable[[bool], Path]) -> Callable[[Path], Path]:
    """A folder that transformers wrote -> the F32 GGUF that Sprig makes of it."""

    def run(folder: Path) -> Path:
        encoder = json.loads((folder / "config.json").read_text())["model_type"] in ENCODERS
        shutil.copytree(tokenizers(encoder), folder, dirs_exist_ok=True)
        return quantize(str(folder), "F32", folder / "out.gguf", threads=1).path

    return run


def tokens() -> list[int]:
    return [int(t) for t in np.random.default_rng(3).integers(3, VOCABULARY, POSITIONS)]


def in_transformers(model: transformers.PreTrainedModel, encoder: bool = False) -> Floats:
    """[64, 512] log-probabilities, or [64, hidden_size] embeddings."""
    import torch

    with torch.no_grad():
        out = (model.base_model if encoder else model)(input_ids=torch.tensor([tokens()]))
    return log_softmax(out.logits[0].numpy()) if "logits" in out else out.last_hidden_state[0].double().numpy()


def in_llama_cpp(path: Path, encoder: bool = False, adapter: Path | None = None) -> Floats:
    """The same from llama.cpp, with a LoRA adapter or without: one thread, no flash attention, keys and values kept as F32."""
    lib = quiet_llama()
    model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
    assert model, f"llama.cpp does not load {path}"
    params = lib.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = POSITIONS
    params.n_threads = params.n_threads_batch = 1
    params.type_k = params.type_v = 0  # GGML_TYPE_F32
    params.flash_attn_type = 0
    params.embeddings = encoder
    params.pooling_type = 0 if encoder else -1
    lora = lib.llama_adapter_lora_init(model, str(adapter).encode()) if adapter else None
    assert lora or not adapter, f"llama.cpp does not load {adapter}"
    context = lib.llama_init_from_model(model, params)
    if lora:
        lib.llama_set_adapters_lora(context, (lib.llama_adapter_lora_p_ctypes * 1)(lora), 1, (ctypes.c_float * 1)(1.0))
    batch = lib.llama_batch_init(POSITIONS, 0, 1)
    try:
        batch.n_tokens = POSITIONS
        for i, token in enumerate(tokens()):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
        assert lib.llama_decode(context, batch) == 0
        width = lib.llama_model_n_embd(model) if encoder else lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        row = lib.llama_get_embeddings_ith if encoder else lib.llama_get_logits_ith
        rows = np.stack([np.ctypeslib.as_array(row(context, i), (width,)).astype(np.float64) for i in range(POSITIONS)])
    finally:
        lib.llama_batch_free(batch)
        lib.llama_free(context)
        lib.llama_model_free(model)
    return rows if encoder else log_softmax(rows)


def log_softmax(logits: npt.NDArray[Any]) -> Floats:
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=-1, keepdims=True)))


def furthest(a: Floats, b: Floats) -> float:
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("name", CASES)
def test_the_gguf_says_what_the_original_says(name: str, tmp_path: Path, convert: Callable[[Path], Path]) -> None:
    model, model_type, encoder = save(name, tmp_path), CASES[name][0], is_encoder(name)
    ours = in_llama_cpp(convert(tmp_path), encoder)
    assert ours.std(axis=-1).mean() > 0.9, "the model says the same everywhere; nothing would be proved"
    if model_type.removesuffix("_text") in GELU:
        if "experts" not in name and name not in cases_dense.ROUGH:
            assert furthest(ours, in_transformers(model, encoder)) < GELU_TOLERANCE
        use_ggml_gelu(model)
        tolerance = GELU_TOLERANCE if name in cases_dense.ROUGH else TABLE_TOLERANCE
        assert furthest(ours, in_transformers(model, encoder)) < tolerance
    else:
        assert furthest(ours, in_transformers(model, encoder)) < TOLERANCE


@pytest.mark.parametrize("name", WRAPPERS)
def test_of_a_model_with_eyes_the_text_part_is_taken(name: str, tmp_path: Path, convert: Callable[[Path], Path]) -> None:
    model = wrapper(name)
    model.save_pretrained(tmp_path)
    path = convert(tmp_path)
    if name.startswith("gemma"):
        use_ggml_gelu(model)
    assert furthest(in_llama_cpp(path), in_transformers(model)) < (TABLE_TOLERANCE if name.startswith("gemma") else TOLERANCE)
    kinds = {t.split(".")[0] for t in read_header(path).tensors if not t.startswith("per_layer_")}
    assert kinds <= {"blk", "token_embd", "token_embd_norm", "output_norm", "output", "rope_freqs"}


MISTAKES: dict[str, tuple[str, type[Architecture], Callable[[Tensor], Tensor]]] = {
    "queries left in transformers' order": (
        "llama-odd-heads", Decoder, lambda t: replace(t, row_order=None) if ".attn_q." in t.name else t,
    ),
    "a bias left in transformers' order": (
        "llama-tied-biases", Decoder, lambda t: replace(t, column_order=None) if t.name.endswith("attn_k.bias") else t,
    ),
    "a norm of one layer without its 1": (
        "gemma3", Gemma2, lambda t: replace(t, function=None) if t.name == "blk.1.post_ffw_norm.weight" else t,
    ),
    "value heads left together": (
        "qwen3.5", Qwen35, lambda t: replace(t, row_order=None) if "ssm_alpha" in t.name else t,
    ),
    "one expert for another": (
        "qwen3-moe", MixtureOfExperts, lambda t: replace(t, sources=t.sources[::-1]) if "ffn_up_exps" in t.name else t,
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_one_kind_of_tensor_would_be_heard(
    mistake: str, tmp_path: Path, convert: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, family, spoil = MISTAKES[mistake]
    right = family.adjust

    def wrong(self: Architecture, tensor: Tensor) -> Iterator[Tensor]:
        result = right(self, tensor)
        yield from (spoil(t) for t in ([result] if isinstance(result, Tensor) else result))

    monkeypatch.setattr(family, "adjust", wrong)
    model = save(name, tmp_path)
    assert furthest(in_llama_cpp(convert(tmp_path)), in_transformers(model)) > 10 * GELU_TOLERANCE


@pytest.mark.parametrize("name", ["qwen3-moe", "olmoe"])
@pytest.mark.parametrize("suffix", ["", ".weight"])
def test_experts_in_one_tensor_or_one_each_give_the_same_file(
    name: str, suffix: str, tmp_path: Path, convert: Callable[[Path], Path]
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    save(name, tmp_path / "each")
    shutil.copytree(tmp_path / "each", tmp_path / "one")
    weights = load_file(tmp_path / "each" / "model.safetensors")
    fused = {key: value for key, value in weights.items() if ".experts." not in key}
    assert len(fused) < len(weights)
    layers = sorted({key.split(".experts.")[0] for key in weights if ".experts." in key})
    for prefix in layers:
        n = len([key for key in weights if key.startswith(prefix) and key.endswith("down_proj.weight")])

        def of(part: str, prefix: str = prefix, n: int = n) -> list[torch.Tensor]:
            return [weights[f"{prefix}.experts.{e}.{part}.weight"] for e in range(n)]

        gate_up = [torch.cat(pair) for pair in zip(of("gate_proj"), of("up_proj"), strict=True)]
        fused[f"{prefix}.experts.gate_up_proj{suffix}"] = torch.stack(gate_up)
        fused[f"{prefix}.experts.down_proj{suffix}"] = torch.stack(of("down_proj"))
    save_file(fused, tmp_path / "one" / "model.safetensors", metadata={"format": "pt"})
    one, each = convert(tmp_path / "one"), convert(tmp_path / "each")
    assert tensor_bytes(one) == tensor_bytes(each)


def tensor_bytes(path: Path) -> dict[str, bytes]:
    header, raw = read_header(path), path.read_bytes()
    return {name: raw[t.offset : t.offset + t.nbytes] for name, t in header.tensors.items()}


def test_a_head_that_repeats_the_embedding_is_left_out(tmp_path: Path, convert: Callable[[Path], Path]) -> None:
    from safetensors.torch import load_file, save_file

    model = save("qwen3-tied", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    path = convert(tmp_path)
    assert "output.weight" not in read_header(path).tensors
    assert furthest(in_llama_cpp(path), in_transformers(model)) < TOLERANCE


def test_of_an_embedding_and_a_head_that_are_one_either_name_will_do(tmp_path: Path, convert: Callable[[Path], Path]) -> None:
    from safetensors.torch import load_file, save_file

    model = save("qwen3-tied", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = weights.pop("model.embed_tokens.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert furthest(in_llama_cpp(convert(tmp_path)), in_transformers(model)) < TOLERANCE


def test_two_seeds_say_different_things() -> None:
    assert furthest(in_transformers(build("llama")), in_transformers(build("llama", seed=8))) > 1


def test_an_inspection_of_an_encoder_shows_the_keys_that_its_file_has(tmp_path: Path, convert: Callable[[Path], Path]) -> None:
    """Those too that neither config.json nor the tokenizer holds: how token vectors are pooled."""
    save("bert", tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    written = read_header(convert(tmp_path)).keys
    (tmp_path / "out.gguf").unlink()
    shown = inspect_model(str(tmp_path)).keys
    assert (shown["bert.pooling_type"], shown["tokenizer.ggml.token_type_count"]) == (1, 2)
    assert {key for key in written if key.startswith("bert.")} == {key for key in shown if key.startswith("bert.")}
