"""What a LoRA adapter changes in its base model: read from adapter_config.json and the headers of both, no weight needed.

Format: PEFT's (adapter_config.json beside adapter_model.safetensors or .bin). Of a module with the weight W, an adapter holds
A [rank, inputs] and B [outputs, rank]; what the module computes with is W + scale * B A (LoRA, arXiv:2106.09685), with DoRA
(arXiv:2402.09353) each row of that brought to a trained length.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from agent.errors import CheckpointError, UnsupportedError
from agent.text import brief
from pipeline.sources.checkpoint import SOURCE_TYPES, TensorInfo

CONFIG = "adapter_config.json"
STEM = "adapter_model"

# Keys of adapter_config.json with which more is computed than a product of two matrices; all are empty or false in plain LoRA.
_BEYOND = (
    "alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "megatron_config", "monteclora_config",
    "target_parameters", "use_bdlora", "use_qalora",
)  # fmt: skip
# Ways to start a training that leave W as it is; the others take their first A and B out of it.
_KEEP_BASE = ("gaussian", "eva", "orthogonal")
_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.default)?(?P<bias>\.bias)?(?:\.weight)?"
)
_PICKED = ".token_adapter.trainable_tokens_delta"
_HEAD, _EMBEDDING = "lm_head.weight", "embed_tokens.weight"


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """What adapter_config.json says.

    Attributes:
        base: the model that the adapter was trained on, a Hub id or a path; None where it is not said.
        revision: of that model.
        alpha: numerator of the scale.
        patterns: modules (the end of a name) with another alpha.
        root: whether the scale is alpha / sqrt(rank), as in rsLoRA (arXiv:2312.03732), and not alpha / rank.
        transposed: whether the weights lie as [inputs, outputs].
        picked: end of a module's name -> the rows of an embedding that were trained; "" is any embedding.
        ties: whether a head that is the embedding stays so.
        causal: whether the model writes text, so that it has a head.
    """

    base: str | None
    revision: str | None
    alpha: float
    patterns: Mapping[str, float]
    root: bool
    transposed: bool
    picked: Mapping[str, tuple[int, ...]]
    ties: bool
    causal: bool

    def scale(self, module: str, rank: int) -> float:
        """The factor of B A in a module."""
        alpha = next((a for name, a in self.patterns.items() if _ends_with(module, name)), self.alpha)
        return alpha / (math.sqrt(rank) if self.root else rank)


@dataclass(frozen=True, slots=True)
class LowRank:
    """What is added to a matrix W [outputs, inputs]: ``scale * B A``.

    Attributes:
        a, b: names of A [rank, inputs] and B [outputs, rank] in the adapter.
        scale: the factor.
        rank: of both.
        transposed: whether W lies as [inputs, outputs], so that the transposed product is added.
        magnitude: name of the length of each row, of DoRA.
        is_bias: ``b`` is a vector that is added as it is; there is no ``a``.
    """

    a: str
    b: str
    scale: float
    rank: int
    transposed: bool = False
    magnitude: str | None = None
    is_bias: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """Where one tensor of the merged checkpoint comes from.

    Attributes:
        name: its name there.
        base: the tensor of the base that it is made of; None where ``whole`` stands in its place.
        whole: the tensor of the adapter that stands in the base's place.
        low_rank: what is added to it.
        picked: the adapter's tensor of single rows that stand in the place of these rows.
    """

    name: str
    base: str | None
    whole: str | None = None
    low_rank: LowRank | None = None
    picked: tuple[str, tuple[int, ...]] | None = None

    @property
    def computed(self) -> bool:
        """Whether its weights are computed, in float32, and not taken over as they are."""
        return self.low_rank is not None or self.picked is not None


def read_lora_config(raw: bytes | None, where: str) -> LoraConfig:
    """The parsed adapter_config.json of the adapter ``where``.

    Raises:
        CheckpointError: it is missing or broken.
        UnsupportedError: the adapter is of another kind than LoRA, or of a kind of LoRA that is no product of two matrices.
    """
    try:
        config = json.loads(raw or b"")
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        what = "has no" if raw is None else "has a broken"
        raise CheckpointError(f"{where} is an adapter and {what} {CONFIG}; download it again")
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise UnsupportedError(f"{where} is an adapter of the kind {brief(kind)}; only LoRA can be merged: merge it with PEFT")
    for key in _BEYOND:
        if config.get(key):
            raise UnsupportedError(f"{where} is a LoRA adapter with {key}, which Sprig does not compute; merge it with PEFT")
    start = config.get("init_lora_weights", True)
    if not isinstance(start, bool) and start is not None and start not in _KEEP_BASE:
        raise UnsupportedError(
            f"{where} was trained from {brief(start)}, which changes the base model's own weights; save it again as plain LoRA "
            "(PEFT: save_pretrained with path_initial_model_for_weight_conversion), or merge it with PEFT"
        )
    base, revision, patterns = (config.get(key) for key in ("base_model_name_or_path", "revision", "alpha_pattern"))
    return LoraConfig(
        base=base.strip() or None if isinstance(base, str) else None,
        revision=revision if isinstance(revision, str) else None,
        alpha=_alpha(where, "lora_alpha", config.get("lora_alpha", 8)),
        patterns=_patterns(where, {} if patterns is None else patterns),
        root=config.get("use_rslora") is True,
        transposed=config.get("fan_in_fan_out") is True,
        picked=_picked(where, config.get("trainable_token_indices")),
        ties=config.get("ensure_weight_tying") is True,
        causal=config.get("task_type") != "FEATURE_EXTRACTION",
    )


def _alpha(where: str, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise CheckpointError(f"{CONFIG} of {where}: {name} is {brief(value)}; it must be a positive number")
    return float(value)


def _patterns(where: str, table: object) -> dict[str, float]:
    """Ends of modules' names -> alpha. PEFT takes regular expressions; those of a stranger are not run here."""
    found = {}
    for pattern, value in table.items() if isinstance(table, dict) else [(table, None)]:
        name = str(pattern).removeprefix("^").removesuffix("$").replace(r"\.", ".")
        if not re.fullmatch(r"[\w.-]{1,500}", name):
            raise UnsupportedError(
                f"{CONFIG} of {where}: alpha_pattern has {brief(pattern)}, which names no module; merge it with PEFT"
            )
        found[name] = _alpha(where, f"alpha_pattern[{brief(pattern)}]", value)
    return found


def _picked(where: str, value: object) -> dict[str, tuple[int, ...]]:
    found = {}
    for module, rows in (value if isinstance(value, dict) else {"": value} if value else {}).items():
        if not isinstance(rows, list) or not all(type(i) is int and i >= 0 for i in rows) or len(set(rows)) != len(rows):
            raise CheckpointError(f"{CONFIG} of {where}: trainable_token_indices of {brief(module)} are no rows of an embedding")
        found[str(module)] = tuple(rows)
    return found


def find_changes(
    config: LoraConfig, adapter: Mapping[str, TensorInfo], base: Mapping[str, TensorInfo], where: str
) -> dict[str, Change]:
    """What the adapter ``where`` makes of the base's tensors: name in the merged checkpoint -> change.

    Args:
        adapter, base: the tensors of both, from the headers.

    Raises:
        CheckpointError: the adapter is not whole, or does not fit the base.
        UnsupportedError: it holds what is not known here.
    """
    odd = next((i for i in adapter.values() if i.dtype not in SOURCE_TYPES), None)
    if odd is not None:
        raise UnsupportedError(
            f"{where}: tensor {brief(odd.name)} is stored as {odd.dtype}, which is no plain float; save it as F32"
        )
    modules, others = _sorted_out(adapter, where)
    matcher = _Matcher(base, where)
    changes: dict[str, Change] = {}
    for name, theirs in others.items():
        change = _replacement(config, adapter, matcher, name, theirs)
        changes[change.name] = change
    for module, parts in modules.items():
        for change in _products(config, adapter, matcher, changes, module, parts):
            changes[change.name] = change
    if not changes:
        raise CheckpointError(f"{where} holds no weights of an adapter; download it again")
    return changes | _kept_head(config, adapter, matcher, changes)


def _sorted_out(adapter: Mapping[str, TensorInfo], where: str) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Module -> its parts ("lora_A", ...) -> names in the adapter; and the other tensors by the name of what they replace."""
    modules: dict[str, dict[str, str]] = {}
    others: dict[str, str] = {}
    for name in adapter:
        plain = _plain(name)
        match = _PART.fullmatch(plain)
        if match is not None:
            table, key = modules.setdefault(match["module"], {}), match["part"] + (match["bias"] or "")
        else:
            table, key = others, re.sub(r"\.modules_to_save(\.default)?|\.base_layer", "", plain)
        if key in table:
            raise _twice(where, name)
        table[key] = name
    return modules, others


def _twice(where: str, name: str) -> CheckpointError:
    return CheckpointError(f"{where} holds {brief(name)} twice, under two names; save it again with one adapter in it")


def _plain(name: str) -> str:
    """A name without what PEFT and torch.compile put around the model."""
    return name.removeprefix("base_model.model.").replace("_orig_mod.", "")


def _ends_with(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")


class _Matcher:
    """Finds the base's tensor of an adapter's name: what stands around the text model differs between versions of a class."""

    def __init__(self, base: Mapping[str, TensorInfo], where: str) -> None:
        self.base, self.where = base, where
        self._short: dict[str, str] = {}
        for name in base:
            short = self._core(name)
            self._short[short] = "" if short in self._short else name  # of two, neither is meant by the short name

    @staticmethod
    def _core(name: str) -> str:
        return re.sub(r"^(?:(?:model|language_model|text_model)\.)+", "", _plain(name))

    def find(self, name: str) -> TensorInfo | None:
        return self.base.get(name) or self.base.get(self._short.get(self._core(name), ""))

    def missing(self, name: str) -> CheckpointError:
        what = f"{self.where} changes {brief(name)}, which the base model does not have"
        return CheckpointError(f"{what}; it is an adapter of another model: name its own with --base")

    def misfit(self, name: str, have: Iterable[int], want: Iterable[int]) -> CheckpointError:
        what = f"{self.where} is made for {brief(name)} of shape {list(have)}, the base model's is {list(want)}"
        return CheckpointError(f"{what}; it is an adapter of another model: name its own with --base")


def _is_table(name: str) -> bool:
    """Whether the tensor has a row for each token, so that it may have grown in the training."""
    return name.endswith((_HEAD, _EMBEDDING))


def _replacement(
    config: LoraConfig, adapter: Mapping[str, TensorInfo], matcher: _Matcher, name: str, theirs: str
) -> Change:  # fmt: skip
    """The change by a tensor that is no part of a product: a whole one, or single rows."""
    info = adapter[theirs]
    if name.endswith(_PICKED):
        module = name.removesuffix(_PICKED)
        found = matcher.find(f"{module}.weight")
        if found is None:
            raise matcher.missing(module)
        rows = next((rows for end, rows in config.picked.items() if not end or _ends_with(module, end)), ())
        if info.shape != (len(rows), found.row_length) or max(rows, default=0) >= found.n_rows:
            raise matcher.misfit(module, info.shape, found.shape)
        return Change(found.name, found.name, picked=(theirs, rows))
    found = matcher.find(name)
    if found is None:
        if "lora" in name:
            raise UnsupportedError(
                f"{matcher.where} holds {brief(name)}, a part of LoRA that is not known here; merge it with PEFT"
            )
        if name != _HEAD:
            raise matcher.missing(name)
        return Change(_HEAD, None, whole=theirs)
    grown = _is_table(name) and len(info.shape) == 2 and info.shape[1:] == found.shape[1:]
    if info.shape != found.shape and not grown:
        raise matcher.misfit(name, info.shape, found.shape)
    return Change(found.name, None, whole=theirs)


def _products(
    config: LoraConfig, adapter: Mapping[str, TensorInfo], matcher: _Matcher, changes: Mapping[str, Change], module: str,
    parts: Mapping[str, str],
) -> Iterable[Change]:  # fmt: skip
    """The changes of one module by its A and B; ``changes`` are those by whole tensors."""
    kind = "lora_embedding_" if "lora_embedding_A" in parts or "lora_embedding_B" in parts else "lora_"
    if not {f"{kind}A", f"{kind}B"} <= parts.keys() <= {f"{kind}A", f"{kind}B", "lora_magnitude_vector", "lora_B.bias"}:
        raise CheckpointError(f"{matcher.where} does not have just the two matrices of {brief(module)}; download it again")
    a, b = adapter[parts[f"{kind}A"]], adapter[parts[f"{kind}B"]]
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or not a.shape[0]:
        shapes = f"{list(a.shape)} and {list(b.shape)}"
        raise CheckpointError(f"{matcher.where}: the matrices of {brief(module)} have the shapes {shapes}; download it again")
    head = _HEAD if _ends_with(module, "lm_head") and matcher.find(f"{module}.weight") is None else None
    found = matcher.find(f"{module}.weight") or (matcher.find(_EMBEDDING) if head else None)
    if found is None:
        raise matcher.missing(module)
    before = changes.get(head or found.name, Change(head or found.name, found.name))
    if before.low_rank is not None:
        raise _twice(matcher.where, a.name)
    shape = adapter[before.whole].shape if before.whole else found.shape
    low_rank = LowRank(a.name, b.name, config.scale(module, a.shape[0]), a.shape[0], magnitude=parts.get("lora_magnitude_vector"))
    made = (b.shape[0], a.shape[1])
    if kind != "lora_" or (config.transposed and made[::-1] == shape):
        low_rank, made = replace(low_rank, transposed=True), made[::-1]
    if made != shape:
        raise matcher.misfit(module, made, shape)
    if low_rank.magnitude is not None:
        if low_rank.transposed:
            raise UnsupportedError(
                f"{matcher.where} has DoRA over {brief(module)}, whose weight lies transposed; merge it with PEFT"
            )
        if math.prod(adapter[low_rank.magnitude].shape) != shape[0]:
            raise matcher.misfit(module, adapter[low_rank.magnitude].shape, shape)
    yield replace(before, low_rank=low_rank)
    if (bias := parts.get("lora_B.bias")) is not None:
        beside = matcher.find(f"{module}.bias")
        if beside is None:
            raise matcher.missing(f"{module}.bias")
        if adapter[bias].shape != beside.shape:
            raise matcher.misfit(f"{module}.bias", adapter[bias].shape, beside.shape)
        yield Change(beside.name, beside.name, low_rank=replace(low_rank, b=bias, is_bias=True, magnitude=None))


def _kept_head(
    config: LoraConfig, adapter: Mapping[str, TensorInfo], matcher: _Matcher, changes: Mapping[str, Change]
) -> dict[str, Change]:  # fmt: skip
    """The head of a base whose head is its embedding, where only the embedding was trained: it stays as it was."""
    embedding = matcher.find(_EMBEDDING)
    if embedding is None or matcher.find(_HEAD) is not None or _HEAD in changes or config.ties or not config.causal:
        return {}
    change = changes.get(embedding.name)
    if change is None or change.picked:  # rows of single tokens are trained in both
        return {}
    if change.low_rank is not None:
        return {_HEAD: Change(_HEAD, change.base, whole=change.whole)}
    if change.whole is not None and adapter[change.whole].shape == embedding.shape:
        return {_HEAD: Change(_HEAD, embedding.name)}
    return {}


def merged_tensors(
    base: Mapping[str, TensorInfo], adapter: Mapping[str, TensorInfo], changes: Mapping[str, Change]
) -> dict[str, TensorInfo]:
    """The tensors of the merged checkpoint. What is computed is F32; the rest is as it lies in the base or the adapter."""
    merged = dict(base)
    for name, change in changes.items():
        info = adapter[change.whole] if change.whole is not None else base[change.base or name]
        if change.computed:
            info = replace(info, dtype="F32", nbytes=4 * math.prod(info.shape))
        merged[name] = replace(info, name=name)
    return merged
