"""llama.cpp's evaluation callback as a reader of activations: what each weight is multiplied with, as it is computed.

As ``tools/imatrix`` of llama.cpp does it: ``MUL_MAT`` and ``MUL_MAT_ID``, whose first source is a weight and whose second one is
the input, float32.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from pipeline.calibrate.ggml_tensor import GGMLTensor, NodeWatch, floats, integers, operations
from pipeline.calibrate.inputs import Input
from pipeline.calibrate.moments import Moments
from pipeline.format.ggml import Floats

_HEADS = ("output.weight", "token_embd.weight")


class ActivationWatch(NodeWatch):
    """The callback of one context. First ``scout`` finds the inputs in one computation, then ``measure`` says which to add up.

    Args:
        weights: GGUF names of the model's weights.
    """

    def __init__(self, weights: Collection[str]) -> None:
        super().__init__()
        numbers = operations()
        self._plain, self._routed = numbers["MUL_MAT"], numbers["MUL_MAT_ID"]
        self._weights = frozenset(weights)
        self._inputs: dict[str, Input] = {}  # weight -> its input
        self._scouting: dict[tuple[int, int], list[tuple[str, GGMLTensor]]] | None = None
        self._wanted: Mapping[str, Moments] = {}
        self._last = ""
        self._before_head = ""  # the node that the head reads: the head itself need not be computed
        self._head: Input | None = None
        self._seen: set[tuple[str, int, int]] = set()

    def scout(self) -> None:
        """Look at the next computation without reading any value."""
        self._scouting = {}

    def found(self) -> list[Input]:
        """The inputs that were found, in the order of the computation."""
        groups, self._scouting = self._scouting or {}, None
        inputs: dict[str, Input] = {}
        for (_, ids), uses in groups.items():
            names = tuple(dict.fromkeys(name for name, _ in uses if name not in inputs))
            if not names:
                continue
            tensor = uses[0][1]
            head = any(name in _HEADS for name in names)
            matrices = tensor.ne[2] * tensor.ne[3]
            one = Input(names, int(tensor.ne[0]), int(matrices), bool(ids), head)
            inputs |= dict.fromkeys(names, one)
        self._inputs = inputs
        return list(dict.fromkeys(inputs.values()))

    def measure(self, wanted: Mapping[str, Moments], last: str) -> None:
        """From now on add these inputs up, and end each computation after the input ``last``."""
        self._wanted, self._last = wanted, last
        self._head = next((i for i in self._inputs.values() if i.head and i.name in wanted), None)

    def begin(self) -> None:
        """A computation begins."""
        self._seen.clear()

    def look(self, node: GGMLTensor, ask: bool) -> bool:
        return self._asked(node) if ask else self._computed(node)

    def _asked(self, node: GGMLTensor) -> bool:
        if node.op not in (self._plain, self._routed):
            return self._head is not None and bool(self._before_head) and node.label == self._before_head
        weight, data = node.source(0), node.source(1)
        if weight is None or data is None or (name := _plain_name(weight.label)) not in self._weights or floats(data) is None:
            return False
        key = (node.src[1], node.src[2] or 0 if node.op == self._routed else 0)
        if self._scouting is not None:
            self._scouting.setdefault(key, []).append((name, weight))
            if name in _HEADS:
                self._before_head = data.label
            return False
        one = self._inputs.get(name)
        if one is None or one.name not in self._wanted or (one.name, *key) in self._seen:
            return False
        self._seen.add((one.name, *key))
        return True

    def _computed(self, node: GGMLTensor) -> bool:
        weight, data = node, node
        if node.op in (self._plain, self._routed):
            weight, data = _source(node, 0), _source(node, 1)
            one = self._inputs[_plain_name(weight.label)]
        else:
            assert self._head is not None
            one = self._head
        values, moments = floats(data), self._wanted[one.name]
        assert values is not None
        if one.routed:
            parts = _routed_rows(values, integers(_source(node, 2)), one.matrices)
        else:
            parts = _rows(values, one.matrices, int(weight.ne[2]))
        for matrix, rows in parts:
            moments.add(matrix, rows)
        return one.name != self._last


def _source(node: GGMLTensor, i: int) -> GGMLTensor:
    source = node.source(i)
    assert source is not None
    return source


def _plain_name(label: str) -> str:
    """A weight that was copied to another device is called DEVICE#NAME#NUMBER there."""
    return label.split("#")[1] if "#" in label else label


def _rows(values: Floats, matrices: int, per_group: int) -> Iterator[tuple[int, Floats]]:
    """The rows of [n3, n2, tokens, columns] that each matrix of a weight is multiplied with."""
    if matrices == 1:
        yield 0, values.reshape(-1, values.shape[-1])
        return
    groups = matrices // per_group
    for i3, i2 in np.ndindex(values.shape[:2]):
        yield (i3 % groups) * per_group + i2 % per_group, values[i3, i2]


def _routed_rows(values: Floats, ids: Sequence[object], matrices: int) -> Iterator[tuple[int, Floats]]:
    """The rows of [1, tokens, 1 or chosen, columns] that each expert sees; ``ids`` [1, 1, tokens, chosen] says who sees which."""
    chosen = np.asarray(ids)[0, 0]
    rows = values[0]
    for expert in np.unique(chosen):
        if not 0 <= expert < matrices:
            raise ValueError(f"expert {expert} of {matrices}")
        token, place = np.nonzero(chosen == expert)
        yield int(expert), rows[token, place % rows.shape[1]]
