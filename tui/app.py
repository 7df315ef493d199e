"""The application: settings, the talk with the agent, and the chat."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from textual.actions import SkipAction
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.events import DescendantFocus, Event, Key, Paste
from textual.screen import Screen

from agent.errors import SprigError
from agent.home import home
from tui import themes
from tui.commands.table import COMMANDS, run_command
from tui.screens.chat import ChatScreen, NotesArrived
from tui.settings.values import ChatSettings, chat_settings
from tui.talk.inbox import FAST, SLOW, Inbox
from tui.talk.setup import Setup
from tui.terminal.typed_ahead import NOTHING, TypedAhead
from tui.terminal.waiting_keys import WaitingKeys, keys_of

if TYPE_CHECKING:
    from agent.approval.policy import Rule
    from agent.engine.handle import Engine
    from agent.sessions.store import Store
    from tui.prompt.suggest import KnownCommand
    from tui.screens.picker import Picked
    from tui.status.monitor import Monitor
    from tui.talk.talk import Talk
    from tui.voice.key import VoiceKey

_STYLES: list[PurePath] = sorted(Path(__file__).parent.rglob("*.tcss"))
# Parsing styles is a third of a start, so those that the first paint does not need are read after it.
_FIRST = {"chat", "conversation", "prompt", "status_line", "suggestions", "welcome"}


class SprigApp(App[None]):
    """What `sprig chat` runs on the screen.

    Attributes:
        settings: of the person, from the file; ``settings_path`` is where it is.
        root: the folder of file tools and of ``@file``.
        talk: the conversation with the agent.
        begun: whether the first paint is over, and the talk has its task.
    """

    CSS_PATH = [p for p in _STYLES if p.stem in _FIRST]  # noqa: RUF012
    TITLE = "Sprig"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-normal"), (100, "-wide")]  # noqa: RUF012  (as Textual has it)
    VERTICAL_BREAKPOINTS = [(0, "-short"), (20, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "interrupt", "Stop or quit", id="app.interrupt", show=False, priority=True),
        Binding("ctrl+q", "quit", "Quit", id="app.quit", show=False, priority=True),
        Binding("ctrl+z", "suspend", "Back to the shell; fg returns", id="app.suspend", show=False, priority=True),
        Binding("ctrl+p", "command_palette", "Commands", id="app.palette", priority=True),
    ]
    ENABLE_COMMAND_PALETTE = True

    def __init__(
        self,
        settings: ChatSettings,
        setup: Setup,
        *,
        session: str | None = None,
        message: str = "",
        settings_path: Path | None = None,
        make_engine: Callable[[Setup], Engine] | None = None,
        verbose: bool = False,
        typed: TypedAhead = NOTHING,
    ) -> None:
        """
        Args:
            settings: of the person.
            setup: what the agent is made of; without a model, the person is asked which.
            session: id of one to go on with; None begins a new one.
            message: is sent as soon as the model is there.
            settings_path: where changes are kept; by default ``settings.toml`` in SPRIG_HOME.
            make_engine: loads a model; by default as the setup says.
            verbose: show where a fault came from.
            typed: before the first frame, and how the terminal was then.
        """
        # NO_COLOR: with Textual's own filter greys would still be written; so only attributes are (https://no-color.org).
        super().__init__(ansi_color=True if os.environ.get("NO_COLOR") else None)
        self.settings, self.root, self.verbose = settings, setup.root, verbose
        self.settings_path = settings_path or home() / "settings.toml"
        self._first, self._session, self._message = setup, session, message
        self._store: Store | None = None
        self._store_lock = threading.Lock()
        self._monitor: Monitor | None = None
        self._voice: VoiceKey | None = None
        self._make_engine = make_engine
        self._typed, self._keys = typed, WaitingKeys()
        self._unasked: Screen[Any] | None = None  # the question which model, where Sprig begins with it
        self.chat = ChatScreen(self)
        themes.register(self)
        self.theme = settings.screen.theme
        if settings.screen.reduced_motion or settings.screen.line_mode:
            self.animation_level = "none"
        self.set_keymap(dict(settings.keys))
        self.begun = self._away = False
        self._colours = self.get_css_variables()
        self.stylesheet.set_variables(self._colours)

    def _print_error_renderables(self) -> None:
        """A fault of ours ends the app. Its cause is one line; the traceback comes with ``verbose`` only."""
        if self.verbose:
            super()._print_error_renderables()
        self._exit_renderables.clear()

    @property
    def fault(self) -> Exception | None:
        """What ended the app, when it did not end by itself."""
        return self._exception

    @property
    def kept(self) -> str:
        """Id of the conversation that can be gone on with, be it in mid-answer; "" when nothing was said."""
        return self.chat.session or (self.talk.session if self.chat.busy else "")

    def get_default_screen(self) -> Screen[Any]:
        return self.chat

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        if self.animation_level == "none" and hasattr(event.widget, "cursor_blink"):
            event.widget.cursor_blink = False

    async def on_event(self, event: Event) -> None:
        if isinstance(event, Key | Paste) and not event.is_forwarded and (not self.begun or self._keys.must_wait(self.screen)):
            self._hold_keys(event)
            return
        if isinstance(event, Key | Paste) and self.screen is self.chat:
            self.chat.lead_to_prompt(event)
        await super().on_event(event)

    def _hold_keys(self, *keys: Event) -> None:
        """Until what they are for is there: at the start all of the chat, with its styles."""
        if self._keys.hold(*keys) and self.begun:
            # The focus is given in a task of the app's as well, which comes before this one.
            self.screen.call_after_refresh(self.call_later, self._release_keys, self.screen)

    async def _release_keys(self, screen: Screen[Any]) -> None:
        """To the screen that they waited for; but nobody has asked for the question at the start: they were for the prompt."""
        meant = self.chat if screen is self._unasked else screen
        for key in self._keys.release(screen):
            if meant is self.screen or meant.focused is None:
                await super().on_event(key)
            else:
                meant.focused._forward_event(key)

    def _know_terminal(self) -> None:
        """What was typed before the first frame comes first; and a shell or an editor gets the terminal as it was."""
        self._hold_keys(*keys_of(self._typed.text))
        if self._typed.attributes is not None and hasattr(self._driver, "attrs_before"):
            setattr(self._driver, "attrs_before", self._typed.attributes)  # noqa: B010  (of the drivers of terminals only)

    async def on_mount(self) -> None:
        every = SLOW if self.settings.screen.line_mode else FAST
        self._inbox = Inbox(lambda notes: self.chat.post_message(NotesArrived(notes)), asyncio.get_running_loop(), every=every)
        self._leave_when_told()
        self._go_on_when_told()
        self._know_terminal()
        self.call_after_refresh(self._begin)

    def _leave_when_told(self) -> None:
        """Ended by the system or by a closed terminal, it leaves as for a person: clean, and with all that was said."""
        if self.is_headless or self.is_web:
            return
        from tui.terminal.hangup import watch

        watch(self._put_all_away)
        for number in (signal.SIGTERM, signal.SIGHUP):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not every system has them
                asyncio.get_running_loop().add_signal_handler(number, self.exit, None, 128 + number)

    def _go_on_when_told(self) -> None:
        """Somebody else may stop it, with ``kill -STOP``: when it goes on, it takes the terminal again, but never twice."""
        if self._driver is not None and self._driver.can_suspend:
            loop = asyncio.get_running_loop()
            signal.signal(signal.SIGCONT, lambda *_: None if self._away else loop.call_soon_threadsafe(self._go_on))

    def _go_on(self) -> None:
        from tui.terminal.job import in_foreground, stop

        if not in_foreground():
            stop()
        with self.suspend():
            pass

    def _put_all_away(self) -> None:
        """End the talk and close the store, from any thread."""
        if "talk" in self.__dict__:
            self.talk.close()
        with self._store_lock:
            if self._store is not None:
                self._store.close()

    def refresh_css(self, animate: bool = True) -> None:
        """Parse all styles again, because colours have changed. The theme is set before the start: then they have not."""
        if self.begun or self.get_css_variables() != self._colours:
            super().refresh_css(animate)

    def _begin(self) -> None:
        """After the first paint: the other styles; then the model, or the question which."""
        self.stylesheet.read_all([p for p in _STYLES if p.stem not in _FIRST])
        self.stylesheet.parse()
        self.begun = True
        if not gc.isenabled():  # the command has switched it off for the start; what is there now stays
            gc.freeze()
            gc.enable()
        self.chat.setup = self._first
        if self._session is not None:
            self.talk.load(self._session)
        if self._first.model:
            self.talk.open(self._first)
            if self._message:
                self.call_later(self.chat.send, self._message)
        else:
            self.action_pick_model(first=True)
        self.call_later(self._release_keys, self.chat)
        from tui.status.monitor import REDUCED, USUAL, Monitor

        screen = self.settings.screen
        self._monitor = Monitor(self._tell, every=REDUCED if screen.reduced_motion or screen.line_mode else USUAL)
        self._monitor.start()
        self._check_keys()

    def _check_keys(self) -> None:
        """Warn about keys of the settings whose action does not exist: pressing them would do nothing."""
        if not self.settings.keys:
            return
        from tui.actions import action_ids

        for wrong in sorted(set(self.settings.keys) - action_ids()):
            self.chat.tell(f"{self.settings_path.name}: there is no action {wrong!r} for a key; F1 lists them.", kind="warning")

    @cached_property
    def talk(self) -> Talk:
        """The conversation with the agent. Its thread begins when it is first used: after the first paint."""
        from tui.talk.talk import Talk

        return Talk(self._tell, self.store, self._make_engine)

    def _tell(self, note: Any) -> None:
        self._inbox.put(note)

    def store(self) -> Store:
        """The sessions, opened when they are first used, from any thread. Raises SessionError if they cannot be opened."""
        with self._store_lock:
            if self._store is None:
                from agent.sessions.store import Store

                self._store = Store.or_unkept(lambda why: self.call_later(self.chat.tell, why, kind="warning"))
            return self._store

    # What the chat wants of it: see ``Sprig`` in tui/screens/chat_view.py.

    @property
    def commands(self) -> list[KnownCommand]:
        """What can be said with a slash: name, about, hint."""
        return [(command.name, command.about, command.hint) for command in COMMANDS]

    async def run_command(self, text: str) -> None:
        """Carry out ``/name arguments`` in the chat."""
        await run_command(self.chat, text)

    def remember(self, **what: str) -> None:
        """The ``model`` that was opened, or the ``session`` that was kept, is offered again next time."""
        from agent.models.last_used import remember

        self.run_worker(lambda: remember(**what), thread=True, exit_on_error=False)

    def keep_rule(self, rule: Rule) -> None:
        """Write an approval rule into the settings file, beside this chat."""
        self._change_file(lambda path: chat_settings(path).add_rule(rule))
        self.settings = replace(self.settings, rules=(*self.settings.rules, rule))

    def keep(self, key: str, value: Any) -> None:
        """Write a setting into the file."""
        self._change_file(lambda path: chat_settings(path).change(key, value))

    def apply(self, settings: ChatSettings) -> tuple[list[str], list[str]]:
        """Let changed settings hold. Returns their keys: those that do so now, and those that do from the next start on."""
        from tui.settings.apply import differences, with_settings

        before, self.settings = self.settings, settings
        self.theme = settings.screen.theme
        self.animation_level = "none" if settings.screen.reduced_motion or settings.screen.line_mode else "full"
        self.set_keymap(dict(settings.keys))
        self.chat.conversation.fold_after = settings.screen.fold_results
        now = replace(self.chat.setup, rules=self.talk.rules)
        setup = with_settings(now, before, settings)
        if setup != now:
            self.talk.set_rules(setup.rules)
            self.chat.change(setup)
        return differences(before, settings)

    def _change_file(self, write: Callable[[Path], object]) -> None:
        def work() -> None:
            try:
                write(self.settings_path)
            except SprigError as e:
                self.call_from_thread(self.chat.tell, f"This holds until you leave, but was not written: {e}", kind="warning")

        self.run_worker(work, thread=True, exit_on_error=False)

    def action_pick_model(self, *, first: bool = False) -> None:
        """Let the person choose a model; at the start, also the last conversation."""
        from tui.screens.picker import PickerScreen

        async def picked(choice: Picked | None) -> None:
            if choice is None:
                if first and self.chat.facts is None:
                    self.chat.tell("No model is loaded yet: ctrl+l chooses one.")
                return
            if choice.session:
                self.talk.load(choice.session)
            self.chat.change(self.chat.setup.on(choice.model))
            if self.chat.busy:
                self.chat.tell("The model is changed after this answer.")

        picker = PickerScreen(self.store if first else None, self._session)
        if first:
            self._unasked = picker
        self.push_screen(picker, picked)

    def action_voice(self) -> None:
        """The key for speaking was pressed."""
        if self._voice is None:
            from tui.voice.key import ChatVoice, VoiceKey

            self._voice = VoiceKey(ChatVoice(self.chat))
        self._voice.press()

    def settle_voice(self) -> None:
        """A message is on its way: what is heard after it belongs to the next one."""
        if self._voice is not None:
            self._voice.settle()

    # Keys of everywhere.

    async def action_interrupt(self) -> None:
        """Ctrl+C: stop what goes on; with nothing to stop, leave when it is pressed twice."""
        if self.chat.busy:
            self.chat.action_leave()
            return
        now = asyncio.get_running_loop().time()
        if now - getattr(self, "_interrupted", -9.0) < 2:
            self.exit()
        else:
            self._interrupted = now
            self.chat.tell("Press Ctrl+C again to leave; the conversation is kept.")

    def action_suspend(self) -> None:
        """Ctrl+Z: give the terminal back to the shell, as long as it likes; all that belongs to this job stops with it."""
        from tui.terminal.job import can_stop, stop

        if self._driver is None or not self._driver.can_suspend:
            raise SkipAction  # in a browser, and inline
        if can_stop():
            with self.suspend():
                stop()
        else:
            self.chat.tell("There is no shell to go back to: Ctrl+Q leaves, and the conversation is kept.")

    @contextlib.contextmanager
    def suspend(self) -> Iterator[None]:
        """Give the terminal away for a while, to a shell or an editor."""
        self._away = True
        try:
            with super().suspend():
                yield
        finally:
            self._away = False

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        for command in COMMANDS:
            said = f"/{command.name} {command.hint}".strip().replace("[", r"\[")
            yield SystemCommand(command.about, said, partial(self.call_later, self.run_command, f"/{command.name}"))

    async def on_unmount(self) -> None:
        if self._monitor is not None:
            self._monitor.stop()
        if self._voice is not None:
            self._voice.close()
        self._inbox.close()
        await asyncio.to_thread(self._put_all_away)
