"""A model on its way from the Hub: which of its files, then how far it is. Esc stops it, and the next time it goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from textual import on
from textual.content import Content
from textual.widget import Widget
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from agent.errors import SprigError
from agent.files import human_size
from agent.models.pull import pull
from agent.models.reference import HubReference
from agent.models.remote import Offer, RemoteModel, Repository, open_repository
from agent.progress import Progress
from agent.text import display
from agent.text.duration import told_time
from tui.screens.dialog import BACK, Dialog, KeyHint

_SECONDS_BETWEEN_STEPS = 0.2
_BAR = 20  # columns


class _Stopped(Exception):
    """The person has left; what came until then is kept."""


class PullScreen(Dialog[Path]):
    """Brings a model into the store; its result is the file."""

    KEYS: ClassVar[tuple[KeyHint, ...]] = (("↑↓", "move", ""), ("Enter", "pull", "choose"), BACK)
    _UNDER_WAY: ClassVar[tuple[KeyHint, ...]] = (("Esc", "stop, and go on the next time", "leave"),)

    def __init__(self, reference: HubReference) -> None:
        super().__init__(f"Pull {reference.repo_id}")
        self._reference = reference
        self._repository: Repository | None = None
        self._offers: Sequence[Offer] = ()
        self._stopped = threading.Event()

    def parts(self) -> Iterable[Widget]:
        yield OptionList(markup=False)
        yield Static("looking it up …", id="about", markup=False)

    def on_mount(self) -> None:
        self.query_one(OptionList).display = False
        self.say_keys((BACK,))
        self._in_thread(self._look)

    def _in_thread(self, work: Callable[..., None], *args: Any) -> None:
        """Run it in a thread that does not outlive the app; an error of Sprig is shown."""
        app = self.app

        def run() -> None:
            with suppress(_Stopped, RuntimeError):  # RuntimeError: the app has ended
                try:
                    work(lambda call, *said, **how: self._tell(app.call_from_thread, call, *said, **how), *args)
                except SprigError as e:
                    self._tell(app.call_from_thread, self.say, display(str(e)), wrong=True)

        threading.Thread(target=run, name="sprig-pull", daemon=True).start()

    def _tell(self, from_thread: Callable[..., Any], call: Callable[..., Any], *said: Any, **how: Any) -> None:
        if self._stopped.is_set():
            raise _Stopped
        from_thread(call, *said, **how)

    def _look(self, tell: Callable[..., None]) -> None:
        repository = open_repository(self._reference)
        tell(self._show, repository, repository.offers(repository.meant(self._reference.selector)))

    def _show(self, repository: Repository, offers: Sequence[Offer]) -> None:
        self._repository, self._offers = repository, offers
        if len(offers) == 1:
            self._begin(offers[0])
            return
        options = self.query_one(OptionList)
        options.set_options([Option(_row(offer)) for offer in offers])
        options.styles.max_height = self.list_height(10)
        options.highlighted = max((i for i, offer in enumerate(offers) if offer.fits), default=0)
        options.display = True
        options.focus()
        self.say_keys(self.KEYS)

    @on(OptionList.OptionHighlighted)
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        self.say(_about(self._offers[event.option_index]))

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self._begin(self._offers[event.option_index])

    def action_choose(self) -> None:
        self.query_one(OptionList).action_select()

    def _begin(self, offer: Offer) -> None:
        if offer.why:
            self.say(f"{_about(offer)}; `sprig pull` brings it all the same", wrong=True)
            return
        assert self._repository is not None
        self.query_one(OptionList).display = False
        self.say_keys(self._UNDER_WAY)
        self.say(f"{display(offer.model.name)}, {human_size(offer.model.size)}: begins …")
        self._in_thread(self._pull, self._repository, offer.model)

    def _pull(self, tell: Callable[..., None], repository: Repository, model: RemoteModel) -> None:
        began, first, told = time.monotonic(), -1, 0.0

        def show(step: Progress) -> None:
            nonlocal first, told
            first = step.done if first < 0 else first
            now = time.monotonic()
            if now - told >= _SECONDS_BETWEEN_STEPS:
                told = now
                tell(self.say, _progress(model, step, (step.done - first) / max(now - began, 1e-3)))
            elif self._stopped.is_set():
                raise _Stopped

        tell(self.dismiss, pull(repository, model, on_progress=show).path)

    def action_leave(self) -> None:
        self._stopped.set()
        self.dismiss(None)


def _row(offer: Offer) -> Content:
    """A file in two lines, safe to show."""
    mark = {True: "✓ fits · ", False: "✗ too large · " if offer.need else "✗ not usable · ", None: ""}[offer.fits]
    kind = f"{offer.model.type} · " if offer.model.type else ""
    shade = "dim" if offer.fits is False else ""
    return Content("\n").join([
        Content.styled(f"  {display(offer.model.selector)}", shade or "bold"),
        Content.styled(f"  {mark}{kind}{human_size(offer.model.size)}", shade),
    ])  # fmt: skip


def _about(offer: Offer) -> str:
    """What is known of a file in a sentence, safe to show."""
    name = display(offer.model.name)
    if offer.why:
        return f"{name}: {display(offer.why)}"
    if not offer.need:
        return f"{name}: whether it fits cannot be told"
    return f"{name}: takes {human_size(offer.need)} of memory with a context of {offer.context:,} tokens."


def _progress(model: RemoteModel, step: Progress, speed: float) -> str:
    """How far it is, and how long it will take, safe to show."""
    full = _BAR * step.done // max(1, step.total)
    left = f" · {told_time((step.total - step.done) / speed)} left" if speed > 1 else ""
    bar = "━" * full + "─" * (_BAR - full)
    share = step.done / max(1, step.total)
    return f"{display(model.name)}\n{bar} {share:.0%} of {human_size(step.total)} · {human_size(speed)}/s{left}"
