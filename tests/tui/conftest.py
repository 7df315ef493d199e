"""Style sheets are parsed once for all apps of the tests: with the same colours they come to the same rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from textual.css.stylesheet import Stylesheet


@pytest.fixture(scope="session", autouse=True)
def _kept_rules() -> Iterator[None]:
    parse, kept = Stylesheet._parse_rules, dict[Any, Any]()

    def once(self: Stylesheet, *source: Any, **options: Any) -> Any:
        key = (frozenset(self._variables.items()), source, frozenset(options.items()))
        if key not in kept:
            kept[key] = parse(self, *source, **options)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stylesheet, "_parse_rules", once)
        yield
