"""Decoders in which most layers see a window only, and llama.cpp's graph keeps to it."""

from __future__ import annotations

from typing import ClassVar

from gguf import Keys

from agent.errors import CheckpointError
from pipeline.architectures.shared.decoder import WINDOW_KINDS, Decoder
from pipeline.format.gguf_file import Value


class Windowed(Decoder):
    """``full_every``: one layer in so many sees everything, unless config.json lists the layers."""

    has_window = "always"
    keeps_window = True
    full_every: ClassVar[int]

    def is_sliding(self) -> list[bool]:
        """Whether each layer sees the window only."""
        return self.sliding_layers(self.full_every)

    def sliding_layers(self, full_every: int) -> list[bool]:
        kinds = self.layers_of("layer_types", WINDOW_KINDS, lambda i: WINDOW_KINDS[(i + 1) % full_every == 0])
        return [kind == "sliding_attention" for kind in kinds]

    def window_keys(self) -> dict[str, Value]:
        """The size of the window and the layers that keep to it. Raises CheckpointError if there is no sliding_window."""
        if self.window is None:
            raise CheckpointError(f"config.json: {self.gguf} with sliding layers needs a sliding_window")
        return {Keys.Attention.SLIDING_WINDOW: self.window, Keys.Attention.SLIDING_WINDOW_PATTERN: self.is_sliding()}
