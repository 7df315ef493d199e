"""Weights that lie in some other format than the Hugging Face one: named for what they are, with what to take instead."""

from __future__ import annotations

from collections.abc import Iterable

from agent.errors import SourceError

_LOOKED_FOR = "model.safetensors, model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json"


def no_checkpoint(names: Iterable[str], where: str) -> SourceError:
    """Why there is no checkpoint among these files.

    Args:
        names: all files, relative to the top.
        where: folder or repository.
    """
    root = sorted(n[:100] for n in names if "/" not in n and n.isprintable())
    own = [n for n in root if n.startswith("consolidated.") and n.endswith((".safetensors", ".pth", ".pt"))]
    pickles = [n for n in root if n.endswith((".pth", ".pt", ".ckpt"))]
    if own and own[0].endswith(".safetensors"):
        what = f"{own[0]}, which is Mistral's own format"
        return SourceError(f"{where} holds its weights only as {what}; take a repository that has them as model.safetensors too")
    if own or "params.json" in root:
        what = f"{(own or pickles or root)[0]}, the format of its maker's own program"
        return SourceError(f"{where} holds its weights as {what}; take the model's Hugging Face repository (often named ...-hf)")
    if pickles:
        what = f"torch files under names of their own ({pickles[0]}), which Sprig does not read"
        return SourceError(f"{where} holds {what}; save the model with save_pretrained, or take a version in safetensors")
    return SourceError(f"{where} holds no checkpoint; looked for {_LOOKED_FOR}")
