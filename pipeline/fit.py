"""The forms that a model can have: each recipe's file as it would be, from a checkpoint's headers; or the GGUF that is there.

No weight is read, but for the few rows that show whether a head is a copy of the embedding (pipeline/model.py).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from agent.errors import SprigError
from agent.fit.fit import Candidate
from agent.models.file import model_facts, read_model
from agent.models.store import find_model
from pipeline.sources.extra import missing_extra, need_pipeline_extra

log = logging.getLogger(__name__)

# The recipes in the order of what is kept of a model.
_BY_QUALITY = (
    "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "IQ4_NL", "Q4_0", "IQ4_XS", "Q3_K_M",
)  # fmt: skip


def candidates(model: str, *, revision: str | None = None, token: str | None = None, offline: bool = False) -> list[Candidate]:
    """Every form that a model has or can have, the best quality first.

    Args:
        model: a Hub id, a checkpoint folder, a GGUF, the name of a stored model, or "demo".

    Raises:
        SprigError: there is no such model, it cannot be reached, or it is broken or not known.
    """
    path = Path(model).expanduser()
    if path.is_file() or (path.suffix == ".gguf" and "/" in model) or ("/" not in model and not path.is_dir()):
        return _of_file(find_model(model))
    need_pipeline_extra()
    return _of_source(model, revision=revision, token=token, offline=offline)


def _of_file(path: Path) -> list[Candidate]:
    """The file as it is, and what could be made of it, where that can be made here."""
    file = read_model(path)
    own = Candidate(file.type, file)
    if missing_extra() or not file.matrices.keys() <= {"F32", "F16", "BF16"}:
        return [own]
    try:
        made = _of_source(str(path))
    except SprigError as e:
        log.info("%s cannot be quantized: %s", path, e)
        return [own]
    return [own, *(one for one in made if one.recipe != file.type)]


def _of_source(model: str, *, revision: str | None = None, token: str | None = None, offline: bool = False) -> list[Candidate]:
    from agent.gguf.check import check
    from pipeline.card import provenance_keys
    from pipeline.format.gguf_file import TensorSpec, lay_out
    from pipeline.model import from_checkpoint, from_gguf
    from pipeline.recipes.mixtures import Weight, block_order, choose_types, find_recipe
    from pipeline.sources.source import open_source

    source = open_source(model, revision=revision, token=token, offline=offline)
    first = find_recipe("Q8_0")  # which one it is only changes a word in the header
    read = from_gguf(source, first) if source.kind == "gguf" else from_checkpoint(source, first)
    written = {**read.keys, **provenance_keys(source, first, [], None)}
    keys: Mapping[str, object] = written
    if source.kind == "gguf":
        assert source.path is not None
        keys = check(source.path).keys
    weights = [Weight(t.name, t.shape, read.stored[t.name]) for t in sorted(read.tensors, key=lambda t: block_order(t.name))]
    header = 0
    found: list[Candidate] = []
    for name in _BY_QUALITY:
        choices = choose_types(weights, find_recipe(name), read.facts)
        specs = [TensorSpec(w.name, w.shape, choices[w.name].type) for w in weights]
        header = header or len(lay_out(written, specs).header)
        size = header + sum(-(-spec.nbytes // 32) * 32 for spec in specs)
        facts = model_facts(
            {**keys, "sprig.recipe": name}, {spec.name: spec for spec in specs}, path=Path(model), size=size, identity=""
        )
        found.append(Candidate(name, facts))
    return found
