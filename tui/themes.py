"""The themes of ``sprig chat``: a dark and a light one, one of high contrast, and one of the terminal's own sixteen colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from textual.theme import BUILTIN_THEMES, Theme

if TYPE_CHECKING:
    from textual.app import App

_HUES = ("primary", "secondary", "accent", "warning", "error", "success")
_ON_HUES = ("block-cursor-foreground", "button-color-foreground", "link-color-hover")  # what is written on a hue


def _theme(
    name: str,
    variables: Mapping[str, str],
    *,
    hues: str,
    muted: str,
    grounds: str,
    foreground: str,
    selection: str,
    lines: str,
    **options: Any,
) -> Theme:
    """A theme out of few colours, with a space between them.

    Args:
        variables: of this theme alone; they win.
        hues: primary, which is the one of success too, secondary, accent, warning, error.
        muted: the grounds below text in each of the hues.
        grounds: background, surface, panel.
        selection: the ground and the ink of what is selected.
        lines: of blurred borders and scrollbars; the same under the mouse; the ground of scrollbars.
        options: as ``Theme`` takes them.
    """
    colours, below = ((*(each := several.split()), each[0]) for several in (hues, muted))
    selected, ink = selection.split()
    line, hovered, behind = lines.split()
    shared = {
        **{f"{hue}-muted": ground for hue, ground in zip(_HUES, below, strict=True)},
        **{f"{what}-selection-background": selected for what in ("input", "screen")},
        **{f"{what}-selection-foreground": ink for what in ("input", "screen")},
        "border": colours[0],
        "link-color": colours[1],
        "footer-key-foreground": colours[2],
        "border-blurred": line,
        "scrollbar": line,
        "scrollbar-hover": hovered,
        "scrollbar-background": behind,
    }
    options |= zip(_HUES, colours, strict=True)
    options |= zip(("background", "surface", "panel"), grounds.split(), strict=True)
    return Theme(name, foreground=foreground, variables={**shared, **variables}, **options)


# Leaves in the evening: a quiet ground, one green, and a warm second colour for what asks for attention.
_DARK = _theme(
    "sprig",
    {
        **dict.fromkeys(_ON_HUES, "#0d120e"),
        "text": "auto 92%",
        "text-muted": "auto 70%",
        "text-disabled": "auto 52%",
        "foreground-muted": "#dfe5dcb8",
        "foreground-disabled": "#dfe5dc80",
        "block-cursor-background": "#7fc97a",
        "block-cursor-blurred-background": "#2c3a2e",
        "footer-background": "#191e1a",
    },
    hues="#7fc97a #8fb6c9 #e0b872 #e6b455 #ee8277",
    muted="#1f3222 #1d2c33 #352c18 #352c18 #3a201d",
    grounds="#111512 #191e1a #222924",
    foreground="#dfe5dc",
    selection="#3d6a43 #f2f6f0",
    lines="#3c473e #56645a #151a16",
)
# The same by day, on paper rather than on a lamp. Its grounds are such that the nearest of 256 colours are pale greys, and pale
# green, blue and cream below the hues: where a terminal has no more, its words stay legible.
_LIGHT = _theme(
    "sprig-light",
    {
        **dict.fromkeys(_ON_HUES, "#ffffff"),
        "text": "auto 92%",
        "text-muted": "auto 80%",
        "text-disabled": "auto 58%",
        "foreground-muted": "#1d231ec0",
        "foreground-disabled": "#1d231e90",
        "block-cursor-background": "#2c6e34",
        "block-cursor-blurred-background": "#d6edd2",
        "block-hover-background": "#e6e9e3",
        "footer-background": "#e6e9e3",
    },
    hues="#2c6e34 #28607a #86520c #86520c #ad2a22",
    muted="#dcedd8 #dcedf2 #f5eed3 #f5eed3 #f7dcd7",
    grounds="#f8f9f4 #f0f2ee #e6e9e3",
    foreground="#1d231e",
    selection="#bfe0bd #1d231e",
    lines="#b9c2b4 #9aa695 #eceee6",
    dark=False,
)
# For tired or weak eyes: every text at least 7 to 1 on every ground it may stand on (WCAG 2.2, 1.4.6). The grounds hardly
# differ, so borders do what shades do elsewhere. Signal colours are so light that black is what is written on them.
_SIGNALS = "#7dff8a #9fe3ff #ffe04a #ffd23f #ffb0a8"
_CONTRAST = _theme(
    "sprig-contrast",
    {
        **{f"text-{hue}": colour for hue, colour in zip(_HUES, [*_SIGNALS.split(), "#7dff8a"], strict=True)},
        **dict.fromkeys((*_ON_HUES, "input-cursor-foreground"), "#000000"),
        **dict.fromkeys(("block-cursor-blurred-foreground", "input-cursor-background", "button-foreground"), "#ffffff"),
        **dict.fromkeys(("block-cursor-blurred-background", "block-hover-background"), "#2a2a2a"),
        **dict.fromkeys(("border", "block-cursor-background", "scrollbar-active"), "#ffe04a"),
        "text": "auto 100%",
        "text-muted": "auto 88%",
        "text-disabled": "auto 76%",
        "foreground-muted": "#e4e4e4",
        "foreground-disabled": "#c4c4c4",
        "surface-active": "#1c1c1c",
        "block-cursor-blurred-text-style": "bold",
        "link-background-hover": "#9fe3ff",
        "footer-background": "#141414",
    },
    hues=_SIGNALS,
    muted="#0c2b10 #0b2632 #2c2600 #2c2300 #331210",
    grounds="#000000 #000000 #141414",
    foreground="#ffffff",
    selection="#9fe3ff #000000",
    lines="#a8a8a8 #d0d0d0 #000000",
    luminosity_spread=0.08,
    boost="#ffffff0c",
)
# What the terminal's owner has chosen for 0 to 15, and its default ink on its default paper: so it is dark where they are.
# Textual leaves its own ansi themes without foreground-disabled and surface-active, which a style sheet may name.
_PAPER = "ansi_default"
_SIXTEEN = _theme(
    "sprig-16",
    {
        **dict.fromkeys(("ansi-background", "ansi-foreground", "surface-active", "block-cursor-background"), _PAPER),
        **dict.fromkeys(("scrollbar-background-hover", "scrollbar-background-active"), _PAPER),
        **dict.fromkeys(("text-disabled", "foreground-disabled"), "ansi_bright_black"),
        **dict.fromkeys(("block-cursor-foreground", "block-cursor-blurred-foreground", "scrollbar-active"), "ansi_green"),
        **dict.fromkeys(("markdown-h1-color", "markdown-h2-color", "markdown-h3-color"), "ansi_green"),
        "markdown-h4-color": "ansi_cyan",
        # Reversed, so that it is also there without colours.
        "block-cursor-text-style": "bold reverse",
        "block-cursor-blurred-text-style": "bold",
        "link-background-hover": "ansi_cyan",
        "link-color-hover": "ansi_black",
    },
    hues="ansi_green ansi_cyan ansi_yellow ansi_yellow ansi_red",
    # Textual has no paler red than red: $text-error on $error-muted would be red on red.
    muted=" ".join(5 * [_PAPER]),
    grounds=" ".join(3 * [_PAPER]),
    foreground=_PAPER,
    selection="ansi_cyan ansi_black",
    lines=f"ansi_bright_black ansi_green {_PAPER}",
    ansi=True,
    boost=_PAPER,
)
_OWN = (_DARK, _LIGHT, _CONTRAST, _SIXTEEN)


def register(app: App[Any]) -> None:
    """Make the themes known to an app; it shows ``app.theme``, as ever."""
    for theme in _OWN:
        app.register_theme(theme)


def names() -> tuple[str, ...]:
    """Every theme there is: ours, then Textual's own."""
    return (*(theme.name for theme in _OWN), *sorted(BUILTIN_THEMES))
