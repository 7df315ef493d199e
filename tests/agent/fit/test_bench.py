"""How fast a model is here, and how it is computed from then on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.device.processor import Threads
from agent.engine.handle import Engine
from agent.errors import SprigError
from agent.fit.bench import Way, _least, bench, tune, usual_way
from agent.models.file import ModelFile, read_model
from agent.models.memory import BATCH
from agent.models.tuned import Tuned, recall_tuned, remember_tuned
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.command import one_line, only_json, sprig

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.slow]
CORES = sorted(os.sched_getaffinity(0))


@pytest.fixture
def file(tmp_path: Path) -> ModelFile:
    return read_model(chat_model(tmp_path / "hermes.gguf", "hermes"))


def test_reading_and_writing_are_measured(file: ModelFile) -> None:
    way = usual_way(file, threads=1)
    assert (way.threads.decode, way.batch, way.cache) == (1, BATCH, "f16")
    found = bench(file, way, prompt=32, generate=8, repeat=2)
    assert len(found.prefill) == len(found.decode) == 2
    assert min(*found.prefill, *found.decode) > 0
    assert found.reads > found.writes, "many at once are quicker than one after another"
    assert found.resident > 10_000_000
    assert found.peak >= found.resident // 2
    deep = bench(file, way, prompt=0, generate=8, repeat=2, depth=200)
    assert len(deep.decode) == 2
    assert deep.resident >= found.resident // 2
    only_reads = bench(file, way, prompt=32, generate=0, repeat=1)
    assert (only_reads.decode, only_reads.writes) == ((), 0.0)


def test_the_command_says_it_to_a_person_and_to_a_script(file: ModelFile, home: Path) -> None:
    few = ("bench", file.path, "-p", "16", "-n", "4", "-r", "2", "--threads", "1")
    done = sprig(*few, home=home)
    first, reads, writes, last = done.stdout.splitlines()
    assert first.startswith(f"{file.name}, F32, ")
    assert first.endswith("; threads: 1 to write, 1 to read (1 thread as asked; "
                          f"{len(CORES)} cores); batch 256, cache f16, weights mapped")  # fmt: skip
    assert reads.split()[:3] == ["reads", "16", "tokens"]
    assert writes.split()[:3] == ["writes", "4", "tokens"]
    assert last.startswith("loaded in ")
    told = only_json(sprig(*few, "--json", home=home))
    assert (len(told["prefill"]), told["way"]["threads"], told["way"]["cache"]) == (
        2,
        {"decode": 1, "prefill": 1, "cores": []},
        "f16",
    )
    assert "there is no" in one_line(sprig("bench", "nothing.gguf", home=home))
    assert "trained for" in one_line(sprig("bench", file.path, "-d", "60000", home=home))
    assert "nothing to measure" in one_line(sprig("bench", file.path, "-p", "0", "-n", "0", home=home))
    assert "the cache can be f16 or q8_0" in one_line(sprig(*few, "--cache", "q4", home=home))


def test_a_model_that_kills_llama_cpp_is_one_line(file: ModelFile, tmp_path: Path) -> None:
    broken = tmp_path / "hermes.gguf"
    broken.write_bytes(broken.read_bytes()[:-4096])
    with pytest.raises(SprigError, match="could not be measured: ") as error:
        bench(file, usual_way(file, threads=1), prompt=8, generate=2, repeat=1)
    assert "\n" not in str(error.value)


def test_what_was_tuned_is_how_the_agent_computes_from_then_on(file: ModelFile) -> None:
    remember_tuned(file.identity, Tuned(1, 2, (CORES[-1],), 64, "q8_0"))
    assert recall_tuned(file.identity) == Tuned(1, 2, (CORES[-1],), 64, "q8_0")
    assert usual_way(file, tuned=recall_tuned(file.identity)).batch == 64
    with Engine(Path(file.path), context=512) as engine:
        assert engine.threads == Threads(1, 2, (CORES[-1],), "as sprig bench --tune found it")
        assert (engine._load_message["context"]["n_batch"], engine._load_message["context"]["cache"]) == (64, "q8_0")
    with Engine(Path(file.path), context=512, cache="f16") as engine:
        assert engine._load_message["context"]["cache"] == "f16"
    with Engine(Path(file.path), context=512, threads=1, batch=32) as engine:  # what is said comes first
        assert (engine.threads.prefill, engine._load_message["context"]["n_batch"]) == (1, 32)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"decode": 0, "prefill": 1, "cores": [], "batch": 64}',
                                  '{"decode": 1, "prefill": 1, "cores": ["x"], "batch": 64}', "[" * 100_000])  # fmt: skip
def test_a_broken_memory_is_none(file: ModelFile, home: Path, text: str) -> None:
    remember_tuned(file.identity, Tuned(1, 1, (), 64))
    (kept,) = (home / "cache" / "tuned").iterdir()
    kept.write_text(text)
    assert recall_tuned(file.identity) is None


def test_the_smallest_number_that_is_as_good_is_taken() -> None:
    assert _least({1: 10.0, 2: 19.5, 3: 20.0, 4: 12.0}) == 2
    assert _least({64: 5.0}) == 64


class LoadedCore:
    """A core on which other programs compute until it is freed, so that it is slow: it stands in for a little one."""

    def __init__(self, number: int) -> None:
        self.number = number
        loop = f"import os; os.sched_setaffinity(0, {{{number}}})\nprint(flush=True)\nwhile True: pass"
        # Each in a session of its own: Linux shares a core among sessions, however many processes one has.
        command = [sys.executable, "-ISc", loop]
        self._busy = [subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE) for _ in range(8)]
        for one in self._busy:
            assert one.stdout is not None
            one.stdout.readline()

    def free(self) -> None:
        for one in self._busy:
            one.kill()
            one.communicate()
        self._busy.clear()


@pytest.fixture
def loaded_core() -> Iterator[LoadedCore]:
    loaded = LoadedCore(CORES[0])
    yield loaded
    loaded.free()


@pytest.mark.skipif(len(CORES) < 2, reason="there is one core")
def test_tuning_avoids_a_core_that_is_slow(file: ModelFile, loaded_core: LoadedCore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.fit.bench._LEAST_SECONDS", 0.3)  # other tests want that core, too
    monkeypatch.setattr("agent.fit.bench._LITTLE_GENERATE", 4)  # each token on both cores takes a fifth of a second
    slow, said = loaded_core.number, []

    def on_step(line: str) -> None:
        said.append(line)
        if line.startswith("reads 64 at once"):  # the cores are chosen; what follows runs on these alone
            loaded_core.free()

    found = tune(file, Way(Threads(len(CORES), len(CORES), (), ""), BATCH, "f16", False), on_step)
    assert slow not in found.cores, said
    assert 1 <= found.decode <= len(CORES) - 1
    assert found.batch in (64, 128, 256, 512)
    assert any(line.startswith(f"writes on core {slow} alone: ") for line in said)
    assert [line.rpartition(": ")[0] for line in said[-2:]] == [
        f"writes after 512 tokens, cache in {cache}" for cache in ("f16", "q8_0")
    ]
