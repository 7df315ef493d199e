"""What a person may choose from before a chat begins: the last conversation, and the models that there are."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import SprigError
from agent.fit.machine import recall_machine
from agent.fit.speed import predict
from agent.models.choices import ModelChoice, list_models, look_at
from agent.models.find import expanded, find_model, models_of
from agent.models.last_used import recall
from agent.models.reference import HubReference, hub_reference

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
    """The model of the Hub that a typed text means; None when it means a file, or a model that is here already."""
    text = _bare(text)
    reference = None if os.path.exists(expanded(text)) else hub_reference(text)  # noqa: PTH110 - any text may be typed
    return None if reference is None or models_of(reference) else reference


def _bare(text: str) -> str:
    """What is typed or dropped on the terminal, without the quotes around a path."""
    return text.strip().strip("'\"")


def named(text: str) -> ModelChoice:
    """The model that a typed name or path means. SprigError says why it cannot be used."""
    text = _bare(text)
    if not text:
        raise SprigError("type the name or path of a model, or org/name of one on the Hub")
    try:
        found = look_at(find_model(text))
    except OSError as e:
        raise SprigError(f"{text[:40]} cannot be read: {e.strerror or e}") from None
    if not found.fits:
        raise SprigError(f"{found.name}: {why_not(found)}")
    return found


def why_not(model: ModelChoice) -> str:
    """Why a model cannot be used here, in one line."""
    return f"too large: {model.why}" if model.need else model.why
