"""The themes of ``sprig chat``: a dark and a light one, one of high contrast, and one of the terminal's own sixteen colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.theme import BUILTIN_THEMES, Theme

if TYPE_CHECKING:
    from textual.app import App

# Leaves in the evening: a quiet ground, one green, and a warm second colour for what asks for attention.
_DARK = Theme(
    name="sprig",
    primary="#7fc97a",
    secondary="#8fb6c9",
    accent="#e0b872",
    warning="#e6b455",
    error="#ee8277",
    success="#7fc97a",
    foreground="#dfe5dc",
    background="#111512",
    surface="#191e1a",
    panel="#222924",
    variables={
        "text": "auto 92%",
        "text-muted": "auto 70%",
        "text-disabled": "auto 52%",
        "foreground-muted": "#dfe5dcb8",
        "foreground-disabled": "#dfe5dc80",
        "primary-muted": "#1f3222",
        "secondary-muted": "#1d2c33",
        "accent-muted": "#352c18",
        "warning-muted": "#352c18",
        "error-muted": "#3a201d",
        "success-muted": "#1f3222",
        "border": "#7fc97a",
        "border-blurred": "#3c473e",
        "block-cursor-foreground": "#0d120e",
        "block-cursor-background": "#7fc97a",
        "block-cursor-blurred-background": "#2c3a2e",
        "input-selection-background": "#3d6a43",
        "input-selection-foreground": "#f2f6f0",
        "screen-selection-background": "#3d6a43",
        "screen-selection-foreground": "#f2f6f0",
        "button-color-foreground": "#0d120e",
        "link-color": "#8fb6c9",
        "link-color-hover": "#0d120e",
        "footer-key-foreground": "#e0b872",
        "footer-background": "#191e1a",
        "scrollbar": "#3c473e",
        "scrollbar-hover": "#56645a",
        "scrollbar-background": "#151a16",
    },
)

# The same by day, on paper rather than on a lamp.
_LIGHT = Theme(
    name="sprig-light",
    dark=False,
    primary="#2c6e34",
    secondary="#28607a",
    accent="#86520c",
    warning="#86520c",
    error="#ad2a22",
    success="#2c6e34",
    foreground="#1d231e",
    background="#f8f9f4",
    surface="#f0f2ea",
    panel="#e5e9de",
    variables={
        "text": "auto 92%",
        "text-muted": "auto 80%",
        "text-disabled": "auto 58%",
        "foreground-muted": "#1d231ec0",
        "foreground-disabled": "#1d231e90",
        "primary-muted": "#dcebd8",
        "secondary-muted": "#d8e6ec",
        "accent-muted": "#f3e6cb",
        "warning-muted": "#f3e6cb",
        "error-muted": "#f7dcd7",
        "success-muted": "#dcebd8",
        "border": "#2c6e34",
        "border-blurred": "#b9c2b4",
        "block-cursor-foreground": "#ffffff",
        "block-cursor-background": "#2c6e34",
        "block-cursor-blurred-background": "#d3e3d0",
        "input-selection-background": "#bfe0bd",
        "input-selection-foreground": "#1d231e",
        "screen-selection-background": "#bfe0bd",
        "screen-selection-foreground": "#1d231e",
        "button-color-foreground": "#ffffff",
        "link-color": "#28607a",
        "link-color-hover": "#ffffff",
        "footer-key-foreground": "#86520c",
        "footer-background": "#e5e9de",
        "scrollbar": "#b9c2b4",
        "scrollbar-hover": "#9aa695",
        "scrollbar-background": "#eceee6",
    },
)

# For tired or weak eyes: every text at least 7 to 1 on every ground it may stand on (WCAG 2.2, 1.4.6). The grounds hardly
# differ, so borders do what shades do elsewhere. Signal colours are so light that black is what is written on them.
_CONTRAST = Theme(
    name="sprig-contrast",
    primary="#7dff8a",
    secondary="#9fe3ff",
    accent="#ffe04a",
    warning="#ffd23f",
    error="#ffb0a8",
    success="#7dff8a",
    foreground="#ffffff",
    luminosity_spread=0.08,
    background="#000000",
    surface="#000000",
    panel="#141414",
    boost="#ffffff0c",
    variables={
        "text": "auto 100%",
        "text-muted": "auto 88%",
        "text-disabled": "auto 76%",
        "text-primary": "#7dff8a",
        "text-secondary": "#9fe3ff",
        "text-accent": "#ffe04a",
        "text-warning": "#ffd23f",
        "text-error": "#ffb0a8",
        "text-success": "#7dff8a",
        "foreground-muted": "#e4e4e4",
        "foreground-disabled": "#c4c4c4",
        "primary-muted": "#0c2b10",
        "secondary-muted": "#0b2632",
        "accent-muted": "#2c2600",
        "warning-muted": "#2c2300",
        "error-muted": "#331210",
        "success-muted": "#0c2b10",
        "surface-active": "#1c1c1c",
        "border": "#ffe04a",
        "border-blurred": "#a8a8a8",
        "block-cursor-foreground": "#000000",
        "block-cursor-background": "#ffe04a",
        "block-cursor-blurred-foreground": "#ffffff",
        "block-cursor-blurred-background": "#2a2a2a",
        "block-cursor-blurred-text-style": "bold",
        "block-hover-background": "#2a2a2a",
        "input-cursor-background": "#ffffff",
        "input-cursor-foreground": "#000000",
        "input-selection-background": "#9fe3ff",
        "input-selection-foreground": "#000000",
        "screen-selection-background": "#9fe3ff",
        "screen-selection-foreground": "#000000",
        "button-foreground": "#ffffff",
        "button-color-foreground": "#000000",
        "link-color": "#9fe3ff",
        "link-background-hover": "#9fe3ff",
        "link-color-hover": "#000000",
        "footer-background": "#141414",
        "footer-key-foreground": "#ffe04a",
        "scrollbar": "#a8a8a8",
        "scrollbar-hover": "#d0d0d0",
        "scrollbar-active": "#ffe04a",
        "scrollbar-background": "#000000",
    },
)

# What the terminal's owner has chosen for 0 to 15, and its default ink on its default paper: so it is dark where they are.
# Textual leaves its own ansi themes without foreground-disabled and surface-active, which a style sheet may name.
_SIXTEEN = Theme(
    name="sprig-16",
    ansi=True,
    primary="ansi_green",
    secondary="ansi_cyan",
    accent="ansi_yellow",
    warning="ansi_yellow",
    error="ansi_red",
    success="ansi_green",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    variables={
        "ansi-background": "ansi_default",
        "ansi-foreground": "ansi_default",
        "text-disabled": "ansi_bright_black",
        "foreground-disabled": "ansi_bright_black",
        # Textual has no paler red than red: $text-error on $error-muted would be red on red.
        "primary-muted": "ansi_default",
        "secondary-muted": "ansi_default",
        "accent-muted": "ansi_default",
        "warning-muted": "ansi_default",
        "error-muted": "ansi_default",
        "success-muted": "ansi_default",
        "surface-active": "ansi_default",
        "border": "ansi_green",
        "border-blurred": "ansi_bright_black",
        # Reversed, so that it is also there without colours.
        "block-cursor-foreground": "ansi_green",
        "block-cursor-background": "ansi_default",
        "block-cursor-text-style": "bold reverse",
        "block-cursor-blurred-foreground": "ansi_green",
        "block-cursor-blurred-text-style": "bold",
        "input-selection-background": "ansi_cyan",
        "input-selection-foreground": "ansi_black",
        "screen-selection-background": "ansi_cyan",
        "screen-selection-foreground": "ansi_black",
        "scrollbar": "ansi_bright_black",
        "scrollbar-hover": "ansi_green",
        "scrollbar-active": "ansi_green",
        "scrollbar-background": "ansi_default",
        "scrollbar-background-hover": "ansi_default",
        "scrollbar-background-active": "ansi_default",
        "footer-key-foreground": "ansi_yellow",
        "link-color": "ansi_cyan",
        "link-background-hover": "ansi_cyan",
        "link-color-hover": "ansi_black",
        "markdown-h1-color": "ansi_green",
        "markdown-h2-color": "ansi_green",
        "markdown-h3-color": "ansi_green",
        "markdown-h4-color": "ansi_cyan",
    },
)
_OWN = (_DARK, _LIGHT, _CONTRAST, _SIXTEEN)


def register(app: App[Any]) -> None:
    """Make the themes known to an app; it shows ``app.theme``, as ever."""
    for theme in _OWN:
        app.register_theme(theme)


def names() -> tuple[str, ...]:
    """Every theme there is: ours, then Textual's own."""
    return (*(theme.name for theme in _OWN), *sorted(BUILTIN_THEMES))
