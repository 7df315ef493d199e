"""A child of ``pipeline.forward.process`` that tries what it must not; it runs in place of the modules of the wings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.forward.child import Forward, main
from tests.fixtures.trespass import went_through


class Trespasser(Forward):
    ops = (*Forward.ops, "trespass", "use")

    def trespass(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return {"through": went_through(message["model"], message["folder"], message["secret"])}

    def use(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """What it was given it can use."""
        Path(message["written"]).write_text(Path(message["read"]).read_text())
        return {}


if __name__ == "__main__":
    main(Trespasser)
