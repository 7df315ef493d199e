"""The child process that holds llama.cpp. It may die of a model; its parent, agent.engine.handle, may not.

Messages (agent.children.wire) in: ``load``, ``tokenize``, ``generate``, ``cancel``, ``drop``. Out: ``progress`` while loading,
``loaded``, ``tokens``, and for each answer ``prefill``, ``text`` ..., ``end``; or ``failed`` with one line. All answers advance
together: each turn of the loop computes one batch that holds the next token of every one, and a piece of one prompt.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from agent.children.computing import ModelWorker
from agent.children.serve import serve
from agent.children.wire import Wire
from agent.engine.job import GenerationJob, Timing
from agent.engine.llama import Context, ContextSettings, LlamaError, LlamaModel
from agent.engine.pace import Pace
from agent.engine.prefix_store import PrefixStore
from agent.engine.sampling import Sampling
from agent.engine.sequences import Sequences
from agent.errors import SprigError

_CHUNK_SECONDS = 1.0  # of prefill between two words to the parent
_SHARED_SECONDS = 0.2  # the same while others wait for their next token
# Tokens: pieces of a multiple of 64 fill the tiles of the kernels, which is an eighth faster; smaller ones waste the cores.
_WHOLE, _LEAST_CHUNK = 64, 32
_TELL_SECONDS = 0.025  # words that follow each other faster are told together: each message takes time from the computation
_PAGE = resource.getpagesize()


def resident() -> int:
    """Bytes of memory that this process holds."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_resident() -> int:
    """Bytes of memory that this process has held at most; pages of files that it mapped are in it."""
    try:  # not ru_maxrss where this is there: Linux lets that begin with what the parent held
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Worker(ModelWorker):
    """One model and the answers that are being made with it."""

    failures = (LlamaError, SprigError)
    progress_seconds = 0.1

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)
        self.jobs: list[GenerationJob] = []
        self.waiting: list[GenerationJob] = []
        self.model: LlamaModel
        self.context: Context
        self.sequences: Sequences
        self.pace: Pace
        self._rate = 0.0  # tokens per second of the last prefill

    def run(self) -> None:
        """Until the parent is gone."""
        while True:
            self._admit()
            try:
                message = self.wire.receive_now() if self.jobs or self._heard else self.wire.receive()
                while message is not None:
                    self._heard.append(message)
                    message = self.wire.receive_now()
            except EOFError:
                return
            while self._heard:
                self._handle(self._heard.pop(0))
            if self.jobs:
                self._step()

    def _handle(self, message: dict[str, Any]) -> None:
        op, number = message.get("op"), message.get("id", 0)
        with self.answering(message):
            if op == "load":
                self._load(message)
            elif op == "tokenize":
                ids = self.model.tokenize([(t, bool(k)) for t, k in message["segments"]], after=message.get("after"))
                self.wire.send({"id": number, "event": "tokens", "ids": ids})
            elif op == "generate":
                self.waiting.append(self._job(message))
            elif op == "cancel":
                self._cancel(number)
            elif op == "drop":
                while self._give_way(str(message["owner"])):
                    pass
                self.sequences.drop(str(message["owner"]))
            else:
                self.unknown(message)

    def _load(self, message: dict[str, Any]) -> None:
        start = time.monotonic()
        folder = message.get("prefix_folder")
        told = self.ready_to_load(message, [path for path, _ in message["lora"]], _made(folder) if folder else ())
        self.model = LlamaModel(
            message["path"], repack=message["repack"], on_progress=told, check_weights=message["check_weights"]
        )
        settings = ContextSettings(**message["context"])
        adapters = [(self.model.load_adapter(path), scale) for path, scale in message["lora"]]
        self.context = Context(self.model, settings)
        self.pace = Pace(settings.threads)
        if adapters:
            self.context.use_adapters(adapters)
        store = PrefixStore(Path(folder), message["identity"]) if folder else None
        self.sequences = Sequences(self.context, store)
        facts = {"partial_rollback": self.model.partial_rollback, "seconds": time.monotonic() - start, "resident": resident()}
        self.wire.send({"id": message["id"], "event": "loaded", "model": {"context": settings.n_ctx, **facts}})

    def _job(self, message: dict[str, Any]) -> GenerationJob:
        now = time.monotonic()
        constraint = None
        if (spec := message.get("constraint")) is not None:
            from agent.dialects.constrain import Constraint  # a tenth of a second on a board, while the model could be computing

            constraint = Constraint.from_spec(spec)
        seconds = message.get("seconds")
        tokens = [int(t) for t in message["tokens"]]
        if not tokens:
            raise LlamaError("there is nothing to answer to")
        if min(tokens) < 0 or max(tokens) >= self.model.n_vocab:
            raise LlamaError("the prompt holds a token that this model does not have")
        if len(tokens) >= self.context.settings.n_ctx:
            raise LlamaError(f"the prompt of {len(tokens)} tokens does not fit a context of {self.context.settings.n_ctx}")
        return GenerationJob(
            id=message["id"], owner=str(message["owner"]), tokens=tokens, prefix=int(message.get("prefix", 0)), model=self.model,
            constraint=constraint, settings=Sampling(**message["sampling"]),
            max_tokens=int(message["max_tokens"]), n_ctx=self.context.settings.n_ctx,
            deadline=now + seconds if seconds is not None else None,
            max_thinking=message.get("max_thinking"), force=bool(message.get("force", True)), timing=Timing(start=now),
            by_token=bool(message.get("by_token")), logprobs=message.get("logprobs"),
        )  # fmt: skip

    def _cancel(self, number: int) -> None:
        for job in [*self.jobs, *self.waiting]:
            if job.id == number and not job.ended:
                job.ended = "cancelled"
                self._finish(job)

    def _admit(self) -> None:
        """Give a sequence to every waiting answer for which there is one."""
        for job in list(self.waiting):
            if job.ended:  # it gave way
                continue
            got = self.sequences.acquire(job.owner, job.tokens, job.prefix, whole=job.only_reads)
            while got is None and not job.only_reads and (self._give_way(job.owner) or self._give_way()):
                got = self.sequences.acquire(job.owner, job.tokens, job.prefix)
            if got is None:
                continue
            job.slot, have, source = got
            job.timing.prompt, job.timing.cached, job.timing.source = len(job.tokens), have, source
            job.pending, job.fed = job.tokens[have:], 0
            self.waiting.remove(job)
            self.jobs.append(job)
            job.feed_forced()  # it goes into the cache with the prompt
            self._tell_prefill(job)
            if job.only_reads and not job.left:
                job.ended = "length"
                self._finish(job)

    def _give_way(self, owner: str | None = None) -> bool:
        """End a job that only reads, of this conversation or of any: a question needs its place. What it has read stays."""
        job = next((j for j in [*self.jobs, *self.waiting] if j.only_reads and owner in (None, j.owner)), None)
        if job is not None:
            job.ended = "cancelled"
            self._finish(job)
        return job is not None

    def _tell_prefill(self, job: GenerationJob) -> None:
        total = len(job.tokens)
        done = min(total, len(job.slot.tokens) if job.slot else 0)
        self.wire.send({"id": job.id, "event": "prefill", "done": done, "total": total, "cached": job.timing.cached})

    def _step(self) -> None:
        """Compute one batch and act on it."""
        context = self.context
        context.clear_batch()
        room = context.settings.n_batch
        fed: list[tuple[GenerationJob, int, int]] = []  # job, tokens of it in this batch, row of its logits or -1
        prefilling = False
        for job in sorted(self.jobs, key=lambda j: (j.only_reads, j.left)):
            slot = job.slot
            assert slot is not None
            count = min(job.left, room)
            if count > _LEAST_CHUNK:
                if prefilling:
                    continue  # one prompt at a time; the others' next tokens ride along
                prefilling = True
                count = min(count, self._piece())
            to_prefix = job.prefix - len(slot.tokens)
            if to_prefix > 0:  # a piece ends with the fixed prefix, so that its state can be kept
                count = min(count, to_prefix)
            row = -1
            for i in range(count):
                last = i == count - 1 and count == job.left and not job.only_reads
                place = context.add(job.pending[job.fed + i], len(slot.tokens) + i, slot.number, logits=last)
                row = place if last else row
            room -= count
            if count:
                fed.append((job, count, row))
        writing = not prefilling and context.count == len(self.jobs)  # a token of each
        context.set_threads(self.pace.threads)
        start, processor = time.monotonic(), time.process_time()
        if prefilling:
            context.on_abort(partial(self._unwanted, {job.id for job in self.jobs}))
        try:
            if not self._decode(fed):
                return
        finally:
            if prefilling:
                context.on_abort(None)
        if prefilling:
            self._rate = context.count / max(1e-6, time.monotonic() - start)
        if writing:
            self.pace.took(time.monotonic() - start, time.process_time() - processor)
        for job, count, row in fed:
            self._computed(job, count, row)

    def _piece(self) -> int:
        """Tokens of a prompt to compute before the next look around."""
        seconds = _CHUNK_SECONDS if len(self.jobs) == 1 else _SHARED_SECONDS
        wanted = int(self._rate * seconds) if self._rate else _WHOLE
        return max(_LEAST_CHUNK, wanted // _WHOLE * _WHOLE)

    def _decode(self, fed: list[tuple[GenerationJob, int, int]]) -> bool:
        while (status := self.context.decode()) in (1, 2):
            if status == 2:  # somebody cancelled; what was computed for the others is computed again
                for slot in {job.slot.number: job.slot for job, _, _ in fed if job.slot}.values():
                    if not self.context.remove(slot.number, len(slot.tokens)):
                        self.sequences.clear(slot)
                for job, _, _ in fed:  # whose cache could not be taken back has to be computed from the start
                    if job.slot is not None and not job.slot.tokens:
                        job.pending, job.fed = [*job.tokens, *job.generated], 0
                return False
            if not self.sequences.make_room(needed_by=fed[0][0].slot or self.sequences.slots[0]):
                job = max((job for job, _, _ in fed), key=lambda j: (j.only_reads, len(j.slot.tokens) if j.slot else 0))
                job.ended = "context"
                self._finish(job)
                return False
        if status:
            for job, _, _ in fed:
                job.ended = "failed"
                self._finish(job, why=f"llama.cpp's decode ended with status {status}")
            return False
        return True

    def _computed(self, job: GenerationJob, count: int, row: int) -> None:
        slot = job.slot
        assert slot is not None
        slot.tokens += job.pending[job.fed : job.fed + count]
        job.fed += count
        at = len(slot.tokens)
        if at == job.prefix and not job.timing.prefilled:
            self.sequences.checkpoint(slot)
            if job.timing.cached < at:
                self.sequences.save_prefix(slot, job.tokens[:at])
        if row < 0:
            self._tell_prefill(job)
            if job.only_reads and not job.left:
                job.ended = "length"
            elif job.deadline is not None and time.monotonic() > job.deadline:
                job.ended = "time"
            if job.ended:
                self._finish(job)
            return
        if not job.timing.prefilled:
            self.sequences.checkpoint(slot)
            self._tell_prefill(job)
        job.advance(self.context, row)
        if job.ended:
            self._finish(job)
        else:
            self._tell(job)

    def _tell(self, job: GenerationJob, *, final: bool = False) -> None:
        now = time.monotonic()
        if not final and now - job.told < _TELL_SECONDS:
            return
        job.told = now
        said = job.take_text(final=final)
        if said["ids"] or said["text"]:
            self.wire.send({"id": job.id, "event": "text", **said})

    def _finish(self, job: GenerationJob, why: str = "") -> None:
        job.timing.end = time.monotonic()
        self._tell(job, final=True)
        end = {"id": job.id, "event": "end", "reason": job.ended, "resident": resident(), "seed": job.sampler.seed}
        self.wire.send({**end, "why": why, "timing": job.timing.to_dict()})
        job.sampler.close()
        if job.slot is not None:
            job.slot.busy = False
        for jobs in (self.jobs, self.waiting):
            if job in jobs:
                jobs.remove(job)


def _made(folder: str) -> tuple[str, ...]:
    """The folder, made for this user alone while that can still be done; nothing where it cannot."""
    with contextlib.suppress(OSError):
        Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    return (folder,)


def _stand_back(nice: int) -> None:
    """Let other programs have the cores first; where that cannot be, go on as it is."""
    if not nice:
        return
    with contextlib.suppress(OSError):
        os.nice(nice)
    # Linux may weigh whole sessions against each other, and this process leads its own: then only the group's number counts
    # (sched(7), autogroup).
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(nice))


def _keep_prefixes() -> None:
    """A prefix that is being written must get its name."""
    for thread in threading.enumerate():
        if thread.name == "prefix":
            thread.join(10)


def main() -> None:
    """Serve the parent; the argument is the niceness."""

    def work() -> None:
        _stand_back(int(sys.argv[1]))
        os.umask(0o077)
        Worker(Wire(0)).run()

    serve(work, last=_keep_prefixes)


if __name__ == "__main__":
    main()
