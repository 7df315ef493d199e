"""The student as it learns: the network, and what makes its hidden states comparable to the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

Tensor = Any


def matched(student: int, teacher: int) -> tuple[tuple[int, int], ...]:
    """Pairs of layers (counted from 1), spread evenly: the last with the last."""
    return tuple((i, max(1, round(i * teacher / student))) for i in range(1, student + 1))


class Learner(nn.Module):  # type: ignore[misc]  # torch is not typed
    """A network with its hidden states projected to the teacher's width, where that differs.

    Args:
        network: the student.
        pairs: of layers, student and teacher.
        width: of the teacher.
        encoder: the network gives hidden states and no logits.
        hidden, attention: what is asked of it.
        seed: of the projections' first values.
    """

    def __init__(
        self,
        network: Any,
        pairs: Sequence[tuple[int, int]],
        width: int,
        *,
        encoder: bool,
        hidden: bool,
        attention: bool,
        seed: int,
    ) -> None:
        super().__init__()
        self.network, self.pairs, self.encoder = network, tuple(pairs), encoder
        self.hidden, self.attention = hidden, attention
        own = int(network.config.get_text_config().hidden_size)
        layers = sorted({i for i, _ in self.pairs} if hidden else ()) or ([len(self.pairs)] if encoder else [])
        generator = torch.Generator().manual_seed(seed)
        self.projections = nn.ModuleDict()
        for i in layers if own != width else ():
            projection = nn.Linear(own, width, bias=False)
            with torch.no_grad():
                projection.weight.copy_(torch.randn(width, own, generator=generator) * own**-0.5)
            self.projections[str(i)] = projection

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Any]:
        """Logits, the hidden states of the student's side of each pair, its attention maps, and the last hidden state."""
        out = answers(self.network, ids, mask, encoder=self.encoder, hidden=self.hidden or self.encoder, attention=self.attention)
        states, maps, last = out["hidden"], out["attention"], len(self.pairs)
        return {
            "logits": out["logits"],
            "hidden": [self._projected(i, states[i]) for i, _ in self.pairs] if self.hidden else [],
            "attention": [maps[i - 1] for i, _ in self.pairs] if self.attention else [],
            "last": self._projected(last, states[last]) if self.encoder else None,
        }

    def _projected(self, layer: int, state: Tensor) -> Tensor:
        return self.projections[str(layer)](state) if str(layer) in self.projections else state


def answers(network: Any, ids: Tensor, mask: Tensor, *, encoder: bool, hidden: bool, attention: bool) -> dict[str, Any]:
    """What a network says of sequences [batch, tokens]: logits, hidden states (the embedding first), attention maps."""
    more = {} if encoder else {"use_cache": False}
    out = network(input_ids=ids, attention_mask=mask, output_hidden_states=hidden, output_attentions=attention, **more)
    return {
        "logits": None if encoder else out.logits,
        "hidden": out.hidden_states if hidden else None,
        "attention": out.attentions if attention else None,
    }
