"""The names of an engine's settings that are unknown here, answered with what they are here."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from agent.errors import SprigError
from agent.text import display
from agent.text.nearest import nearest

_SAMPLING = "it belongs to the sampling: Agent(sampling={{{name!r}: ...}})"
_PARTS = "the layers of a model are computed on the processor here; leave it out"
# Names of llama-cpp-python and llama.cpp's programs: a name here, or what becomes of the wish.
FOREIGN = {
    "n_ctx": "context", "ctx_size": "context", "num_ctx": "context", "context_length": "context", "max_seq_len": "context",
    "n_threads": "threads", "num_threads": "threads", "n_threads_batch": "threads", "n_batch": "batch", "n_ubatch": "batch",
    "num_batch": "batch", "batch_size": "batch", "n_seq_max": "conversations", "n_parallel": "conversations",
    "parallel": "conversations", "type_k": "cache", "type_v": "cache", "cache_type_k": "cache", "cache_type_v": "cache",
    "lora_path": "lora", "lora_scale": "lora", "lora_base": "lora", "priority": "nice", "model_path": "model",
    "n_predict": "max_tokens", "num_predict": "max_tokens", "temp": "temperature",
}  # fmt: skip
ANSWERS = {
    "n_gpu_layers": _PARTS, "gpu_layers": _PARTS, "num_gpu": _PARTS, "main_gpu": _PARTS, "tensor_split": _PARTS,
    "split_mode": _PARTS, "offload_kqv": _PARTS,
    "use_mmap": "the file is mapped where that serves this machine; leave it out (a script decides it with Engine(repack=...))",
    "use_mlock": "the weights cannot be locked in memory here; leave it out",
    "flash_attn": "it is chosen with the type of the cache; leave it out",
    "verbose": "llama.cpp's own lines are shown when it fails; leave it out",
    "chat_format": "the model's own chat template is used, and found out about; leave it out",
    "chat_handler": "the model's own chat template is used, and found out about; leave it out",
    "rope_freq_base": "the model's file says it; leave it out",
    "rope_freq_scale": "the model's file says it; leave it out",
    "rope_scaling_type": "the model's file says it; leave it out",
    "embedding": "Embedder(model) gives vectors; leave it out",
    "embeddings": "Embedder(model) gives vectors; leave it out",
    "logits_all": "only the logits that are needed are computed; leave it out",
    "draft_model": "there is no draft model here; leave it out",
    "vocab_only": "a model is loaded whole here; leave it out",
    "n_keep": "what is given up when the context is full is chosen by the agent; leave it out",
    "stop": "it belongs to a run: agent.run(text, stop=[...])",
    "max_tokens": "it belongs to a run: Agent(limits=Limits(tokens=...))",
    "n_predict": "it belongs to a run: Agent(limits=Limits(tokens=...))",
    "num_predict": "it belongs to a run: Agent(limits=Limits(tokens=...))",
    **dict.fromkeys(("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed"), _SAMPLING),
    "temp": _SAMPLING.replace("{name!r}", "'temperature'"),
}  # fmt: skip


def refuse_unknown(given: Iterable[str], known: Collection[str]) -> None:
    """Raises SprigError for the first name that is not known, with what it is called here, or what was probably meant."""
    for name in given:
        if name not in known:
            raise SprigError(f"an engine has no setting {display(name[:60])!r}: {answer(name, known)}")


def answer(name: str, known: Collection[str]) -> str:
    """What a foreign or a mistyped name is here."""
    if FOREIGN.get(name) in known:
        return f"here it is {FOREIGN[name]}"
    if name in ANSWERS:
        return ANSWERS[name].format(name=name)
    names = [one for one in known if one not in ("self", "model")]
    meant = nearest(name, names)
    return f"did you mean {meant}?" if meant else f"there are {', '.join(names)}"
