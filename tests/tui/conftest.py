"""What the tests of the screen share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from textual.app import App

from tests.fixtures.kept_styles import keep_styles
from tui.screens.sized import SizedScreen


@pytest.fixture(scope="session", autouse=True)
def _kept_styles() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        keep_styles(patch)
        # Small applications of a test stand on a screen of Sprig's as well: Textual's own paints four times when it comes.
        patch.setattr(App, "get_default_screen", lambda app: SizedScreen(id="_default"))
        yield
