"""The themes: legible on every ground, and the sixteen-colour one keeps to sixteen colours in a real terminal."""

from __future__ import annotations

import os
import pty
import re
import sys
from itertools import product
from pathlib import Path

import pytest
from rich.color import Color as TerminalColor
from rich.color import ColorSystem
from textual.app import App, ComposeResult
from textual.color import Color
from textual.containers import Horizontal, VerticalScroll
from textual.theme import BUILTIN_THEMES, Theme
from textual.widgets import Button, Checkbox, Footer, Header, Input, Label, Markdown, OptionList, ProgressBar, TextArea

from agent.settings.kinds import SettingsError
from tui import themes
from tui.settings.values import OWN_THEMES, ScreenSettings, chat_settings

pytestmark = pytest.mark.slow

parse = chat_settings(Path("settings.toml")).parse

_SHADES = [f"{name}-{way}-{n}" for name in ("background", "surface", "panel") for way in ("lighten", "darken") for n in (1, 2)]
_GROUNDS = (
    "background", "surface", "panel", "boost", "surface-active", "footer-background", "block-hover-background",
    "primary-muted", "secondary-muted", "accent-muted", "warning-muted", "error-muted", "success-muted",
    "block-cursor-blurred-background",
)  # fmt: skip
_INKS = (
    "foreground", "foreground-muted", "text", "text-muted", "text-primary", "text-secondary", "text-accent", "text-warning",
    "text-error", "text-success", "primary", "secondary", "accent", "warning", "error", "success", "link-color",
    "footer-foreground", "footer-key-foreground", "footer-description-foreground", "button-foreground",
    *(f"markdown-h{n}-color" for n in range(1, 7)),
)  # fmt: skip
_FAINT = ("text-disabled", "foreground-disabled")
_PAIRS = (
    *((f"{what}-foreground", f"{what}-background") for what in (
        "block-cursor", "block-cursor-blurred", "input-cursor", "input-selection", "screen-selection",
    )),
    *(("button-color-foreground", ground) for ground in ("primary", "success", "warning", "error")),
    *product(("text", "text-muted"), ("primary", "secondary", "accent", "warning", "error", "success")),
    *product(("text", "text-muted"), ("primary-background", "secondary-background")),
    ("link-color-hover", "link-background-hover"),
)  # fmt: skip


class Gallery(App[None]):
    """Something of everything, in one theme."""

    CSS = """
    Horizontal, OptionList { height: auto; }
    TextArea { height: 4; }
    .panel { background: $panel; }
    """ + "\n".join(f".{name} {{ color: ${name}; }}" for name in (*_INKS, *_FAINT))  # fmt: skip
    CSS += "\n".join(f".on-{name} {{ color: $text-{name}; background: ${name}-muted; }}" for name in ("error", "primary"))

    def __init__(self, theme: str, *, no_color: bool = False, once: bool = False) -> None:
        super().__init__(ansi_color=True if no_color else None)
        themes.register(self)
        self.theme = theme
        self.once = once

    def compose(self) -> ComposeResult:
        yield Header()
        with Horizontal(), VerticalScroll():
            for name in (*_INKS, *_FAINT):
                yield Label(f"text in {name}", classes=name)
            yield Label("on error", classes="on-error")
            yield Label("on primary", classes="on-primary")
            yield Label("on panel", classes="panel")
            with Horizontal():
                yield Button("Plain")
                yield Button("Go", variant="primary")
                yield Button("No", variant="error")
            yield Checkbox("check", True)
            yield OptionList("one", "two")
            yield TextArea("some text")
            yield Input(placeholder="say something")
            yield ProgressBar(total=10)
            yield Markdown("# One\n\nSome *words*, `code`\n\n> said\n\n```python\nprint('x')  # hm\n```\n\n|a|b|\n|-|-|\n|1|2|\n")
        yield Footer()

    def on_mount(self) -> None:
        self.notify("a notice", severity="warning")

    def on_ready(self) -> None:
        if self.once:
            self.query_one(OptionList).focus()
            self.call_after_refresh(self.call_after_refresh, self.exit)


def _variables(name: str) -> dict[str, str]:
    app: App[None] = App()
    themes.register(app)
    app.theme = name
    return app.get_css_variables()


def _colour(text: str, ground: Color) -> Color:
    """As Textual paints it on a ground: "auto" is black or white, whichever is seen better."""
    if text.startswith("auto"):
        over = ground.get_contrast_text(float(text.split()[1].rstrip("%")) / 100)
    else:
        over = Color.parse(text)
    return ground.blend(over, over.a, 1.0)


def _luminance(colour: Color) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in colour.normalized]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: Color, b: Color) -> float:
    """WCAG 2.2, contrast ratio."""
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("theme", "least", "inks", "grounds"),
    [
        ("sprig", 4.5, _INKS, _GROUNDS),
        ("sprig-light", 4.5, _INKS, _GROUNDS),
        ("sprig-contrast", 7, (*_INKS, *_FAINT), (*_GROUNDS, *_SHADES)),
    ],
)
def test_every_text_is_legible_on_every_ground(theme: str, least: float, inks: tuple[str, ...], grounds: tuple[str, ...]) -> None:
    variables = _variables(theme)
    base = Color.parse(variables["background"])
    found = {}
    for ink, on in (*product(inks, grounds), *_PAIRS):
        ground = _colour(variables[on], base)
        found[ink, on] = _contrast(_colour(variables[ink], ground), ground)
    assert {pair: round(ratio, 2) for pair, ratio in found.items() if ratio < least} == {}


def _of_256(colour: Color) -> Color:
    """The nearest that a terminal has which says TERM=xterm-256color and nothing of COLORTERM."""
    return Color(*TerminalColor.from_rgb(colour.r, colour.g, colour.b).downgrade(ColorSystem.EIGHT_BIT).get_truecolor())


@pytest.mark.parametrize(("theme", "least"), [("sprig", 4.5), ("sprig-light", 4.5), ("sprig-contrast", 7)])
def test_every_text_is_legible_where_there_are_256_colours(theme: str, least: float) -> None:
    variables = _variables(theme)
    base = Color.parse(variables["background"])
    plain = [ground for ground in _GROUNDS if not ground.endswith("-muted")]
    cursors = [pair for pair in _PAIRS if not pair[0].startswith("text")]
    hues = [(f"text-{hue}", f"{hue}-muted") for hue in ("primary", "secondary", "accent", "warning", "error", "success")]
    found = {}
    for ink, on in (*product(_INKS, plain), *cursors, *hues):
        ground = _colour(variables[on], base)
        found[ink, on] = _contrast(_of_256(_colour(variables[ink], ground)), _of_256(ground))
    assert {pair: round(ratio, 2) for pair, ratio in found.items() if ratio < least} == {}


def test_the_borders_of_the_contrast_theme_are_seen() -> None:
    variables = _variables("sprig-contrast")
    for line, ground in product(("border", "border-blurred", "scrollbar"), ("background", "surface", "panel")):
        assert _contrast(Color.parse(variables[line]), Color.parse(variables[ground])) >= 3  # WCAG 2.2, 1.4.11


def test_a_style_sheet_may_use_every_variable_in_every_theme() -> None:
    usual = BUILTIN_THEMES["textual-dark"].to_color_system().generate().keys()
    for name in OWN_THEMES:
        assert usual - _variables(name).keys() == set()


def test_no_text_of_the_sixteen_colour_theme_has_the_colour_of_its_ground() -> None:
    variables = _variables("sprig-16")
    for ink, ground in (
        *_PAIRS[:5],
        *((f"text-{name}", f"{name}-muted") for name in ("primary", "secondary", "accent", "warning", "error", "success")),
    ):
        same = Color.parse(variables[ink]).ansi == Color.parse(variables[ground]).ansi
        assert not same or variables[ink.replace("-foreground", "-text-style")] == "reverse", (ink, ground)


def test_the_settings_know_the_themes_and_the_default_is_the_first() -> None:
    assert themes.names()[: len(OWN_THEMES)] == OWN_THEMES
    assert ScreenSettings().theme == OWN_THEMES[0]
    for name in themes.names():
        assert parse(f"screen.theme = '{name}'").screen.theme == name
        assert isinstance(_app_theme(name), Theme)
    with pytest.raises(SettingsError, match='did you mean "sprig-light"'):
        parse("screen.theme = 'sprig-lihgt'")


def _app_theme(name: str) -> Theme | None:
    app: App[None] = App()
    themes.register(app)
    return app.get_theme(name)


async def test_a_theme_can_be_changed_while_it_is_looked_at() -> None:
    app = Gallery("sprig")
    async with app.run_test(size=(80, 50)) as pilot:
        seen = set()
        for name in OWN_THEMES:
            app.theme = name
            await pilot.pause()
            assert app.has_class(f"-theme-{name}")
            seen.add(app.export_screenshot())
        assert len(seen) == len(OWN_THEMES)


def _sgr(theme: str, **environment: str) -> set[str]:
    """Every way in which a program in this theme colours a real terminal: the parameters of its SGR sequences."""
    child, fd = pty.fork()
    if child == 0:
        os.environ.pop("NO_COLOR", None)
        os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LINES": "60", "COLUMNS": "80", **environment}
        arguments = f"{theme!r}, no_color={'NO_COLOR' in environment}, once=True"
        code = f"from tests.tui.test_themes import Gallery; Gallery({arguments}).run()"
        os.execv(sys.executable, [sys.executable, "-c", code])
    out = b""
    try:
        while chunk := os.read(fd, 65536):
            out += chunk
    except OSError:
        pass  # the program has ended
    os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, out.decode(errors="replace")
    assert b"primary" in out
    return {found.decode() for found in re.findall(rb"\x1b\[([0-9;:]*)m", out)}


def test_the_sixteen_colour_theme_sends_a_terminal_no_other_colours() -> None:
    sixteen = {39, 49, *range(30, 38), *range(40, 48), *range(90, 98), *range(100, 108)}
    for sequence in _sgr("sprig-16"):
        assert {int(code) for code in sequence.split(";") if code} <= {*range(10), *sixteen}, sequence
    assert any("38;2;" in sequence for sequence in _sgr("sprig"))  # so it would have been seen


def test_with_no_color_nothing_has_a_colour_and_a_cursor_is_still_seen() -> None:
    sequences = _sgr("sprig-16", NO_COLOR="1")
    for sequence in sequences:
        assert {int(code) for code in sequence.split(";") if code} <= {*range(10), 39, 49}, sequence
    assert any("7" in sequence.split(";") for sequence in sequences)  # reversed


@pytest.mark.parametrize("name", ["sprig", "sprig-light", "sprig-contrast", "nord"])
async def test_quiet_words_of_a_painted_widget_are_seen_on_its_ground(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A colour that is "auto" is chosen for the ground of its own style, which such a part has not: it was white on paper."""
    from tests.fixtures.screens import until
    from tui.app import SprigApp
    from tui.settings.values import ChatSettings
    from tui.talk.setup import Setup
    from tui.widgets.messages.answer_text import AnswerText
    from tui.widgets.messages.diff import DiffView
    from tui.widgets.messages.tool_call import ToolCallView

    monkeypatch.setenv("SPRIG_HOME", str(tmp_path))
    parts = {
        AnswerText("words"): ("answer-text--edge", "answer-text--comment", "answer-text--rule", "answer-text--href"),
        ToolCallView("clock"): ("call--quiet", "call--mark"),
        DiffView("--- a\n+++ b\n@@ -1 +1 @@\n-a\n+b\n"): ("diff--number", "diff--note"),
    }
    app = SprigApp(ChatSettings(screen=ScreenSettings(theme=name, reduced_motion=True)), Setup(model="gone"))
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.begun)
        await app.chat.conversation.mount(*parts)
        await pilot.pause()
        ground = Color.parse(app.get_css_variables()["background"])
        for widget, names in parts.items():
            for part in names:
                style = widget.visual_style + widget.get_visual_style(part, partial=True)
                assert style.background is not None
                assert style.foreground is not None
                seen = ground + style.background
                assert _contrast(seen + style.foreground, seen) >= 3, f"{part} in {name}"
