"""Training through a recipe's rounding: what was trained with is what the file holds, and nothing is rounded twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import RecipeError, SprigError, UnsupportedError
from agent.gguf.check import check
from agent.gguf.types import TYPES_BY_NAME
from pipeline import quantize
from pipeline.distill.kinds import kinds_of
from pipeline.format import ggml
from pipeline.model import from_checkpoint
from pipeline.recipes.names import find_recipe
from pipeline.sources.source import open_source
from pipeline.tune.places import restored
from tests.fixtures.checkpoints import save
from tests.fixtures.later import later, needs
from tests.fixtures.shared import shared
from tests.fixtures.tokenizers import make_tokenizer

needs("transformers")
torch = later("torch")
parametrize = later("torch.nn.utils.parametrize")
room = later("pipeline.distill.rounded")


def checkpoint(case: str) -> Path:
    def make(folder: Path) -> None:
        save(case, folder)
        make_tokenizer("smollm2", folder, 512)

    return shared(f"rounded-{case}", make)


def wide(folder: Path) -> Path:
    """A checkpoint with rows of 256 weights, which K-quants can hold."""
    from transformers import LlamaConfig, LlamaForCausalLM

    size = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4, "vocab_size": 512}
    LlamaForCausalLM(LlamaConfig(**size, num_hidden_layers=1)).save_pretrained(folder)
    make_tokenizer("smollm2", folder, 512)
    return folder


def loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def step(network: Any, optimizer: Any) -> float:
    """One step on random tokens."""
    ids = torch.arange(48).view(2, 24) * 7 % 512
    loss = network(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


@pytest.mark.parametrize(("case", "recipe"), [("llama", "Q4_0"), ("llama-tied-biases", "IQ4_NL"), ("qwen2", "Q4_K_M")])
def test_the_quantized_file_holds_the_weights_of_the_training(case: str, recipe: str, tmp_path: Path) -> None:
    folder = checkpoint(case)
    network = loaded(folder)
    room.round_through(network, kinds_of(folder, recipe))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(2):
        step(network, optimizer)
    trained = _used(network)
    for module in [module for module in network.modules() if parametrize.is_parametrized(module)]:
        for name in list(module.parametrizations):
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
    network.save_pretrained(tmp_path / "student")
    make_tokenizer("smollm2", tmp_path / "student", 512)
    out = tmp_path / "student.gguf"
    quantize(str(tmp_path / "student"), recipe, out, threads=1)
    header, data = check(out), np.fromfile(out, np.uint8)
    model = from_checkpoint(open_source(str(tmp_path / "student")), find_recipe(recipe))
    seen = set()
    for tensor in model.tensors:
        entry = header.tensors[tensor.name]
        raw = data[entry.offset : entry.offset + entry.nbytes].reshape(int(np.prod(entry.shape[:-1])), -1)
        held = ggml.to_float(raw, entry.type, entry.shape[-1])
        for source, start, rows in restored(held, tensor, model.infos):
            mine = trained[source].reshape(-1, rows.shape[1])[start : start + len(rows)]
            assert np.array_equal(mine, rows), source
            seen.add(entry.type.name)
    assert len(seen - {"F32"}) >= 1


def _used(network: Any) -> dict[str, Any]:
    """What the network computes with, by the names of its checkpoint."""
    found = {}
    for path, module in network.named_modules():
        names = [*dict(module.named_parameters(recurse=False)), *getattr(module, "parametrizations", ())]
        found |= {f"{path}.{name}": getattr(module, name).detach().numpy().copy() for name in names}
    return found


def test_a_training_through_rounding_learns(tmp_path: Path) -> None:
    folder = checkpoint("llama")
    network = loaded(folder)
    room.round_through(network, kinds_of(folder, "Q4_0"))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = [step(network, optimizer) for _ in range(8)]
    assert losses[-1] < losses[0] - 0.2


def test_the_gradient_is_that_of_the_rounded_weight() -> None:
    layer = torch.nn.Linear(32, 4, bias=False)
    inputs = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    plain = torch.nn.Linear(32, 4, bias=False)
    rows = layer.weight.detach().numpy()
    rounded = ggml.to_float(ggml.quantize(rows, TYPES_BY_NAME["Q4_0"]), TYPES_BY_NAME["Q4_0"], 32)
    plain.weight.data = torch.from_numpy(rounded)
    master = layer.weight
    room.round_through(layer, {"weight": "Q4_0"})
    for one in (layer, plain):
        one(inputs).square().sum().backward()
    assert torch.equal(layer.weight.detach(), plain.weight.detach())
    assert torch.equal(master.grad, plain.weight.grad)


def test_an_embedding_that_is_the_head_too_is_one_parameter_rounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint("llama-tied-biases")
    network = loaded(folder)
    kinds = kinds_of(folder, "Q8_0")
    assert "lm_head.weight" not in kinds
    parameters = list(network.parameters())
    room.round_through(network, kinds)
    assert {id(p) for p in network.parameters()} == {id(p) for p in parameters}  # an optimizer finds them all
    head, embedding = network.lm_head.weight, network.model.embed_tokens.weight
    assert head.data_ptr() == embedding.data_ptr() != parameters[0].data_ptr()
    rounded = []
    real = room.Rounding._round
    monkeypatch.setattr(room.Rounding, "_round", lambda self, *given: rounded.append(self.name) or real(self, *given))
    optimizer = torch.optim.AdamW(network.parameters())
    step(network, optimizer)
    assert not rounded  # registering has rounded them, and nothing had changed since
    step(network, optimizer)
    assert sorted(rounded) == sorted(kinds)  # each once, after the optimizer's step


@pytest.mark.parametrize("way", [{"foreach": True}, {"foreach": False}, {"fused": True}])
def test_every_kind_of_step_is_noticed(way: dict[str, bool]) -> None:
    layer = torch.nn.Linear(32, 2, bias=False)
    room.round_through(layer, {"weight": "Q8_0"})
    before = layer.weight.detach().clone()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, **way)
    layer(torch.ones(1, 32)).sum().backward()
    optimizer.step()
    assert not torch.equal(layer.weight.detach(), before)


def test_two_threads_round_to_the_same_bytes() -> None:
    layer = torch.nn.Linear(256, 513, bias=False)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        room.round_through(layer, {"weight": "Q4_K"})
        many = layer.weight.detach().clone()
    finally:
        torch.set_num_threads(threads)
    master = layer.parametrizations.weight.original.detach().numpy()
    assert np.array_equal(many.numpy(), ggml.to_float(ggml.quantize(master, TYPES_BY_NAME["Q4_K"]), TYPES_BY_NAME["Q4_K"], 256))


def test_what_cannot_be_rounded_says_so(tmp_path: Path) -> None:
    folder = checkpoint("llama")
    with pytest.raises(RecipeError, match=r"--for Q2_K_S: Q2_K .* needs an importance matrix"):
        kinds_of(wide(tmp_path), "Q2_K_S")
    with pytest.raises(RecipeError, match="F32: it keeps all weights"):
        kinds_of(folder, "F32")
    with pytest.raises(UnsupportedError, match=r"no parameter model\.other"):
        room.round_through(loaded(folder), {"model.other": "Q4_0"})
    with pytest.raises(UnsupportedError, match="rows of 33 weights, which Q4_0 cannot hold"):
        room.round_through(torch.nn.Linear(33, 2), {"weight": "Q4_0"})
    layer = torch.nn.Linear(32, 2)
    room.round_through(layer, {"weight": "IQ4_NL"})
    with torch.no_grad():
        layer.parametrizations.weight.original[0, 0] = float("nan")
    with pytest.raises(SprigError, match="weight became NaN or infinite"):
        layer(torch.ones(1, 32))
    with pytest.raises(UnsupportedError, match="turned or scaled"):
        kinds_of(checkpoint("gpt2"), "Q4_0")
