"""A calibration from end to end: the model, the text, the sums, the imatrix file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import OutputError, SprigError
from agent.files import human_size, make_folder
from agent.gguf.reader import read_header
from agent.models.file import read_model
from agent.progress import OnProgress, Progress
from pipeline.as_gguf import as_gguf
from pipeline.calibrate.collect import collect
from pipeline.calibrate.statistics import Statistics
from pipeline.calibrate.talks import write_talks
from pipeline.calibrate.text import WINDOW, CalibrationText, from_pieces, read_files
from pipeline.format.imatrix import SquareSums, merge_sums, read_sums
from pipeline.forward.process import ForwardProcess
from pipeline.quantize import timed

TOKENS = 8192
_EXACT = ("F32", "F16", "BF16", "Q8_0")
TEXT = "text.json"
_KINDS, _MOST = ("F32", "F16", "Q8_0"), 2_500_000_000  # in which a checkpoint is measured; bytes of all but the last


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A finished calibration.

    Attributes:
        path: the imatrix.
        tensors: weights in it.
        tokens, windows: of text that were read; ``left`` tokens of it were not.
        datasets: what the text was, in words.
        statistics: the folder with second moments, if one was asked for.
        seconds: stage -> seconds.
        merged: files that were added.
    """

    path: Path
    tensors: int
    tokens: int
    windows: int
    left: int
    datasets: tuple[str, ...]
    statistics: Path | None
    seconds: dict[str, float]
    merged: tuple[Path, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "path": str(self.path), "tensors": self.tensors, "tokens": self.tokens, "windows": self.windows, "left": self.left,
            "datasets": list(self.datasets), "statistics": self.statistics and str(self.statistics),
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
            "merged": [str(path) for path in self.merged], "notes": list(self.notes),
        }  # fmt: skip


def calibrate(
    model: str | None,
    out: Path | str,
    *,
    texts: Sequence[Path] = (),
    tokens: int = TOKENS,
    statistics: Path | None = None,
    head: bool = False,
    merge: Sequence[Path] = (),
    resume: bool = False,
    threads: int | None = None,
    memory: int | None = None,
    on_step: OnProgress = lambda step: None,
    **source: Any,
) -> Calibrated:
    """Measure what a model's weights are multiplied with, and write llama.cpp's imatrix file.

    Args:
        model: a GGUF, which is computed with as it is, or a checkpoint as ``quantize`` takes it; None only merges.
        out: the imatrix file.
        texts: files in UTF-8; by default the model writes its text itself, from the project's seed prompts.
        tokens: of text, at most.
        statistics: a folder for second moments too, as rounding and the budget read them.
        head: put the head's input into the file, which llama-imatrix leaves out unless it is asked.
        merge: imatrix files whose sums are added.
        resume: go on with what a killed run has left in ``statistics``, or beside ``out``.
        memory: bytes to use; by default 70 % of what is available.
        on_step: told of the stages "write", the tokens of the model's own text, and "measure", the windows that were read.
        source: ``revision``, ``token``, ``offline`` and ``base``, as ``quantize`` has them.

    Raises:
        SprigError: in one line, what is wrong and what to do.
    """
    out, seconds = Path(out), dict[str, float]()
    parts = [read_sums(path, "--merge") for path in merge]
    if model is None:
        if len(parts) < 2:
            raise SprigError("nothing to do: name a model to calibrate, or two files to merge")
        return _written(out, merge_sums(parts), seconds, CalibrationText((), ()), tuple(merge), ())
    if tokens < 2 * 64:
        raise SprigError(f"--tokens {tokens} is too few: take 1024 at least, {TOKENS} is usual")
    _check_place(out)
    folder = statistics or out.with_name(f"{out.name}.part")
    run = _Run(folder, statistics is not None, resume, threads, memory, on_step, seconds)
    with ExitStack() as stack:
        with timed(seconds, "model"):
            scratch = out.absolute().with_name(f".{out.name[:60]}.model")
            gguf = stack.enter_context(as_gguf(model, scratch, {**source, "threads": threads}, kinds=_KINDS, most=_MOST))
            if not read_model(gguf).causal:
                raise SprigError(f"{gguf.name} is an embedding model: only models that write text can be calibrated")
        text, found = run.measure(gguf, texts, tokens)
        sums = merge_sums([found.square_sums(head=head), *parts])
        result = _written(out, sums, seconds, text, tuple(merge), (*_poor(gguf), *found.facts.notes), statistics)
    if statistics is None:
        shutil.rmtree(folder, ignore_errors=True)
    return result


@dataclass(frozen=True, slots=True)
class _Run:
    """How a model is measured, and where the sums go; ``kept`` if they stay there."""

    folder: Path
    kept: bool
    resume: bool
    threads: int | None
    memory: int | None
    on_step: OnProgress
    seconds: dict[str, float]

    def measure(self, gguf: Path, texts: Sequence[Path], tokens: int) -> tuple[CalibrationText, Statistics]:
        """Choose the text and read it. What a failed run leaves in a folder of its own is removed."""
        own = not self.kept and not self.folder.exists()
        try:
            with timed(self.seconds, "write"):
                text = self._text(gguf, texts, tokens)
            with timed(self.seconds, "measure"):
                found = collect(
                    gguf, text.windows, self.folder, hessians=self.kept, threads=self.threads, memory=self.memory,
                    on_progress=lambda done, total: self.on_step(Progress("measure", done, total, "windows")), resume=self.resume,
                    datasets=text.datasets,
                )  # fmt: skip
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command with --resume goes on from what was measured") from None
        except SprigError:
            if own:
                shutil.rmtree(self.folder, ignore_errors=True)
            raise
        return text, found

    def _text(self, gguf: Path, texts: Sequence[Path], tokens: int) -> CalibrationText:
        """The text to read. What the model wrote is kept in the folder, and read again when a run goes on."""
        size = min(WINDOW, read_header(gguf).context_length or WINDOW)
        with ForwardProcess(gguf, n_ctx=64, threads=1, repack=False) as process:
            if texts:
                (self.folder / TEXT).unlink(missing_ok=True)
                return read_files(process, texts, size, tokens)
            bos = process.bos if process.add_bos else None
        kept = self.folder / TEXT
        if self.resume and (text := CalibrationText.load(kept)) is not None:
            return text
        from pipeline.text.calibration import own_text
        from pipeline.text.seeds import prompts

        written = write_talks(
            gguf, prompts(), own_text(), tokens, threads=self.threads, memory=self.memory,
            on_progress=lambda done, total: self.on_step(Progress("write", done, total, "tokens")),
        )  # fmt: skip
        what = f"Sprig: {len(written.talks)} talks that the model wrote, {len(written.paragraphs)} paragraphs of the project"
        text = from_pieces(written.mixed(), size, tokens, bos, what)
        self.folder.mkdir(parents=True, exist_ok=True)
        text.save(kept)
        return text


def kept_text(statistics: Path) -> CalibrationText | None:
    """The text that the model wrote itself, of a folder with statistics; None where the user gave one."""
    return CalibrationText.load(statistics / TEXT)


def _written(
    out: Path, sums: SquareSums, seconds: dict[str, float], text: CalibrationText, merged: tuple[Path, ...],
    notes: tuple[str, ...], statistics: Path | None = None,
) -> Calibrated:  # fmt: skip
    sums.write(out)
    return Calibrated(
        out, len(sums.sums), text.tokens, len(text.windows), text.left, sums.datasets, statistics, seconds, merged, notes
    )


def _check_place(out: Path) -> None:
    """Before minutes of work: raises OutputError if the file cannot be written there."""
    make_folder(out.parent)
    if out.is_dir():
        raise OutputError(f"{out} is a folder: name a file with -o, like {out / 'imatrix.gguf'}")


def _poor(gguf: Path) -> tuple[str, ...]:
    """A note on a model that was quantized to fewer than eight bits before."""
    tensors = read_header(gguf).tensors
    kinds = {t.type.name for name, t in tensors.items() if name.startswith("blk.") and len(t.shape) > 1}
    if low := sorted(kinds - set(_EXACT)):
        return (f"{gguf.name} holds {', '.join(low)}: what is measured is what that file computes; Q8_0 or better is truer",)
    return ()


def words(found: Calibrated) -> list[tuple[str, str]]:
    """The result for a person: labels and values."""
    rows = [("imatrix", str(found.path)), ("tensors", str(found.tensors))]
    if found.windows:
        rest = f"; {found.left:,} more tokens were not read (--tokens)" if found.left else ""
        rows.append(("text", f"{found.tokens:,} tokens in {found.windows} windows{rest}"))
    if found.merged:
        rows.append(("merged", ", ".join(map(str, found.merged))))
    rows += [("of", name) for name in found.datasets]
    if found.statistics is not None:
        size = sum(p.stat().st_size for p in found.statistics.rglob("*") if p.is_file())
        rows.append(("statistics", f"{found.statistics} ({human_size(size)})"))
    if found.seconds:
        spent = ", ".join(f"{stage} {s:.1f}" for stage, s in found.seconds.items())
        rows.append(("seconds", f"{sum(found.seconds.values()):.1f}: {spent}"))
    return rows
