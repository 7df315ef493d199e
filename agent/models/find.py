"""The model that a person means: a file, a folder with one, or the name of one in the store, whole or in part."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from agent.errors import SourceError, SprigError
from agent.home import models
from agent.models.demo import HOW_TO_GET, demo_model
from agent.models.demo import NAME as DEMO
from agent.models.elsewhere import find_elsewhere, in_hub_cache
from agent.models.origin import by_origin
from agent.models.reference import HubReference, cached_snapshot, hub_reference
from agent.models.selector import is_later_part, is_model
from agent.models.store import StoredModel, stored_models
from agent.text.nearest import all_near

_NAMED = 6  # so many names a message holds


def find_model(model: str | Path) -> Path:
    """The file that a person means.

    Args:
        model: a path of a GGUF, or of a folder that holds one; the name of a model in the store, without case and suffix, or a
            beginning or part that only one has; "demo"; or a name of the Hub, if a model of the store came from it.

    Raises:
        SourceError: no model is found, with the nearest names and the command that would bring it; or several are.
    """
    text = str(model).strip()
    if not text:
        raise SourceError("there is no model without a name; `sprig models` lists what is there")
    path = expanded(text)
    if os.path.isfile(path):  # noqa: PTH113 - a name that no file can have is no error to it
        return path.absolute()
    if os.path.isdir(path):  # noqa: PTH112
        return _in_folder(path)
    stored = [m for m in stored_models() if m.finished and not is_later_part(m.path.name)]
    name = text.removesuffix(".gguf")
    exact = next((m for m in stored if m.name in (text, name)), None)
    if exact is not None:
        return exact.path
    if text.casefold() == DEMO:
        return _demo()
    reference = hub_reference(text)
    if reference is not None:
        return _one(text, models_of(reference)) or _absent(_not_here(reference, stored))
    foreign = find_elsewhere(text) if ":" in text else None
    if foreign is not None:
        return foreign
    key = "" if "/" in text else name.casefold()
    for fits in (str.__eq__, str.startswith, str.__contains__) if key else ():
        found = _one(text, [m.path for m in stored if fits(m.name.casefold(), key)])
        if found is not None:
            return found
    return _absent(_not_found(text, stored))


def models_of(reference: HubReference) -> list[Path]:
    """The GGUFs on this machine that a reference means: pulled into the store or made there of it, else in the Hub's cache."""
    made = [m.path for m in stored_models() if m.finished and _is_made_of(m, reference)]
    return list(dict.fromkeys([*by_origin(reference), *made])) or in_hub_cache(reference)


def needs_pipeline(model: str) -> bool:
    """Whether a text names a checkpoint: a folder of one, or a model of the Hub that was not pulled as a GGUF.

    Nothing is looked up on the Hub.
    """
    path = expanded(model.strip())
    if os.path.isdir(path):  # noqa: PTH112
        return not _ggufs_in(path) or any(p.suffix in (".safetensors", ".bin") for p in _inside(path))
    reference = None if os.path.isfile(path) else hub_reference(model)  # noqa: PTH113
    return reference is not None and not by_origin(reference)


def expanded(text: str) -> Path:
    """The path that a text means; "~" is the home where there is such a user."""
    with suppress(RuntimeError):
        return Path(text).expanduser()
    return Path(text)


def _ggufs_in(folder: Path) -> list[Path]:
    return [path for path in _inside(folder) if path.name.lower().endswith(".gguf")]


def _inside(folder: Path) -> list[Path]:
    """What a folder holds; of one of the Hub's cache, what its commit holds."""
    snapshot = cached_snapshot(folder)
    return sorted((snapshot.path if snapshot else folder).glob("*"))


def _in_folder(folder: Path) -> Path:
    whole = [p for p in _ggufs_in(folder) if is_model(p.name) and not is_later_part(p.name)]
    if len(whole) == 1:
        return whole[0].absolute()
    if whole:
        raise SourceError(f"{folder} holds {len(whole)} models; name one of them: {_listed([p.name for p in whole])}")
    is_adapter = (folder / "adapter_config.json").is_file()
    if is_adapter or (folder / "config.json").is_file() or cached_snapshot(folder):
        kind = "an adapter (LoRA)" if is_adapter else "a checkpoint"
        raise SourceError(f"{folder} is {kind}, not a GGUF; `sprig quantize {shlex.quote(str(folder))}` makes one of it")
    raise SourceError(f"there is no model in the folder {folder}: it holds no GGUF and no checkpoint")


def _demo() -> Path:
    bundled = demo_model()
    if bundled is None:
        raise SourceError(f"the demo model is not installed; `{HOW_TO_GET}` brings it")
    return bundled


def _is_made_of(model: StoredModel, reference: HubReference) -> bool:
    from agent.models.file import read_model

    try:
        file = read_model(model.path)
    except SprigError:
        return False
    if file.source.casefold() != reference.repo_id.casefold():
        return False
    if reference.revision not in (None, "main", file.commit):
        return False
    wanted = (reference.selector or "").casefold()
    return not wanted or wanted in (file.recipe.casefold(), file.type.casefold(), model.path.name.casefold())


def _one(text: str, found: Sequence[Path]) -> Path | None:
    """The one that was found, or None. SourceError where several were."""
    if len(found) > 1:
        raise SourceError(f"{text!r} may mean {_listed([p.name.removesuffix('.gguf') for p in found])}; name one of them")
    return found[0] if found else None


def _absent(message: str) -> NoReturn:
    raise SourceError(message)


def _not_here(reference: HubReference, stored: Sequence[StoredModel]) -> str:
    repo = reference.repo_id
    behind = f":{reference.selector}" if reference.selector else ""
    short = repo.partition("/")[2]
    ways = f"`sprig pull {repo}{behind}` brings it"
    if "gguf" not in short.casefold():
        ways = (
            f"`sprig quantize {repo}` makes a GGUF of it, `sprig pull {repo}-GGUF{behind}` brings a ready one where there is one"
        )
    return f"there is no model of {repo} on this machine{_like(short, stored)}; {ways}"


def _not_found(text: str, stored: Sequence[StoredModel]) -> str:
    shown = repr(text if len(text) <= 200 else f"{text[:200]}...")
    places = f"no file, no name in {models()}{_like(text, stored)}, and no name of the Hub such as org/name"
    return f"there is no model {shown}: {places}; `sprig models` lists what is there"


def _like(text: str, stored: Sequence[StoredModel]) -> str:
    key = text.casefold().removesuffix(".gguf").removesuffix("-gguf")
    names = [m.name for m in stored]
    like = [n for n in names if n.casefold().startswith(key)] or all_near(key, [*names, DEMO])
    return f" (there is {_listed(like)})" if like else ""


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:_NAMED], f"{len(names) - _NAMED} more"] if len(names) > _NAMED else list(names)
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
