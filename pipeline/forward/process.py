"""A GGUF that is computed with in llama.cpp, in a child process: what a text does to the model, not what the model says.

llama.cpp aborts its process on some bad files, so nothing here loads a model in the caller's process. The child stands behind the
walls of the agent's own (``pipeline.forward.walled``). A wing has its own module for it (``pipeline.forward.child`` holds what
these share) and asks it in messages; logits go through a mapped file.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from agent.children.launch import bury, launch, plain_environment, tail
from agent.children.wire import Wire
from agent.device.processor import cores
from agent.engine.last_words import last_words
from agent.errors import GGUFError, OutputError
from agent.files import reserve
from pipeline.format.ggml import Floats

_SHARED = "/dev/shm"  # memory that looks like a disk, where there is one
_LOOK_SECONDS = 0.25


class ForwardProcess:
    """One model, loaded in a child process.

    Args:
        path: the GGUF.
        module: what runs in the child: ``pipeline.forward.child`` or one that adds to it.
        n_ctx: tokens of a window at most.
        n_outputs: rows of logits that one window may give; 0 where none are asked for.
        threads: of the computation; by default one for each core.
        reads, writes: files that the module reads beside the model, files and folders that it writes. It reaches nothing else.
        options: further fields of the message that loads the model, as the module reads them.

    Attributes:
        n_vocab: tokens of the vocabulary.
        add_bos: whether the model wants BOS in front of a text; its id is ``bos``.
        load_seconds: that llama.cpp took.

    Raises:
        GGUFError: llama.cpp refused the file or died of it, with its own last error in one line.
    """

    def __init__(
        self,
        path: Path,
        module: str = "pipeline.forward.child",
        *,
        n_ctx: int = 512,
        n_outputs: int = 0,
        threads: int | None = None,
        reads: Sequence[Path] = (),
        writes: Sequence[Path] = (),
        **options: Any,
    ) -> None:
        self.path, self.n_ctx = path, n_ctx
        threads = threads or cores()
        self._shared: mmap.mmap | None = None
        with contextlib.ExitStack() as stack:
            # The child may write what is there when it starts, and how much that must hold only it can say.
            places = [stack.enter_context(file) for file in (_empty_files() if n_outputs else ())]
            self._start(module, threads, [path, *reads], [*writes, *(Path(file.name) for file in places)])
            try:
                told = self.ask("load", path=str(path.absolute()), n_ctx=n_ctx, n_outputs=n_outputs, threads=threads, **options)
                self.n_vocab, self.add_bos, self.bos = int(told["n_vocab"]), bool(told["add_bos"]), int(told["bos"])
                self.load_seconds = float(told["load_seconds"])
                self.description = str(told["description"])
                if n_outputs:
                    self._shared = self._share(places, 4 * n_outputs * self.n_vocab)
            except BaseException:
                self.close()
                raise

    def _start(self, module: str, threads: int, reads: Sequence[Path], writes: Sequence[Path]) -> None:
        # Without the first, an abort starts a debugger to print its stack; with the last, threads do not wait at full speed.
        environment = {
            **plain_environment(),
            "GGML_NO_BACKTRACE": "1",
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "passive",
        }
        reach = json.dumps([[str(path.absolute()) for path in paths] for paths in (reads, writes)])
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._child = launch("pipeline.forward.walled", [module, reach], environment, stderr=self._log)
        assert self._child.stdout is not None
        assert self._child.stdin is not None
        self._wire = Wire(self._child.stdout.fileno(), self._child.stdin.fileno())

    def ask(self, op: str, *, meanwhile: Callable[[], None] = lambda: None, **message: Any) -> dict[str, Any]:
        """Ask for something and wait for the answer, however long that takes.

        Args:
            meanwhile: called now and then; what it raises ends the wait.

        Raises:
            GGUFError: llama.cpp could not do it, or died of it.
        """
        self.send(op, **message)
        return self.receive(meanwhile)

    def send(self, op: str, **message: Any) -> None:
        """Ask for something; ``receive`` gives the answer. Answers come in the order of the questions."""
        with contextlib.suppress(OSError):  # receive says why it is gone
            self._wire.send({"op": op, **message})

    def receive(self, meanwhile: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Wait for the answer to the oldest question that has none. Raises as ``ask``."""
        try:
            while (answer := self._wire.receive_now(_LOOK_SECONDS)) is None:
                meanwhile()
        except EOFError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(5)
            raise self._error(None) from None
        if "failed" in answer:
            raise self._error(str(answer["failed"]))
        return answer

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Token ids of a text, without BOS or EOS; with ``parse_special``, marks such as <|im_start|> count as control tokens."""
        ids: list[int] = self.ask("tokenize", text=text, special=parse_special)["ids"]
        return ids

    def logits(self, ids: list[int], first: int = 0, meanwhile: Callable[[], None] = lambda: None) -> Floats:
        """The logits behind each token of a window, from token ``first`` on.

        Args:
            ids: the window, at most ``n_ctx`` tokens; nothing is kept of the window before.

        Returns:
            float32 [len(ids) - first, n_vocab]; row i predicts token first + i + 1. Valid until the next call.
        """
        self.ask_logits(ids, first)
        return self.take_logits(len(ids) - first, meanwhile)

    def ask_logits(self, ids: list[int], first: int) -> None:
        """``logits`` without the wait, so that several models compute at once; ``take_logits`` gives the answer."""
        self.send("logits", ids=ids, first=first)

    def take_logits(self, n: int, meanwhile: Callable[[], None] = lambda: None) -> Floats:
        """The ``n`` rows that were asked for."""
        assert self._shared is not None
        self.receive(meanwhile)
        return np.frombuffer(self._shared, np.float32, n * self.n_vocab).reshape(n, self.n_vocab)

    def peak_memory(self) -> int:
        """Bytes of memory that the child has held at most (its largest resident set; file pages that it mapped are in it)."""
        return int(self.ask("memory")["peak"])

    def _share(self, places: Sequence[IO[bytes]], size: int) -> mmap.mmap:
        file = _with_room(places, size)
        mapped = mmap.mmap(file.fileno(), size)
        self.ask("share", path=file.name, size=size)
        return mapped

    def _error(self, failed: str | None) -> GGUFError:
        status = self._child.poll() or 0
        return GGUFError(f"{self.path} does not run in llama.cpp: {last_words(status, tail(self._log), failed)}")

    def close(self) -> None:
        """End the process."""
        self._child.kill()
        bury(self._child)
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _empty_files() -> Iterator[IO[bytes]]:
    """A file in memory where there is such a place, and one on the disk; the caller closes them, and they are gone."""
    if Path(_SHARED).is_dir() and os.access(_SHARED, os.W_OK):
        yield tempfile.NamedTemporaryFile(prefix="sprig-", dir=_SHARED)  # noqa: SIM115 - the caller does
    yield tempfile.NamedTemporaryFile(prefix="sprig-")  # noqa: SIM115 - the caller does


def _with_room(files: Sequence[IO[bytes]], size: int) -> IO[bytes]:
    """The first of them that can have this size: memory has no room for it in every container.

    Its blocks are reserved: whoever writes into a mapped file that cannot grow is killed. Raises OutputError if it fits nowhere.
    """
    *better, last = files
    for file in better:
        with contextlib.suppress(OutputError):
            reserve(file.fileno(), size, Path(file.name))
            return file
    reserve(last.fileno(), size, Path(last.name))
    return last
