"""The command as a person or a script meets it: real processes, real files, exit status, what stands on which stream."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.gguf.reader import read_header
from pipeline.format.gguf_file import lay_out
from tests.fixtures.command import one_line, only_json, process, sprig
from tests.fixtures.loopback_hub import LoopbackHub
from tests.fixtures.paths import ROOT
from tests.fixtures.random_llama import SMALL, LlamaShape, write_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", SMALL)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


# quantize


def test_v_tells_the_stages_and_without_it_there_is_no_log_line(checkpoint: Path, tmp_path: Path) -> None:
    quiet, told = (
        start("quantize", checkpoint, "-q", "Q8_0", "-o", tmp_path / f"{len(v)}.gguf", *v, home=tmp_path)
        for start, v in ((sprig, []), (process, ["-v"]))  # what -v sets would stay in this process
    )
    assert (quiet.returncode, told.returncode) == (0, 0)
    assert "pipeline." not in quiet.stderr
    for line in ("plan: Q8_0 of ", "download took ", "quantize took ", "check took ", "publish took "):
        assert f"pipeline.quantize: {line}" in told.stderr


def test_a_folder_becomes_a_file_in_the_store(checkpoint: Path, home: Path) -> None:
    done = sprig("quantize", checkpoint, "-q", "Q8_0", home=home)
    assert done.returncode == 0, done.stderr
    made = home / "models" / "tiny-Q8_0.gguf"
    assert str(made) in done.stdout
    assert "sprig embed" not in done.stdout
    assert f"{made.stat().st_size:,} bytes" in done.stdout
    assert made.with_suffix(".md").is_file()
    assert read_header(made).keys["sprig.recipe"] == "Q8_0"
    assert sorted(p.name for p in made.parent.iterdir()) == ["tiny-Q8_0.gguf", "tiny-Q8_0.md"]


def test_a_model_that_writes_no_text_is_told_with_its_use(tmp_path: Path, home: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", SMALL)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    done = sprig("quantize", folder, "-q", "Q8_0", home=home)
    assert f"sprig embed {home / 'models' / 'tiny-Q8_0.gguf'} 'a text' gives its vector" in done.stdout
    assert only_json(sprig("embed", "tiny-Q8_0", "a text", "--json", home=home))["pooling"] == "last"


def test_json_is_alone_on_standard_output(checkpoint: Path, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    done = process("quantize", checkpoint, "-q", "q4_0", "-o", out, "--json", home=home)
    assert done.returncode == 0, done.stderr
    told = only_json(done)
    assert told["path"] == str(out)
    assert told["recipe"] == "Q4_0"
    assert told["size"] == out.stat().st_size
    assert set(told["seconds"]) >= {"preflight", "quantize", "check"}
    assert "quantize" in done.stderr, "progress belongs on standard error"


def test_a_dry_run_knows_the_size_to_the_byte_and_writes_nothing(checkpoint: Path, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    plan = only_json(sprig("quantize", checkpoint, "-o", out, "--dry-run", "--json", home=home))
    assert list(tmp_path.glob("x*")) == []
    shown = sprig("quantize", checkpoint, "-o", out, "--dry-run", home=home)
    assert f"{plan['size']:,} bytes" in shown.stdout
    assert sprig("quantize", checkpoint, "-o", out, home=home).returncode == 0
    assert out.stat().st_size == plan["size"]


def test_every_option_of_the_mixture_reaches_the_file(checkpoint: Path, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    options = ["--tensor-type", "ffn_down=Q6_K", "--tensor-type", r"blk\.0\.attn_(q|k)=Q5_0", "--output-type", "F16"]
    options += ["--embedding-type", "Q8_0", "--threads", "1"]
    done = sprig("quantize", checkpoint, "-q", "Q4_0", "-o", out, *options, home=home)
    assert done.returncode == 0, done.stderr
    types = {name: t.type.name for name, t in read_header(out).tensors.items()}
    assert types["blk.2.ffn_down.weight"] == "Q6_K"
    assert types["blk.0.attn_q.weight"] == types["blk.0.attn_k.weight"] == "Q5_0"
    assert types["blk.1.attn_q.weight"] == types["blk.0.ffn_up.weight"] == "Q4_0"
    assert types["output.weight"] == "F16"
    assert types["token_embd.weight"] == "Q8_0"


@pytest.mark.slow
def test_a_hub_model_at_a_revision(checkpoint: Path, home: Path, tmp_path: Path) -> None:
    with LoopbackHub({"org/tiny": checkpoint}) as hub:
        online = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        done = sprig("quantize", "org/tiny@main", "-q", "Q8_0", "--json", home=home, **online)
        assert done.returncode == 0, done.stderr
        told = only_json(done)
        assert len(told["commit"]) == 40
        assert told["download"] > 0
        seen = sprig("inspect", "org/tiny", "--json", home=home, **online)
        assert only_json(seen)["architecture"] == "llama"
    again = sprig("quantize", f"org/tiny@{told['commit']}", "-q", "Q4_0", "--offline", "--json", home=home, **online)
    assert only_json(again)["commit"] == told["commit"]
    listed = only_json(sprig("models", "--json", home=home))["models"]
    assert [(m["name"], m["source"], m["commit"]) for m in listed] == [
        ("tiny-Q4_0", "org/tiny", told["commit"]),
        ("tiny-Q8_0", "org/tiny", told["commit"]),
    ]


@pytest.mark.parametrize("command", ["inspect", "fit"])
def test_a_revision_of_what_has_none_is_not_passed_over(command: str, checkpoint: Path, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    assert sprig("quantize", checkpoint, "-q", "Q4_0", "-o", out, home=home).returncode == 0
    assert "is a local path, which has no revision 'v1'" in one_line(sprig(command, out, "--revision", "v1", home=home))


FAULTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "gated": ("*", {"status": 403}, "accept its terms"),
    "not there": ("*", {"status": 404}, "there is no model org/tiny"),
    "other bytes": ("*.safetensors", {"corrupt_at": 400_000}, "is not what the Hub lists"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("more", [[], ["--stream"]], ids=["download", "stream"])
def test_a_hub_that_fails_is_one_line_and_costs_nothing_finished(
    fault: str, more: list[str], checkpoint: Path, home: Path, tmp_path: Path
) -> None:
    pattern, what, says = FAULTS[fault]
    out = tmp_path / "x.gguf"
    out.write_bytes(b"finished")
    with LoopbackHub({"org/tiny": checkpoint}) as hub:
        hub.fail(pattern, times=1000, **what)
        online = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        done = sprig("quantize", "org/tiny", "-q", "Q8_0", "-o", out, *more, home=home, **online)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith(("download ", "quantize "))]
    assert line.startswith("sprig: ")
    assert says in line
    assert out.read_bytes() == b"finished"
    assert list(tmp_path.glob("x.*")) == [out]


def test_an_unknown_recipe_is_wrong_usage_and_lists_the_known(checkpoint: Path, home: Path) -> None:
    done = sprig("quantize", checkpoint, "-q", "awq", home=home)
    assert done.returncode == 2
    assert done.stdout == ""
    for word in ("'awq'", "Q4_K_M", "IQ4_NL", "Q8_0"):
        assert word in done.stderr


@pytest.mark.parametrize(
    ("args", "meant"),
    [("chta", "chat"), ("quantize x --dryrun", "--dry-run"), ("quantize x -q Q4_KM", "Q4_K_M"), ("models remov", "remove")],
)
def test_what_is_mistyped_gets_the_nearest(args: str, meant: str, home: Path) -> None:
    done = sprig(*args.split(), home=home)
    assert done.returncode == 2
    assert meant in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("args", ["", "--nonsense", "x --tensor-type Q4_0", "x --tensor-type =Q4_0", "x --threads 0"])
def test_wrong_usage_is_status_two(args: str, home: Path) -> None:
    done = sprig("quantize", *args.split(), home=home)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_missing_model_is_one_line(home: Path, tmp_path: Path) -> None:
    assert "nowhere" in one_line(process("quantize", tmp_path / "nowhere", home=home))
    assert "no-such-model" in one_line(sprig("inspect", "no-such-model", home=home))
    assert not home.exists(), "a command that failed has made a folder"


def test_a_failure_is_one_json_object_too(home: Path, tmp_path: Path) -> None:
    done = sprig("quantize", tmp_path / "nowhere", "--json", home=home)
    assert one_line(done)
    error = only_json(done)["error"]
    assert error["kind"] == "SourceError"
    assert error["message"] in done.stderr


def test_a_traceback_is_shown_only_when_asked_for(home: Path, tmp_path: Path) -> None:
    assert "Traceback" not in sprig("inspect", tmp_path / "x.gguf", home=home).stderr
    assert "Traceback" in process("inspect", tmp_path / "x.gguf", "-v", home=home).stderr


def _hear_interrupts() -> None:
    # A test run in the background of a shell ignores Ctrl-C, and its children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_an_interrupt_ends_in_130_and_leaves_no_file(home: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle of the pass: status 130, one line, nothing under the output's name, and --resume finishes."""
    large = write_checkpoint(tmp_path / "large", LlamaShape(512, 1024, 2, 8, 4, 320))
    out = tmp_path / "x.gguf"
    command = [sys.executable, "-m", "sprig", "quantize", str(large), "-q", "IQ4_NL", "-o", str(out), "--threads", "1"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_interrupts
    )
    journal = Path(f"{out}.part.journal")
    deadline = time.monotonic() + 60
    while not journal.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("sprig: interrupted; the same command with --resume goes on")
    assert "Traceback" not in errors
    assert not out.exists()
    finished = sprig("quantize", large, "-q", "IQ4_NL", "-o", out, "--resume", home=home)
    assert finished.returncode == 0, finished.stderr
    assert sorted(p.name for p in tmp_path.glob("x.*")) == ["x.gguf", "x.md"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("streams", "status"), [("2>&-", 0), (">&-", 0), ("<&- >&- 2>&-", 0), ("2>/dev/full", 0), (">/dev/full", 1), ("| true", None)]
)
def test_streams_that_are_closed_or_full_cost_no_work(
    streams: str, status: int | None, checkpoint: Path, home: Path, tmp_path: Path
) -> None:
    """A terminal may go away in the middle of a long run."""
    out = tmp_path / "x.gguf"
    command = f'"{sys.executable}" -m sprig quantize "{checkpoint}" -q Q8_0 -o "{out}" --json {streams}'
    env = {**os.environ, "SPRIG_HOME": str(home)}
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert sorted(p.name for p in tmp_path.glob("x.*")) == ["x.gguf", "x.md"]
    assert "Traceback" not in done.stderr
    if status is not None:
        assert done.returncode == status
    if status:
        assert "could not be written to standard output: No space left on device" in done.stderr


@pytest.mark.slow
def test_a_terminal_gets_bars_and_a_pipe_gets_lines(checkpoint: Path, home: Path, tmp_path: Path) -> None:
    piped = sprig("quantize", checkpoint, "-o", tmp_path / "a.gguf", home=home)
    assert "\x1b" not in piped.stderr + piped.stdout
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "sprig", "quantize", str(checkpoint), "-o", str(tmp_path / "b.gguf")]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=slave, env={**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    )
    os.close(slave)
    shown = b"".join(_read_terminal(master))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"\x1b[" in shown
    assert "quantize" in shown.decode()
    assert b"\x1b" not in out, "the result is plain text"


def _read_terminal(master: int) -> Iterator[bytes]:
    while select.select([master], [], [], 60)[0]:
        try:
            block = os.read(master, 4096)
        except OSError:  # Linux says EIO when the last writer has gone
            break
        if not block:
            break
        yield block
    os.close(master)


# inspect


def test_inspect_tells_the_same_of_a_checkpoint_and_of_its_file(checkpoint: Path, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    assert sprig("quantize", checkpoint, "-q", "Q4_K_M", "-o", out, home=home).returncode == 0
    before, after = (only_json(sprig("inspect", m, "--json", home=home)) for m in (checkpoint, out))
    assert before["weights"] == after["weights"]
    assert before["vocabulary"] == after["vocabulary"]
    assert before["keys"]["general.name"] == "tiny"
    for key, value in before["keys"].items():
        assert after["keys"][key] == (pytest.approx(value) if isinstance(value, float) else value), key
    assert after["gguf_version"] == 3
    assert sum(t["bytes"] for t in after["types"].values()) == sum(t["nbytes"] for t in after["tensors"])


def test_inspect_fits_eighty_columns_and_lists_every_tensor_on_demand(checkpoint: Path, home: Path) -> None:
    assert sprig("quantize", checkpoint, "-q", "Q4_0", home=home).returncode == 0
    brief = sprig("inspect", "tiny-Q4_0", home=home).stdout
    assert max(len(line) for line in brief.splitlines()[1:]) <= 80
    assert "blk.0.attn_q.weight" not in brief
    full = sprig("inspect", "tiny-Q4_0", "--tensors", home=home).stdout
    header = read_header(home / "models" / "tiny-Q4_0.gguf")
    assert [name for name in header.tensors if name not in full] == []
    assert max(len(line) for line in full.splitlines()[1:]) <= 80


def test_inspect_says_what_is_slow_on_arm(home: Path, tmp_path: Path) -> None:
    """Rows of 160 fit no block of 256, so Q4_K falls back to Q5_0, which ARM does not repack."""
    odd = write_checkpoint(tmp_path / "odd", LlamaShape(160, 480, 2, 5, 5, 320))
    assert sprig("quantize", odd, "-q", "Q4_K_M", "-o", tmp_path / "slow.gguf", home=home).returncode == 0
    assert sprig("quantize", odd, "-q", "Q4_0", "-o", tmp_path / "fast.gguf", home=home).returncode == 0
    slow = only_json(sprig("inspect", tmp_path / "slow.gguf", "--json", home=home))["slow_on_arm"]
    assert slow["Q5_0"] > 0.5
    assert only_json(sprig("inspect", tmp_path / "fast.gguf", "--json", home=home))["slow_on_arm"] == {}


def test_inspect_of_what_cannot_be_converted(checkpoint: Path, home: Path, tmp_path: Path) -> None:
    """Another architecture is still worth a look; a config.json that is none is not."""
    folder = tmp_path / "other"
    shutil.copytree(checkpoint, folder)
    (folder / "config.json").write_text('{"model_type": "hydra"}')
    told = only_json(sprig("inspect", folder, "--json", home=home))
    assert told["architecture"] == "hydra"
    assert len(told["tensors"]) > 30
    assert "'hydra' is not supported" in told["notes"][0]
    for content in ("{", "[1]", '{"a": ' * 100_000):
        (folder / "config.json").write_text(content)
        assert "config.json" in one_line(sprig("inspect", folder, home=home))
    (folder / "config.json").unlink()
    assert "config.json" in one_line(sprig("inspect", folder, home=home))


def test_a_hostile_file_cannot_write_on_the_terminal(home: Path, tmp_path: Path) -> None:
    evil = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\u202eno\u200b"
    template = "{{ messages }}\x1b[31m\nsecond line"
    keys = {"general.architecture": "llama", "general.name": evil, f"x.{evil}": "y", "tokenizer.chat_template": template}
    path = tmp_path / "evil.gguf"
    path.write_bytes(lay_out(keys, []).header)
    for start, args in ((process, []), (sprig, ["--tensors"]), (sprig, ["--template"])):
        done = start("inspect", path, *args, home=home)
        assert done.returncode == 0, done.stderr
        assert [c for c in done.stdout if (c < " " and c != "\n") or c in "\x7f\u202e\u200b"] == []
    assert sprig("inspect", path, "--template", home=home).stdout.splitlines()[1] == "second line"
    told = only_json(sprig("inspect", path, "--json", home=home))
    assert told["keys"]["general.name"] == evil, "a script gets what is in the file"
    assert told["templates"] == {"default": template}


def test_no_template_is_said(checkpoint: Path, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "bare.gguf"
    path.write_bytes(lay_out({"general.architecture": "llama"}, []).header)
    assert "no chat template" in one_line(sprig("inspect", path, "--template", home=home))


def test_a_reader_that_leaves_early_is_no_error_message(home: Path, checkpoint: Path) -> None:
    assert sprig("quantize", checkpoint, "-q", "Q8_0", home=home).returncode == 0
    command = f'"{sys.executable}" -m sprig inspect tiny-Q8_0 --tensors | head -n 1'
    env = {**os.environ, "SPRIG_HOME": str(home)}
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
