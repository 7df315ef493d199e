"""What a shell may offer for an option or an argument: names of what is here. Nothing is loaded, made or measured for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from agent.errors import SprigError
from agent.home import home

Names = Callable[[str], Iterable[str]]


def _quiet(names: Callable[[], Iterator[str]]) -> Names:
    """While somebody types a command, no error has a place to be said."""

    def found(incomplete: str) -> list[str]:
        there: list[str] = []
        with contextlib.suppress(SprigError, OSError, ValueError):
            there.extend(name for name in names() if name.startswith(incomplete) and name.isprintable())
        return there

    found.__doc__ = names.__doc__  # not functools.wraps: typer reads the parameters of what is wrapped
    return found


@_quiet
def stored_names() -> Iterator[str]:
    """The models of the store, unfinished ones too."""
    from agent.models.store import stored_models

    yield from (model.name for model in stored_models())


@_quiet
def model_names() -> Iterator[str]:
    """The models of the store, and demo."""
    yield from stored_names("")
    yield "demo"


@_quiet
def session_ids() -> Iterator[str]:
    """The kept conversations, the last one first."""
    if (home() / "sessions.db").is_file():  # else it would be made
        from agent.sessions.store import Store

        with Store() as store:
            yield from (info.id for info in store.sessions(limit=200))


@_quiet
def sessions_to_go_on_with() -> Iterator[str]:
    """What ``--session`` takes."""
    yield from ("last", "new")
    yield from session_ids("")


@_quiet
def tool_names() -> Iterator[str]:
    """The built-in tools."""
    from agent.tools.builtin.catalogue import BUILTIN_NAMES

    yield from BUILTIN_NAMES


@_quiet
def device_names() -> Iterator[str]:
    """The devices that `sprig fit` knows."""
    from agent.fit.profile import DeviceProfile, list_profiles

    yield from (profile.name for profile in list_profiles() if isinstance(profile, DeviceProfile))
