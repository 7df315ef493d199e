"""What a person may choose from before a chat begins: the last conversation, and the models that there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import SprigError
from agent.fit.machine import recall_machine
from agent.fit.speed import predict
from agent.models.choices import ModelChoice, list_models, look_at
from agent.models.last_used import recall
from agent.models.origin import by_origin
from agent.models.reference import HubReference, hub_reference
from agent.models.store import find_model

if TYPE_CHECKING:
    from agent.sessions.store import Store


@dataclass(frozen=True, slots=True)
class LastTalk:
    """A conversation that can be gone on with, and the model that it was led with."""

    session: str
    title: str
    model: ModelChoice


def look(store: Callable[[], Store] | None, session: str | None = None) -> list[LastTalk | ModelChoice]:
    """Everything that is there, the last conversation first. Reads files; never raises a SprigError.

    Args:
        store: opens the sessions; None leaves conversations out.
        session: id of the conversation to offer; by default the last one.
    """
    models = [_with_speed(model) for model in list_models()]
    wanted = session or recall().session
    last = _last(store, wanted, models) if store is not None and wanted else None
    return [last, *models] if last is not None else [*models]


def _with_speed(model: ModelChoice) -> ModelChoice:
    """A model with the speed that is expected of it, where `sprig fit` has measured this machine; nothing is measured now."""
    machine = recall_machine()
    if machine is None or model.file is None or not model.context:
        return model
    return replace(model, writes=predict(model.file, machine, context=model.context).writes)


def _last(store: Callable[[], Store], session: str, models: Sequence[ModelChoice]) -> LastTalk | None:
    try:
        info = store().open(session).info
        known = next((m for m in models if info.model and str(m.path) == info.model), None)
        model = known or (look_at(Path(info.model)) if info.model else None)
    except (SprigError, OSError, ValueError):
        return None
    return LastTalk(info.id, info.title, model) if model is not None and model.fits else None


def on_the_hub(text: str) -> HubReference | None:
    """The model of the Hub that a typed text means; None when it means a file, or a model that was pulled already."""
    reference = _reference(text.strip().strip("'\""))
    return None if reference is None or by_origin(reference) else reference


def _reference(text: str) -> HubReference | None:
    try:
        return None if Path(text).expanduser().exists() else hub_reference(text)
    except (OSError, ValueError, RuntimeError):
        return None


def at_path(text: str) -> ModelChoice:
    """The model that a typed path means. SprigError says why it cannot be used."""
    text = text.strip().strip("'\"")
    if not text:
        raise SprigError("type the path of a GGUF file, or org/name of a model on the Hub")
    reference = _reference(text)
    pulled = by_origin(reference) if reference else []
    if len(pulled) > 1:
        names = ", ".join(path.stem for path in pulled)
        raise SprigError(f"several of {text} are here: {names}")
    return _usable(str(pulled[0]) if pulled else text, is_file=True)


def named(text: str) -> ModelChoice:
    """The model with this name or path. SprigError says why it cannot be used."""
    return _usable(text, is_file=False)


def why_not(model: ModelChoice) -> str:
    """Why a model cannot be used here, in one line."""
    return f"too large: {model.why}" if model.need else model.why


def _usable(text: str, *, is_file: bool) -> ModelChoice:
    try:
        path = Path(text).expanduser()
        if path.is_dir():
            raise SprigError(f"{path} is a folder; the name of the file is missing")
        if is_file and not path.is_file():
            raise SprigError(f"there is no file {path}")
        found = look_at(find_model(text))
    except (OSError, ValueError, RuntimeError) as e:
        raise SprigError(f"{text[:40]} cannot be read: {getattr(e, 'strerror', None) or e}") from None
    if not found.fits:
        raise SprigError(f"{found.name}: {why_not(found)}")
    return found
