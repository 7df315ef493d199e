"""A pruning from end to end: choose by measurement, cut, repair, write a checkpoint, compare it with the original."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from agent.files import atomic_write, publish_folder, scratch_folder
from agent.progress import OnProgress, Progress
from pipeline.calibrate.statistics import Statistics
from pipeline.card import size_label
from pipeline.checkpoint.card import checkpoint_card, mentioned
from pipeline.checkpoint.carried import carried_files
from pipeline.checkpoint.write import NewTensor, as_stored, checkpoint_draft, refuse_place, write_checkpoint
from pipeline.evaluate.reference import made_reference
from pipeline.format.ggml import Bytes
from pipeline.preflight import PlanOptions
from pipeline.prune.activations import Activations
from pipeline.prune.check import check_cuts
from pipeline.prune.cuts import Cuts, read_cuts
from pipeline.prune.edits import Edits
from pipeline.prune.measure import Distance, distance, measure, read
from pipeline.prune.outcome import CutPart, Pruned
from pipeline.prune.parts.depth import config_of, cut_depth, measure_influence
from pipeline.prune.parts.ffn import cut_ffn
from pipeline.prune.parts.heads import cut_heads
from pipeline.prune.parts.width import cut_width
from pipeline.prune.repairs import Repairs
from pipeline.prune.structure import Structure
from pipeline.prune.vocab.cut import VocabularyCut
from pipeline.prune.vocabulary import apply_vocabulary, cut_of
from pipeline.prune.zeros.thinning import NO_KERNEL, Packer, Thinning
from pipeline.quantize import dry_run
from pipeline.recipes.names import USUAL
from pipeline.sources.base_model import open_model
from pipeline.sources.checkpoint import Checkpoint
from pipeline.sources.source import Source, open_checkpoint


def prune(
    model: str,
    out: Path | str,
    *,
    vocab: Sequence[Path] = (),
    vocab_size: int | None = None,
    ffn: str | int | None = None,
    heads: str | int | None = None,
    width: str | int | None = None,
    depth: str | int | None = None,
    sparsity: float | None = None,
    pattern: str | None = None,
    method: str | None = None,
    statistics: Path | None = None,
    text: Sequence[Path] = (),
    repair: bool = True,
    check: bool = True,
    threads: int | None = None,
    on_progress: OnProgress = lambda step: None,
    **options: Any,
) -> Pruned:
    """Write a smaller checkpoint of a model.

    Args:
        model: a checkpoint as ``quantize`` takes it: a folder or a model of the Hub.
        out: the folder to write; it must not exist.
        vocab: texts whose tokens stay; ``vocab_size``: how many tokens stay.
        ffn, heads, width, depth: how many neurons of each feed-forward part, query heads, channels and layers stay, or as "20%"
            how many go; depth also "drop:10,12-14".
        sparsity: the share of weights in the layers that become zero; ``pattern`` as "2:4", ``method`` of
            ``pipeline.prune.zeros.methods``.
        statistics: what ``sprig calibrate --statistics`` measured on the model; by default it is measured first, on ``text``, or
            on what the model writes itself.
        repair: False leaves the weights that stay as they were.
        check: False leaves out the KL divergence from the original.
        threads: of the measurements; by default every core.
        options: ``base``, ``revision``, ``token`` and ``offline``, as ``quantize`` has them.

    Raises:
        SprigError: in one line, what is wrong and what to do; nothing is written.
    """
    cuts = read_cuts(
        vocab=tuple(vocab), vocab_size=vocab_size, ffn=ffn, heads=heads, width=width, depth=depth, sparsity=sparsity,
        pattern=pattern, method=method,
    )  # fmt: skip
    if revision := options.pop("revision", None):
        model = f"{model}@{revision}"
    way = _Way(model, Path(out), statistics, tuple(text), repair, check, threads, on_progress, options)
    refuse_place(way.out)
    structure = Structure(open_model(model, **options))
    check_cuts(cuts, structure)
    return _carry_out(structure, cuts, way)


@dataclass(frozen=True, slots=True)
class _Way:
    """The model as it was named, where the new one goes, and how it is made; as ``prune`` has it."""

    model: str
    out: Path
    statistics: Path | None
    texts: tuple[Path, ...]
    repair: bool
    check: bool
    threads: int | None
    report: OnProgress
    options: Mapping[str, Any]


def _carry_out(structure: Structure, cuts: Cuts, way: _Way) -> Pruned:
    check = way.check and structure.is_decoder and not cuts.cuts_vocabulary
    with ExitStack() as stack:
        draft = stack.enter_context(checkpoint_draft(way.out))
        work = stack.enter_context(scratch_folder(way.out.absolute().with_name(f".{way.out.name[:100]}.work")))
        run = _Run(structure, cuts, way, draft, work)
        if cuts.cuts_vocabulary:  # first, for it may be refused, and measuring takes minutes
            way.report(Progress.begun("vocab"))
            with run.timed("vocab"):
                run.vocabulary = cut_of(structure, cuts.vocab, cuts.vocab_size)
        if check or cuts.needs_influence or (cuts.needs_activations and way.statistics is None):
            way.report(Progress.begun("model"))
            with run.timed("model"):
                made = made_reference(
                    way.model, folder=work / "original", options=cast(PlanOptions, {**way.options, "threads": way.threads})
                )
                run.original = stack.enter_context(made)
        with run.timed("measure"):
            run.measure()
        with run.timed("prune"):
            run.write(stack.enter_context(open_checkpoint(structure.source)))
        return run.finish(check=check)


def _gguf_size(model: str, work: Path, options: Mapping[str, Any]) -> int:
    """Bytes of a GGUF of the usual recipe. Raises SprigError if none could be made."""
    plan = dry_run(model, USUAL, work / "size.gguf", **options)
    return int(plan.size)  # type: ignore[union-attr]


@dataclass
class _Run:
    """One pruning on its way: what was measured, then what was written."""

    structure: Structure
    cuts: Cuts
    way: _Way
    draft: Path
    work: Path
    original: Path | None = None
    vocabulary: VocabularyCut | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    parts: list[CutPart] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    inputs: Activations | None = None
    repairs: Repairs | None = None
    thinning: Thinning | None = None
    influence: list[float] | None = None
    growth: dict[str, tuple[int, int]] = field(default_factory=dict)
    weights: tuple[int, int] = (0, 0)
    bytes: tuple[int, int] = (0, 0)
    packed: tuple[int, int] | None = None

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = time.monotonic() - begun

    def measure(self) -> None:
        """Activations and influence, as far as the cuts ask for them. Raises SprigError."""
        if self.way.statistics is not None:
            self.inputs = Activations(Statistics.open(self.way.statistics, model=self.original), self.structure)
        elif self.cuts.needs_activations:
            assert self.original is not None
            found = measure(
                self.original, self.work / "statistics", self.way.texts, self.way.threads, self.way.report,
                writes_text=self.structure.is_decoder,
            )  # fmt: skip
            self.inputs = Activations(found, self.structure)
        if self.cuts.needs_influence:
            assert self.original is not None
            self.way.report(Progress.begun("influence"))
            windows = read(self.original, self.way.texts)
            self.influence = measure_influence(self.original, self.structure.layers, windows, threads=self.way.threads)

    def write(self, checkpoint: Checkpoint) -> None:
        """Choose, repair and write. Raises SprigError."""
        structure, source = self.structure, self.structure.source
        edits = Edits(structure.kept_infos)
        config, files = dict(structure.config), carried_files(source.files)
        if any(info.packed for info in structure.infos.values()):
            config.pop("quantization_config", None)
        config |= self._cut(checkpoint, edits)
        if self.vocabulary is not None:
            applied = apply_vocabulary(self.vocabulary, structure, edits, files)
            self.parts.append(applied.part)
            self.growth = applied.growth
            self.notes += self.vocabulary.notes
            config, files = config | applied.config, applied.files
            self.notes.append(
                "the vocabulary is another, so a KL divergence from the original says nothing: compare bits per byte"
            )
        tensors = list(edits.tensors())
        self.weights = structure.weights, sum(t.weights for t in tensors)
        files["config.json"] = json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n"
        content = self._content(checkpoint, edits, len(tensors))
        written = write_checkpoint(self.draft, tensors, content, files)
        self.bytes = sum(w.size for w in source.weights) or written, written
        self._thinned()
        atomic_write(self.draft / "README.md", _card(self.way.out.name, source, self.parts, self.weights))

    def _cut(self, checkpoint: Checkpoint, edits: Edits) -> dict[str, Any]:
        """Note all edits but the vocabulary's; what changes in config.json."""
        structure, cuts = self.structure, self.cuts
        blocks, config = tuple(range(structure.layers)), dict[str, Any]()
        if cuts.depth is not None:
            part, blocks = cut_depth(structure, edits, cuts.depth, self.influence)
            self.parts.append(part)
            config |= config_of(structure, blocks)
        if cuts.ffn or cuts.heads or cuts.width:
            assert self.inputs is not None
            self.repairs = Repairs(self.inputs, wanted=self.way.repair)
            given = structure, checkpoint, edits, self.inputs, self.repairs, blocks
            if cuts.ffn:
                self.parts.append(cut_ffn(*given, cuts.ffn))
                config |= structure.settings(intermediate_size=self.parts[-1].after)
            if cuts.heads:
                self.parts.append(cut_heads(*given, cuts.heads))
                queries = self.parts[-1].after
                config |= {
                    "num_attention_heads": queries, "num_key_value_heads": queries // structure.heads.shared,
                    "head_dim": structure.heads.size,
                }  # fmt: skip
            if cuts.width:
                part, changes = cut_width(*given, cuts.width)
                self.parts.append(part)
                config |= changes
        if cuts.sparsity is not None:
            self.thinning = Thinning(cuts.sparsity, self.inputs)
            self.thinning.plan(structure, edits, blocks)
        return config

    def _content(self, checkpoint: Checkpoint, edits: Edits, count: int) -> Callable[[NewTensor], Bytes]:
        """Bytes of each new tensor; with sparsity they are compressed on the way, the old ones too."""
        packers = (Packer(), Packer()) if self.cuts.sparsity is not None else None
        done = 0
        self.way.report(Progress("prune", done, count, "tensors"))

        def content(tensor: NewTensor) -> Bytes:
            nonlocal done
            weights = edits.read(checkpoint, tensor.source)
            old = checkpoint.rows(tensor.source, 0, checkpoint.tensors[tensor.source].n_rows).reshape(-1)
            new = old if weights is None else as_stored(weights, tensor.dtype)
            if packers:
                packers[0].add(old)
                packers[1].add(new)
            done += 1
            self.way.report(Progress("prune", done, count, "tensors"))
            if packers and done == count:
                self.packed = packers[0].finish(), packers[1].finish()
            return new

        return content

    def _thinned(self) -> None:
        """What the zeros did, now that they are counted."""
        if self.thinning is not None:
            assert self.cuts.sparsity is not None
            self.parts.append(
                CutPart("sparsity", self.thinning.before, self.thinning.after, f"{self.cuts.sparsity.words}, in the layers")
            )
            self.notes.append(NO_KERNEL)

    def finish(self, *, check: bool) -> Pruned:
        """See what a GGUF would take, compare with the original, and give the folder its name. Raises SprigError."""
        with self.timed("plan"):
            sizes = _gguf_size(self.way.model, self.work, self.way.options), _gguf_size(str(self.draft), self.work, {})
        apart = None
        if check:
            with self.timed("check"):
                apart = self._distance()
        publish_folder(self.draft, self.way.out.absolute())
        repairs = [*(self.repairs.done if self.repairs else ()), *(self.thinning.done if self.thinning else ())]
        kld, error, windows = (apart.kld, apart.error, apart.windows) if apart else (None, None, 0)
        return Pruned(
            self.way.out, self.structure.source.named.name, tuple(self.parts), tuple(repairs), self.weights, self.bytes,
            self.packed, USUAL, sizes, kld, error, windows, self.growth, self.seconds, tuple(self.notes),
        )  # fmt: skip

    def _distance(self) -> Distance:
        assert self.original is not None
        self.way.report(Progress.begun("check"))
        with made_reference(str(self.draft), folder=self.work / "pruned") as pruned:
            return distance(self.original, pruned, self.way.threads)


def _card(name: str, source: Source, parts: Sequence[CutPart], weights: tuple[int, int]) -> bytes:
    before, after = map(size_label, weights)
    return checkpoint_card(
        name, [source], tag="pruned", what=f"{mentioned(source)}, pruned from {before} to {after} weights.",
        table=[("cut", "before", "after", ""), *((one.kind, f"{one.before:,}", f"{one.after:,}", one.kept) for one in parts)],
        then="Make a GGUF of it with `sprig quantize`, or let it learn again first (`sprig distill`).",
    )  # fmt: skip
