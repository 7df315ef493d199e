"""OLMo 3: OLMo 2 in which three layers of four have a window; these keep plain RoPE where the others have YaRN."""

from __future__ import annotations

from agent.errors import UnsupportedError
from pipeline.architectures.olmo2 import Olmo2
from pipeline.architectures.shared.decoder import Windowed
from pipeline.architectures.shared.rope import rope_parameters
from pipeline.format.gguf_file import Value


class Olmo3(Windowed, Olmo2):
    defaults = Olmo2.defaults | {"sliding_window": 4096, "rope_theta": 5e5}
    full_every = 4

    def check(self) -> None:
        super().check()
        local = rope_parameters(self.hp, "sliding_attention")
        both = rope_parameters(self.hp, "full_attention")
        if local is not both and local.get("rope_theta") != both.get("rope_theta"):
            raise UnsupportedError("llama.cpp's olmo2 has one rope_theta for all layers; config.json has two")

    def keys(self) -> dict[str, Value]:
        return super().keys() | self.window_keys()
