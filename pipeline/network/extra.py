"""The libraries of the extra ``train``: a network that learns needs them."""

from __future__ import annotations

from importlib.util import find_spec

from agent.errors import SprigError

_LIBRARIES = ("torch", "transformers", "safetensors")


def need_train_extra(what: str) -> None:
    """Raises SprigError, with what to install, when ``what`` (a command or an option) lacks one of the libraries."""
    if lost := [name for name in _LIBRARIES if find_spec(name) is None]:
        raise SprigError(
            f"{what} needs the train extra ({', '.join(lost)} not found): pip install '.[train]' in the checkout of Sprig"
        )
