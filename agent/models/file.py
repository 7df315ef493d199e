"""What the agent must know of a GGUF before llama.cpp sees it: read and checked once, then remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent.errors import GGUFError, SprigError
from agent.files import atomic_write
from agent.home import home

if TYPE_CHECKING:
    from agent.gguf.types import GGMLType

log = logging.getLogger(__name__)

_VERSION = 6  # of what is remembered
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"
# Of these, a token takes a row or two; they are not multiplied with.
_LOOKED_UP = frozenset({_EMBEDDING, "per_layer_token_embd.weight", "position_embd.weight", "token_types.weight"})
_MOST_LAYERS = 512  # LLAMA_MAX_LAYERS; a lie must not cost memory
_BLOCK = re.compile(r"blk\.(\d+)\.")
# llama.cpp's default where a file with a sliding window does not say which layers have it: every n-th sees all.
_WINDOW_PATTERN = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "llama4": 4, "exaone4": 4, "gpt-oss": 2}

# enum llama_pooling_type (llama.h), without those that make no vector.
_POOLINGS = {1: "mean", 2: "cls", 3: "last", 4: "rank"}
PROMPT = "sprig.prompt."  # keys of what is put before a text, by the kind of text

# What ``model_facts`` raises over keys that are not what they should be.
NOT_FACTS = (KeyError, IndexError, TypeError, ValueError, ArithmeticError)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Facts of one model file.

    Attributes:
        path: absolute.
        size: bytes of the file.
        identity: changes when the file does (device, inode, size, time of change).
        architecture, name, type: as the file's keys and its largest tensors have them.
        weights: bytes of all tensors.
        matrices: bytes of the weights that are multiplied with, by type.
        tied: the type and bytes of an embedding that is the output too; llama.cpp holds it twice when it repacks that type.
        head: the type and bytes of what computes the scores of all tokens: the output, or the tied embedding.
        experts: bytes of the weights that belong to experts, by type; they are counted in ``matrices`` too.
        expert_share: the part of the experts that a token goes through; 1 without experts.
        n_layer, n_vocab, n_embd, n_ff, n_head, n_ctx_train: hyperparameters; n_head the largest of all layers.
        query_width: numbers of Q per token in all layers with attention.
        cache_width: numbers of K and V per token in all layers that see the whole context.
        window_width, window: the same for layers with a sliding window, and its length in tokens.
        state: bytes of recurrent state of one sequence, an estimate.
        template: the chat template, the one for tools where there are two; empty when there is none.
        bos, eos: texts of these tokens.
        sampling: ``general.sampling.*``.
        causal: whether it writes text; an embedding model and a reranker do not.
        pooling: how one vector comes of all tokens, "mean", "cls" or "last"; "rank" of a reranker; empty where the file does not
            say.
        bidirectional: whether each token sees the whole text, so that a text is computed at once.
        prompts: what its makers put before a "query" or a "document".
        recipe, source, commit: what Sprig made it with and of; empty when another program made it.
    """

    path: str
    size: int
    identity: str
    architecture: str
    name: str
    type: str
    weights: int
    matrices: Mapping[str, int]
    tied: Mapping[str, int]
    head: Mapping[str, int]
    experts: Mapping[str, int]
    expert_share: float
    n_layer: int
    n_vocab: int
    n_embd: int
    n_ff: int
    n_head: int
    n_ctx_train: int
    query_width: int
    cache_width: int
    window_width: int
    window: int
    state: int
    template: str
    bos: str
    eos: str
    sampling: Mapping[str, float]
    causal: bool
    pooling: str = ""
    bidirectional: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    recipe: str = ""
    source: str = ""
    commit: str = ""

    @property
    def parameters(self) -> int:
        """Weights of the model, about: those that are multiplied with, and the embedding of its tokens."""
        from agent.gguf.types import TYPES_BY_NAME  # not needed for a start

        bits = {kind: TYPES_BY_NAME[kind].bits_per_weight for kind in self.matrices if kind in TYPES_BY_NAME}
        weights = sum(8 * self.matrices[kind] / width for kind, width in bits.items())
        return int(weights) + self.n_vocab * self.n_embd


def read_model(path: Path) -> ModelFile:
    """Facts of a file that llama.cpp may be given. What was found is remembered until the file changes.

    Raises:
        GGUFError: the file cannot be read, or llama.cpp would abort over it.
    """
    try:
        status = path.stat()
    except OSError as e:
        raise GGUFError(f"cannot read {path}: {e.strerror}") from None
    stamp = f"{_VERSION} {path} {status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
    identity = hashlib.sha256(stamp.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    remembered = _memory(identity)
    facts = _recall(remembered, path, identity)
    if facts is None:
        from agent.gguf.check import check  # NumPy; not needed for a file that is known

        log.info("%s is new or was changed: its header is checked", path)
        header = check(path)
        try:
            facts = model_facts(header.keys, header.tensors, path=path, size=status.st_size, identity=identity)
        except NOT_FACTS as e:
            raise GGUFError(f"{path} must not be loaded: its keys do not fit together ({e}); get or make another one") from None
        with contextlib.suppress(OSError, SprigError):
            remembered.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(remembered, json.dumps(asdict(facts)))
    return facts


def weights_are_checked(file: ModelFile) -> bool:
    """Whether this very file was loaded once with all its weights looked at."""
    return _checked_mark(file).exists()


def note_checked_weights(file: ModelFile) -> None:
    """Its weights are finite, so that nobody looks at them again until the file changes."""
    with contextlib.suppress(OSError):
        _checked_mark(file).touch()


def _checked_mark(file: ModelFile) -> Path:
    return _memory(file.identity).with_suffix(".finite")


def _memory(identity: str) -> Path:
    """Where what is known of a file is kept."""
    return home() / "cache" / "models" / f"{identity}.json"


def _recall(remembered: Path, path: Path, identity: str) -> ModelFile | None:
    try:
        data = json.loads(remembered.read_bytes())
        if set(data) != {f.name for f in fields(ModelFile)} or data["identity"] != identity or data["path"] != str(path):
            return None
        return ModelFile(**data)
    except (OSError, ValueError, TypeError, KeyError):
        return None


class TensorFacts(Protocol):
    """What must be known of a tensor, of a file that is there or of one that could be made."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def type(self) -> GGMLType: ...
    @property
    def nbytes(self) -> int: ...


def model_facts(
    keys: Mapping[str, Any], tensors: Mapping[str, TensorFacts], *, path: Path, size: int, identity: str
) -> ModelFile:
    """Facts of a file with these keys and tensors, which need not be written yet. Raises ``NOT_FACTS``.

    Args:
        path, size, identity: as the file has them, or would.
    """
    arch, keys = _own_layers(keys)
    tokens = keys.get("tokenizer.ggml.tokens") or []

    def number(name: str, default: int = 0) -> int:
        value = keys.get(f"{arch}.{name}", default)
        return int(max(value)) if hasattr(value, "__len__") else int(value)

    def token(name: str) -> str:
        at = keys.get(f"tokenizer.ggml.{name}_token_id")
        return tokens[at] if isinstance(at, int) and 0 <= at < len(tokens) else ""

    kinds = _bytes(tensors.values())
    multiplied = {name: entry for name, entry in tensors.items() if _multiplied(name, entry, number("block_count"))}
    embedding, head = tensors.get(_EMBEDDING), tensors.get(_HEAD)
    tied = {embedding.type.name: embedding.nbytes} if embedding and not head else {}
    n_experts, n_used = number("expert_count"), number("expert_used_count")
    full, windowed, window = _cache_widths(keys, arch, number)
    template = keys.get("tokenizer.chat_template.tool_use") or keys.get("tokenizer.chat_template") or ""
    return ModelFile(
        path=str(path),
        size=size,
        identity=identity,
        architecture=arch,
        name=str(keys.get("general.name") or path.stem),
        type=str(keys.get("sprig.recipe") or max(kinds, key=lambda k: kinds[k])),
        weights=sum(kinds.values()),
        matrices=_bytes(multiplied.values()),
        tied=tied,
        head={head.type.name: head.nbytes} if head else tied,
        experts=_bytes(entry for name, entry in multiplied.items() if "_exps." in name),
        expert_share=min(1.0, n_used / n_experts) if n_experts and n_used else 1.0,
        n_layer=number("block_count"),
        n_vocab=len(tokens) or number("vocab_size"),
        n_embd=number("embedding_length"),
        n_ff=max(number("feed_forward_length"), n_used * number("expert_feed_forward_length")),
        n_head=number("attention.head_count", 1),
        n_ctx_train=number("context_length"),
        query_width=_query_width(keys, arch, number),
        cache_width=full,
        window_width=windowed,
        window=window,
        state=_state(keys, arch, number),
        template=template if isinstance(template, str) else "",
        bos=token("bos"),
        eos=token("eos"),
        sampling={k: float(v) for k, v in keys.items() if k.startswith("general.sampling.") and isinstance(v, int | float)},
        causal=writes_text(keys),
        pooling=_POOLINGS.get(keys.get(f"{arch}.pooling_type", 0), ""),
        bidirectional=_sees_all(keys),
        prompts={k.removeprefix(PROMPT): str(v) for k, v in keys.items() if k.startswith(PROMPT)},
        **_origin(keys),
    )


def _origin(keys: Mapping[str, Any]) -> dict[str, str]:
    """What Sprig made a file with and of, by the fields of ModelFile."""
    found = {"recipe": "sprig.recipe", "source": "sprig.source.name", "commit": "sprig.source.commit"}
    return {field: str(keys.get(key) or "") for field, key in found.items()}


def writes_text(keys: Mapping[str, Any]) -> bool:
    """Whether a model with these keys writes text; one that sees a text as a whole, or pools it, gives vectors or scores."""
    return not _sees_all(keys) and not keys.get(f"{keys.get('general.architecture')}.pooling_type")


def _sees_all(keys: Mapping[str, Any]) -> bool:
    arch = str(keys.get("general.architecture"))
    return keys.get(f"{arch}.attention.causal") is False or arch == "gemma-embedding"  # whose files need not say it


def _own_layers(keys: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The architecture, and the keys with the model's own layers only: blocks that foretell further tokens serve to draft."""
    arch = str(keys["general.architecture"])
    extra, count = keys.get(f"{arch}.nextn_predict_layers", 0), f"{arch}.block_count"
    if not 0 <= keys.get(count, 0) - extra <= _MOST_LAYERS:
        raise ValueError(f"{count} is {keys.get(count, 0)}")
    return arch, {**keys, count: keys[count] - extra} if extra else keys


def _multiplied(name: str, entry: TensorFacts, layers: int) -> bool:
    """Whether a token goes through this weight; not through those of a block behind the ``layers`` of the model."""
    block = _BLOCK.match(name)
    return len(entry.shape) > 1 and name not in _LOOKED_UP and not (block and int(block[1]) >= layers)


def _bytes(tensors: Iterable[TensorFacts]) -> dict[str, int]:
    """Bytes of tensors by their type."""
    found: Counter[str] = Counter()
    for entry in tensors:
        found[entry.type.name] += entry.nbytes
    return dict(found)


def _cache_widths(keys: Mapping[str, Any], arch: str, number: Callable[..., int]) -> tuple[int, int, int]:
    """Numbers of K and V per token in layers that see everything, in those with a window, and the window."""
    layers, heads = number("block_count"), number("attention.head_count", 1)
    per_head = number("attention.key_length", number("embedding_length") // max(1, heads))
    per_head += number("attention.value_length", number("embedding_length") // max(1, heads))
    kv = keys.get(f"{arch}.attention.head_count_kv", heads)
    counts = [int(n) for n in kv] if hasattr(kv, "__len__") else [int(kv)] * layers
    interval = number("full_attention_interval")
    if interval > 1:
        counts = [n if (i + 1) % interval == 0 else 0 for i, n in enumerate(counts)]
    window = number("attention.sliding_window")
    pattern = keys.get(f"{arch}.attention.sliding_window_pattern", _WINDOW_PATTERN.get(arch, 0))
    if not window:
        narrow = [False] * layers
    elif hasattr(pattern, "__len__"):
        narrow = [bool(p) for p in pattern]
    else:
        narrow = [bool(pattern) and (i + 1) % int(pattern) != 0 for i in range(layers)]
    pairs = list(zip(counts, narrow, strict=False))
    full = sum(n for n, is_narrow in pairs if not is_narrow) * per_head
    return full, sum(n for n, is_narrow in pairs if is_narrow) * per_head, window


def _query_width(keys: Mapping[str, Any], arch: str, number: Callable[..., int]) -> int:
    """Numbers of Q per token in all layers with attention."""
    heads, layers = number("attention.head_count", 1), number("block_count")
    kv = keys.get(f"{arch}.attention.head_count_kv", heads)
    if hasattr(kv, "__len__"):
        layers = sum(1 for n in kv if n)
    elif (interval := number("full_attention_interval")) > 1:
        layers //= interval
    return layers * heads * number("attention.key_length", number("embedding_length") // max(1, heads))


def _state(keys: Mapping[str, Any], arch: str, number: Callable[..., int]) -> int:
    """Bytes of recurrent state of a sequence, in float32, for layers without attention: Mamba, gated delta nets, convolutions."""
    inner, state, conv = number("ssm.inner_size"), number("ssm.state_size"), number("ssm.conv_kernel")
    short = number("shortconv.l_cache")
    if not inner and not short:
        return 0
    kv, ff = keys.get(f"{arch}.attention.head_count_kv", 0), keys.get(f"{arch}.feed_forward_length", 0)
    layers = number("block_count")
    if hasattr(kv, "__len__") and hasattr(ff, "__len__"):  # layers that are an MLP alone have no state either
        layers = sum(1 for n, width in zip(kv, ff, strict=False) if n == 0 and width == 0)
    elif hasattr(kv, "__len__"):
        layers = sum(1 for n in kv if n == 0)
    elif interval := number("full_attention_interval"):
        layers -= layers // interval
    per_layer = inner * state + max(0, conv - 1) * (inner + 2 * number("ssm.group_count") * state)
    return 4 * layers * (per_layer + max(0, short - 1) * number("embedding_length"))
