"""What is painted of a few changed rows is what Textual itself would paint there."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual._compositor import Compositor
from textual.geometry import Region

from tests.fixtures.screens import answered, chatting, say, settle
from tui.terminal.compositor import RowCompositor


@pytest.mark.parametrize("size", [(40, 15), (100, 30)])
async def test_changed_rows_look_as_in_textuals_own_painting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path))
    text = "Some **words**\n\n- one\n- two\n\n```python\nprint(1)\n```\n" * 4
    async with chatting([text], size=size) as (app, pilot):
        await say(pilot, "Hello")
        await answered(pilot)
        await settle(pilot)
        mine = app.chat._compositor
        assert isinstance(mine, RowCompositor)
        for y in range(size[1]):
            for height in (1, 4):
                rows = set(range(y, min(y + height, size[1])))
                crop = Region(3, y, 5, len(rows))
                painted = mine._render_chops(crop, rows.__contains__)
                with monkeypatch.context() as patch:
                    patch.setattr(RowCompositor, "_get_renders", Compositor._get_renders)
                    expected = mine._render_chops(crop, rows.__contains__)
                assert [[list(s) for s in painted[row].values()] for row in rows] == [
                    [list(s) for s in expected[row].values()] for row in rows
                ]
