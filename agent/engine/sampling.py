"""How the next token is drawn: the settings, and llama.cpp's sampler chain made of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from agent.errors import SprigError

if TYPE_CHECKING:
    from agent.engine.llama import Context, LlamaModel

_KEYS = {
    "temperature": "general.sampling.temp",
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "repeat_penalty": "general.sampling.penalty_repeat",
}
_CANDIDATES = 40  # allowed tokens among which a constrained step draws


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn.

    The defaults are for a model whose file says nothing; ``for_model`` takes what its makers wrote.

    Attributes:
        temperature: 0 takes the likeliest token.
        top_k: draw among so many; 0 for all.
        top_p: draw among the likeliest that make up this probability.
        min_p: leave out what is less likely than this part of the likeliest.
        repeat_penalty: above 1 makes the last 64 tokens less likely.
        seed: of the draws; None takes a new one each time.
    """

    temperature: float = 0.4
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        limits = (
            ("temperature", 0, 100), ("top_k", 0, 1 << 30), ("top_p", 0, 1), ("min_p", 0, 1), ("repeat_penalty", 0.01, 100),
        )  # fmt: skip
        for name, least, most in limits:
            value = getattr(self, name)
            kind, word = (int, "whole number") if name == "top_k" else (int | float, "number")
            if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value) or not least <= value <= most:
                raise SprigError(f"sampling: {name} is {value!r} and must be a {word} from {least} to {most}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | None):
            raise SprigError(f"sampling: seed is {self.seed!r} and must be a whole number, or None for a new one each time")

    @classmethod
    def for_model(cls, keys: Mapping[str, Any], **chosen: Any) -> Sampling:
        """What the model's file recommends (``general.sampling.*``), under what the caller chose (None: not chosen)."""
        values: dict[str, Any] = {}
        for name, key in _KEYS.items():
            found = keys.get(key)
            if isinstance(found, int | float) and not isinstance(found, bool):
                values[name] = int(found) if name == "top_k" else float(found)
        return cls(**{**values, **_named(chosen)})

    def over(self, **chosen: Any) -> Sampling:
        """The same under what the caller chose (None: not chosen). SprigError when there is nothing of that name."""
        return replace(self, **_named(chosen))


def _named(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What was chosen, every name one that there is."""
    known = {f.name for f in fields(Sampling)}
    if odd := sorted(set(chosen) - known):
        raise SprigError(f"sampling knows no {odd[0]!r}; there are {', '.join(sorted(known))}")
    return {name: value for name, value in chosen.items() if value is not None}


def log_probabilities(logits: Any, token: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """The natural logarithm of a token's probability, and the likeliest tokens with theirs, the likeliest first.

    The probabilities are the softmax of the logits as the model gave them: no temperature, no limit and no penalty.
    """
    import numpy as np  # a tenth of a second on a board, and most answers never need it

    top = float(logits.max())
    total = top + math.log(float(np.exp(logits - top, dtype=np.float64).sum()))
    likely = np.argpartition(-logits, count - 1)[:count] if 0 < count < len(logits) else np.arange(len(logits))[:count]
    order = likely[np.argsort(-logits[likely], kind="stable")]
    return float(logits[token]) - total, [(int(one), float(logits[one]) - total) for one in order]


class Sampler:
    """The draws of one answer. Belongs to the worker."""

    def __init__(self, model: LlamaModel, settings: Sampling) -> None:
        self.model, self.settings = model, settings
        seed = settings.seed if settings.seed is not None else random.SystemRandom().randrange(1 << 32)
        self.seed = seed & 0xFFFFFFFF
        self._random = random.Random(self.seed)
        lib = model.lib
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        add = lib.llama_sampler_chain_add
        if settings.repeat_penalty != 1.0:
            penalties = lib.llama_sampler_init_penalties(model.n_vocab, 64, settings.repeat_penalty, 0.0, 0.0)
            add(self._chain, penalties)
        if settings.temperature <= 0:
            add(self._chain, lib.llama_sampler_init_greedy())
        else:
            if settings.top_k:
                add(self._chain, lib.llama_sampler_init_top_k(settings.top_k))
            if settings.top_p < 1:
                add(self._chain, lib.llama_sampler_init_top_p(settings.top_p, 1))
            if settings.min_p:
                add(self._chain, lib.llama_sampler_init_min_p(settings.min_p, 1))
            add(self._chain, lib.llama_sampler_init_temp(settings.temperature))
            add(self._chain, lib.llama_sampler_init_dist(self.seed))

    def sample(self, context: Context, row: int) -> int:
        """A token for a place of the last batch; the chain has taken note of it."""
        return int(self.model.lib.llama_sampler_sample(self._chain, context.handle, row))

    def accept(self, token: int) -> None:
        """Take note of a token that was not drawn but forced."""
        self.model.lib.llama_sampler_accept(self._chain, token)

    def sample_allowed(
        self, context: Context, row: int, allowed: Callable[[int], bool], hint: frozenset[str] | None
    ) -> int | None:
        """A token that ``allowed`` lets pass, drawn as if no other existed; None when there is none.

        Drawing, refusing and drawing again among what is allowed is the same as masking first. ``hint`` names the characters
        with which an allowed token begins, where they are few.
        """
        found: list[tuple[int, float]] = []
        for token, logit in self._by_likelihood(context, row, hint):
            if found and logit < found[0][1] - 30:
                break  # less likely than one in e^30
            if allowed(token):
                found.append((token, logit))
                if self.settings.temperature <= 0 or len(found) >= _CANDIDATES:
                    break
        if not found:
            return None
        token = found[0][0] if len(found) == 1 else self._draw(found)
        self.accept(token)
        return token

    def _draw(self, found: list[tuple[int, float]]) -> int:
        top = found[0][1]
        weights = [math.exp((logit - top) / self.settings.temperature) for _, logit in found]
        total, kept = sum(weights), 0.0
        cut: list[float] = []
        for weight in weights:
            if cut and (kept >= self.settings.top_p * total or weight < self.settings.min_p * weights[0]):
                break
            cut.append(weight)
            kept += weight
        return self._random.choices([token for token, _ in found[: len(cut)]], cut)[0]

    def _by_likelihood(self, context: Context, row: int, hint: frozenset[str] | None) -> Iterator[tuple[int, float]]:
        import numpy as np  # a tenth of a second on a board, and only a refused token needs it

        model = self.model
        logits = context.logits(row)
        if hint is not None:
            # Few characters may come: look at every token that starts with one, however unlikely, and at no other.
            places = model.starting_with(hint)
            order = places[np.argsort(-logits[places], kind="stable")]
            yield from zip(order.tolist(), logits[order].tolist(), strict=True)
            return
        tried: set[int] = set()
        size = 64
        while size < 2 * model.n_vocab:
            count = min(size, model.n_vocab)
            part = np.argpartition(-logits, count - 1)[:count] if count < model.n_vocab else np.arange(count)
            order = part[np.argsort(-logits[part], kind="stable")]
            for token, logit in zip(order.tolist(), logits[order].tolist(), strict=True):
                if token not in tried:
                    tried.add(token)
                    yield token, logit
            size *= 8

    def close(self) -> None:
        if self._chain:
            self.model.lib.llama_sampler_free(self._chain)
            self._chain = None
