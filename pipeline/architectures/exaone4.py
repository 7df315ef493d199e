"""EXAONE 4: norms after each part and on each head's queries and keys; the 32B has windows, and no RoPE outside of them."""

from __future__ import annotations

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import ATTENTION, MLP, QK_NORMS, TRUNK, WINDOW_KINDS, Windowed, sizes
from pipeline.format.gguf_file import Value

_DEEP = 64  # layers of the 32B: llama.cpp keeps to a window in a model of so many only, and there always


class Exaone4(Windowed):
    gguf = "exaone4"
    defaults = sizes(4096, 16384, 32, 32, 32, 2048, rms_norm_eps=1e-5, sliding_window=4096, sliding_window_pattern=4)
    names = TRUNK | ATTENTION | QK_NORMS | MLP | {
        "model.layers.{i}.post_attention_layernorm.weight": "blk.{i}.post_attention_norm.weight",
        "model.layers.{i}.post_feedforward_layernorm.weight": "blk.{i}.post_ffw_norm.weight",
    }  # fmt: skip
    rope_kinds = frozenset({"default", "linear", "dynamic", "yarn", "llama3"})
    square = True

    def check(self) -> None:
        super().check()
        if (self.window is not None) != (self.n_layers == _DEEP):
            has = "none" if self.window is None else "one"
            raise UnsupportedError(
                f"llama.cpp's exaone4 has a window in a model of {_DEEP} layers and in no other; "
                f"config.json gives {has} to its {self.n_layers} layers"
            )

    def is_sliding(self) -> list[bool]:
        pattern = self.hp.get("sliding_window_pattern")
        if not isinstance(pattern, str) or not pattern:
            return self.sliding_layers(self.integer("sliding_window_pattern", default=4))
        kinds = self.layers_of("layer_types", WINDOW_KINDS, lambda i: WINDOW_KINDS[pattern[i % len(pattern)] != "L"])
        return [kind == "sliding_attention" for kind in kinds]

    def keys(self) -> dict[str, Value]:
        return super().keys() | (self.window_keys() if self.window else {})

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d = self.integer("hidden_size")
        return super().expected_shapes() | {"blk.{i}.post_attention_norm.weight": (d,), "blk.{i}.post_ffw_norm.weight": (d,)}
