"""The child process of an evaluation: what ``pipeline.forward.child`` does, and how long tokens are as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.forward.child import Forward, main


class ScoredModel(Forward):
    ops = (*Forward.ops, "lengths")

    def lengths(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Bytes of each token."""
        return {"bytes": [len(self.model.piece(token)) for token in message["ids"]]}


if __name__ == "__main__":
    main(ScoredModel)
