"""Ministral 8B as transformers 5 spells it: Mistral that lists which layers have a window."""

from __future__ import annotations

from pipeline.architectures.mistral import Mistral
from pipeline.architectures.shared.decoder import WINDOW_KINDS, sizes


class Ministral(Mistral):
    defaults = sizes(4096, 14336, 32, 32, 8, 131072, sliding_window=4096)

    @property
    def window(self) -> int | None:
        kinds = self.layers_of("layer_types", WINDOW_KINDS, lambda i: WINDOW_KINDS[0])
        return super().window if "sliding_attention" in kinds else None
