"""Whatever kills a run, nothing half-written gets a name, nothing finished is lost, and the next run ends in the same bytes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.errors import OutputError, SprigError, VocabError
from pipeline import quantize
from pipeline.quantize import dry_run
from tests.fixtures.disk import small_disk
from tests.fixtures.random_llama import SMALL, write_checkpoint

pytestmark = pytest.mark.slow

RECIPE = "Q4_0"  # its kernel is the quickest; test_quantize_hub.py kills runs of a mixture
FINISHED = b"a file that an earlier run finished"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hf") / "tiny-llama", SMALL, shards=2)


@pytest.fixture(scope="module")
def unbroken(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return quantize(str(checkpoint), RECIPE, tmp_path_factory.mktemp("ref") / "out.gguf").path.read_bytes()


@contextmanager
def calls(module: Any, name: str, at: int, act: Callable[[], None]) -> Iterator[None]:
    """Within, ``act`` happens right before the ``at``-th call (from 0) of ``module.name``."""
    real, count = getattr(module, name), iter(range(1 << 30))

    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(count) == at:
            act()
        return real(*args, **kwargs)

    setattr(module, name, counted)
    try:
        yield
    finally:
        setattr(module, name, real)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_and_kill(module: Any, name: str, at: int, job: Callable[[], object]) -> None:
    """The job in a process of its own, killed with SIGKILL right before that call."""
    child = os.fork()
    if not child:
        try:
            with calls(module, name, at, die):
                job()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the run ended before it could be killed"


# os.pwrite: the header, then each of 39 slabs. os.fsync: of the file, of the card, of the file again. os.replace: card, file.
KILLS = [("pwrite", n) for n in (0, 1, 2, 3, 5, 8, 12, 16, 20, 24, 28, 32, 36, 38, 39)]
KILLS += [("fsync", 0), ("fsync", 1), ("posix_fallocate", 0), ("replace", 0), ("replace", 1)]


@pytest.mark.parametrize(("name", "at"), KILLS, ids=lambda v: str(v))
def test_kill_9_at_twenty_points(name: str, at: int, checkpoint: Path, unbroken: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(FINISHED)
    run_and_kill(os, name, at, lambda: quantize(str(checkpoint), RECIPE, out, threads=1))
    assert out.read_bytes() == FINISHED, "the finished file was touched before the new one was whole"
    result = quantize(str(checkpoint), RECIPE, out, resume=True, threads=1)
    assert out.read_bytes() == unbroken
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.gguf", "out.md"]
    done = sum(entry.nbytes for entry in result.preflight.layout.entries)
    assert result.resumed == done if name in ("fsync", "replace") else result.resumed < done
    assert result.resumed > 0 or at < 2


def test_resume_believes_the_file_and_not_the_journal(checkpoint: Path, unbroken: bytes, tmp_path: Path) -> None:
    """After a power loss the journal may promise slabs that the disk never got."""
    out, part = tmp_path / "out.gguf", tmp_path / "out.gguf.part"
    run_and_kill(os, "fsync", 0, lambda: quantize(str(checkpoint), RECIPE, out, threads=1))
    with part.open("rb+") as f:
        f.seek(len(unbroken) // 2)
        f.write(bytes(4096))
    result = quantize(str(checkpoint), RECIPE, out, resume=True, threads=1)
    assert 0 < result.resumed < len(unbroken) * 0.7
    assert out.read_bytes() == unbroken


@pytest.mark.parametrize("line", ["999 99999999999999 00000000", "9 99999999999999999999999 0", "99999999999999999999999 1 0"])
def test_a_journal_that_the_disk_mixed_up_costs_time_only(line: str, checkpoint: Path, unbroken: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    run_and_kill(os, "pwrite", 15, lambda: quantize(str(checkpoint), RECIPE, out, threads=1))
    journal = tmp_path / "out.gguf.part.journal"
    journal.write_text(f"{journal.read_text().splitlines()[0]}\n{line}\n")
    assert quantize(str(checkpoint), RECIPE, out, resume=True, threads=1).resumed == 0
    assert out.read_bytes() == unbroken


def test_resume_of_another_job_starts_anew(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    run_and_kill(os, "pwrite", 20, lambda: quantize(str(checkpoint), RECIPE, out, threads=1))
    assert quantize(str(checkpoint), "Q8_0", out, resume=True).resumed == 0
    fresh = quantize(str(checkpoint), "Q8_0", tmp_path / "fresh.gguf").path.read_bytes()
    assert out.read_bytes() == fresh


def test_nothing_of_a_larger_job_shows_through_a_smaller_one(checkpoint: Path, unbroken: bytes, tmp_path: Path) -> None:
    out, part = tmp_path / "out.gguf", tmp_path / "out.gguf.part"
    run_and_kill(os, "pwrite", 39, lambda: quantize(str(checkpoint), "F32", out, threads=1))
    part.write_bytes(b"\xff" * part.stat().st_size)
    assert quantize(str(checkpoint), RECIPE, out, resume=True).resumed == 0
    assert out.read_bytes() == unbroken


def test_without_resume_what_a_killed_run_left_is_thrown_away(checkpoint: Path, unbroken: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    run_and_kill(os, "pwrite", 20, lambda: quantize(str(checkpoint), RECIPE, out, threads=1))
    assert quantize(str(checkpoint), RECIPE, out).resumed == 0
    assert out.read_bytes() == unbroken


def test_two_runs_at_once_cannot_mix(checkpoint: Path, unbroken: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    refused: list[str] = []

    def second() -> None:
        with pytest.raises(OutputError, match="written by another run") as caught:
            quantize(str(checkpoint), RECIPE, out)
        refused.append(str(caught.value))

    with calls(os, "pwrite", 10, second):
        quantize(str(checkpoint), RECIPE, out, threads=1)
    assert refused
    assert out.read_bytes() == unbroken


def test_a_file_that_fails_its_check_is_not_published(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(FINISHED)
    real = os.pwrite

    def flipped(fd: int, data: Any, offset: int) -> int:
        # The tensor table says another type for one tensor than its data has: only the check at the end can see that.
        raw = bytes(data)
        return real(fd, raw.replace(b"tokenizer.ggml.tokens", b"tokenizer.ggml.t0kens"), offset)

    monkeypatch.setattr(os, "pwrite", flipped)
    with pytest.raises(OutputError, match="did not pass its check and was not published"):
        quantize(str(checkpoint), RECIPE, out)
    assert out.read_bytes() == FINISHED
    assert [p.name for p in tmp_path.iterdir()] == ["out.gguf"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "2m") as place:
        yield place


def test_a_disk_that_is_too_small_is_noticed_beforehand(checkpoint: Path, disk: Path) -> None:
    with pytest.raises(OutputError, match="not enough disk"):
        quantize(str(checkpoint), "F32", disk / "out.gguf")
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("recipe", ["Q4_K_M", "Q8_0"])
def test_a_disk_that_fills_up_meanwhile_costs_nothing_finished(
    recipe: str, checkpoint: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preflight saw room; by the time of writing somebody else has taken it."""
    monkeypatch.setattr("pipeline.preflight.free_disk", lambda path: 1 << 40)
    out = disk / "out.gguf"
    out.write_bytes(FINISHED)
    (disk / "hog").write_bytes(bytes(1_300_000))
    with pytest.raises(OutputError, match=r"(?i)space|disk|free") as caught:
        quantize(str(checkpoint), recipe, out)
    assert "\n" not in str(caught.value)
    assert out.read_bytes() == FINISHED
    assert sorted(p.name for p in disk.iterdir()) == ["hog", "out.gguf"]
    (disk / "hog").unlink()
    if recipe == "Q4_K_M":
        assert quantize(str(checkpoint), recipe, out).size == out.stat().st_size


def test_ctrl_c_keeps_what_was_done_for_a_resumed_run(checkpoint: Path, unbroken: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"

    def interrupt() -> None:
        raise KeyboardInterrupt

    with calls(os, "pwrite", 25, interrupt), pytest.raises(KeyboardInterrupt):
        quantize(str(checkpoint), RECIPE, out, threads=1)
    assert not out.exists()
    assert quantize(str(checkpoint), RECIPE, out, resume=True, threads=1).resumed > 0
    assert out.read_bytes() == unbroken


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.json", b"{", "config.json.*not JSON"),
        ("config.json", b"[" * 100_000, "config.json.*not JSON"),
        ("config.json", b'{"model_type": "brand_new"}', "'brand_new' is not supported.*--llama-cpp"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab"', "tokenizer.json"),
        ("tokenizer.json", b"{}", "tokenizer"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        ("model.safetensors", b"", "model.safetensors"),
        ("model.safetensors", (10**6).to_bytes(8, "little") + b"{}", "model.safetensors"),
    ],
)
def test_a_broken_file_ends_in_one_clear_line(file: str, content: bytes, says: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", SMALL)
    (folder / file).write_bytes(content)
    out = tmp_path / "out.gguf"
    out.write_bytes(FINISHED)
    with pytest.raises(SprigError, match=says) as caught:
        quantize(str(folder), "Q4_0", out)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert out.read_bytes() == FINISHED
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf", "out.gguf"]


@pytest.mark.parametrize(
    "template",
    [
        b"{% for m in messages %}{{ m }",
        b"{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
        b"{{ raise_exception('no thanks') }}",
        b"\xff",
        b"x" * 2_000_000,
    ],
    ids=["syntax", "endless", "raises", "no UTF-8", "large"],
)
def test_a_broken_chat_template_is_left_out_or_replaced(template: bytes, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", SMALL)
    (folder / "chat_template.jinja").write_bytes(template)
    plan = dry_run(str(folder), "Q4_0", tmp_path / "out.gguf")
    assert not any(key.startswith("tokenizer.chat_template") for key in plan.model.keys)
    assert plan.model.template.startswith("none")
    assert len([note for note in plan.notes if "chat template" in note and "left out" in note]) == 1
    good, bad = tmp_path / "good.jinja", tmp_path / "bad.jinja"
    good.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    bad.write_bytes(template)
    plan = dry_run(str(folder), "Q4_0", tmp_path / "out.gguf", chat_template=good)
    assert plan.model.keys["tokenizer.chat_template"] == good.read_text()
    with pytest.raises(VocabError, match=r"--chat-template: .*bad\.jinja (?:does not|writes more|is not|has|cannot)"):
        dry_run(str(folder), "Q4_0", tmp_path / "out.gguf", chat_template=bad)


def test_a_chat_template_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", SMALL)
    with pytest.raises(VocabError, match=r"--chat-template: .*none\.jinja cannot be read"):
        dry_run(str(folder), "Q4_0", tmp_path / "out.gguf", chat_template=tmp_path / "none.jinja")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_hidden_layers": 5}, r"blk\.4\."),
        ({"num_hidden_layers": 3}, "block 3"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_hidden_layers": "four"}, "num_hidden_layers"),
        ({"hidden_size": 128}, "shape"),
        ({"intermediate_size": 511}, "shape"),
        ({"num_key_value_heads": 1}, "shape"),
        ({"vocab_size": 10**12}, ""),
        ({"rms_norm_eps": "nan"}, "rms_norm_eps"),
        ({"hidden_act": "relu6"}, "relu6"),
        ({"quantization_config": {"quant_method": "aqlm"}}, "aqlm"),
        ({"rope_scaling": {"rope_type": "wobbly", "factor": 2}}, "wobbly"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_named(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    import json

    folder = write_checkpoint(tmp_path / "hf", SMALL)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    if not says:  # the rows of the embedding say the size of the vocabulary
        assert quantize(str(folder), "Q4_0", tmp_path / "out.gguf").path.exists()
        return
    with pytest.raises(SprigError, match=says) as caught:
        quantize(str(folder), "Q4_0", tmp_path / "out.gguf")
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf"]


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", SMALL, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(SprigError, match=r"model-00002-of-00003\.safetensors"):
        quantize(str(folder), "Q4_0", tmp_path / "out.gguf")
