"""How a student learns: what is compared, how fast, for how long."""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import SprigError

DIVERGENCES = ("forward", "reverse", "js")
RATE, LORA_RATE = 1e-4, 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillOptions:
    """What a run is. The same options, teacher, student and data give the same bytes, where ``minutes`` is not what ends it.

    Attributes:
        tokens: learn from so many, over and over where the data has fewer; by default each sequence once.
        minutes: learn so long instead.
        width: tokens of a sequence at most.
        batch: sequences of a step, of all processes together.
        rate: of AdamW at its highest.
        divergence: "forward" is KL(teacher || student), "reverse" KL(student || teacher), "js" Jensen-Shannon.
        temperature: both distributions are softened by it; the divergence is multiplied by its square.
        language: share of the language-model loss; the rest is the divergence.
        hidden, attention: weights of the losses between hidden states and between attention maps of matched layers.
        top_k: keep the teacher's k likeliest tokens on the disk, asked once; by default the teacher is asked in each step.
        lora: learn low-rank changes of this rank, merged in the end, instead of all weights.
        checkpointing: compute activations again in the backward pass rather than keep them: less memory, a third slower.
        bf16: compute in BF16; by default where it is faster here.
        recipe: train through the rounding of this recipe of ``sprig quantize``.
        own: tokens that the teacher writes beside the data; by default 32,768 where there is no data, and none where there is.
        seed: of the order, of what is drawn, of a fresh student's weights.
    """

    tokens: int | None = None
    minutes: float | None = None
    width: int = 256
    batch: int = 8
    rate: float | None = None
    divergence: str = "forward"
    temperature: float = 1.0
    language: float = 0.0
    hidden: float = 0.0
    attention: float = 0.0
    top_k: int | None = None
    lora: int | None = None
    checkpointing: bool = False
    bf16: bool | None = None
    recipe: str | None = None
    own: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises SprigError when a value is none, or two do not go together."""
        for name, low, high in (
            ("temperature", 1e-3, 1e3), ("language", 0, 1), ("hidden", 0, 1e6), ("attention", 0, 1e6), ("width", 2, 1 << 20),
            ("batch", 1, 1 << 20), ("rate", 1e-12, 10), ("top_k", 1, 1 << 24), ("lora", 1, 1 << 16),
            ("tokens", 1, 1 << 50), ("minutes", 1e-3, 1e7), ("own", 0, 1 << 24),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise SprigError(f"{name.replace('_', '-')} must be from {low:g} to {high:g}, and is {value:g}")
        if self.divergence not in DIVERGENCES:
            raise SprigError(f"there is no divergence {self.divergence!r}; take one of {', '.join(DIVERGENCES)}")
        if self.tokens is not None and self.minutes is not None:
            raise SprigError("tokens and time both end the learning; give one of them")
        if self.top_k is not None and (self.hidden or self.attention):
            raise SprigError(
                "the kept top-k holds no hidden states and no attention; leave it out, and the teacher is asked each time"
            )
        if self.top_k is not None and self.language == 1:
            raise SprigError("with the language-model loss alone the teacher is not asked; leave the top-k out")

        if self.recipe is not None and self.lora is not None:
            raise SprigError("training through a rounding changes all weights; leave the rank of low-rank changes (LoRA) out")

    @property
    def top_rate(self) -> float:
        return self.rate or (LORA_RATE if self.lora else RATE)
