"""The handle of one loaded model. llama.cpp runs in a child process (agent.engine.worker): it may die there."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from agent.device.processor import choose_threads
from agent.engine.connection import Request
from agent.engine.model_process import ModelProcess
from agent.engine.options import refuse_unknown
from agent.engine.sampling import Sampling
from agent.engine.until import FOREVER, Until
from agent.errors import EngineError, SprigError, Unanswered
from agent.events import Prefill, TokenLogprob
from agent.home import home
from agent.messages import Segment
from agent.models.adapter import Lora, read_adapters, with_adapters
from agent.models.file import read_model
from agent.models.find import find_model
from agent.models.memory import BATCH, CONVERSATIONS, MemoryBudget, Need, flash_attention, plan_load
from agent.models.tuned import recall_tuned

log = logging.getLogger(__name__)

_WORKER = "agent.engine.worker"
_RANGES = {"context": (1, 1 << 30), "threads": (1, 1024), "conversations": (1, 64), "batch": (8, 4096), "nice": (0, 19)}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model as it is in memory."""

    context: int  # tokens of all conversations together
    partial_rollback: bool  # whether a conversation can be taken back to any token for nothing
    seconds: float  # that llama.cpp took
    resident: int  # bytes that its process held then


@dataclass(frozen=True, slots=True)
class TextStep:
    """Tokens that were chosen, and their text with control tokens written out."""

    ids: tuple[int, ...]
    text: str
    texts: tuple[str, ...] = ()  # what each token adds to it, where that was asked for
    logprobs: tuple[TokenLogprob, ...] = ()  # of each token, likewise


@dataclass(frozen=True, slots=True)
class EndStep:
    """The answer is over."""

    reason: str  # "stop", "length", "time", "context", "loop", "stuck", "cancelled" or "failed"
    why: str  # of "failed", in one line
    timing: Mapping[str, Any]  # see agent.engine.job.Timing
    resident: int  # bytes of the worker
    seed: int  # of the draws


Step = Prefill | TextStep | EndStep


class Engine(ModelProcess, contextlib.AbstractContextManager["Engine"]):
    """One model, loaded once, for any number of conversations.

    Args:
        model: a GGUF, or the name of one in the store.
        context: tokens that all conversations may hold together; by default what is usual, as far as it fits.
        cache: type of K and V, "f16" or "q8_0" (half the memory, slower on some CPUs); by default f16, but q8_0 where only a
            short context would fit otherwise.
        threads: of the computation; by default what ``sprig bench --tune`` found, else one for each big core that this
            process may use, see ``choose_threads``.
        conversations: how many can lie in the cache at once; the one used longest ago makes room for another.
        batch: tokens computed at once at most; by default 256, or what ``sprig bench --tune`` found.
        repack: hold the weights in the order that this CPU computes fastest, instead of mapped from the file; by default
            where there is memory for it.
        keep_prefix: keep the state of fixed prefixes on disk for the next start.
        memory: bytes that may be used; by default 70 % of what the machine has free.
        lora: LoRA adapters (GGUF) to compute with: files, "FILE=SCALE", or (file, scale).
        nice: how far the computation stands back behind other programs, from 0 to 19 (nice(2)), where the system allows it;
            from 1 on a core is left to them.

    Any thread may use it, and no other process: a fork gets an EngineError, and leaves the worker alone.

    Raises:
        SprigError: there is no such model, llama.cpp would abort over it, or it does not fit the memory.
    """

    kind = "engine"

    def __new__(cls, *_: object, **options: object) -> Self:
        """Refuse what ``__init__`` does not know, in a line that helps more than Python's."""
        known = inspect.signature(cls.__init__).parameters
        if not any(one.kind is one.VAR_KEYWORD for one in known.values()):
            refuse_unknown(options, known)
        return super().__new__(cls)

    def __init__(
        self,
        model: str | Path,
        *,
        context: int | None = None,
        cache: str | None = None,
        threads: int | None = None,
        conversations: int = CONVERSATIONS,
        batch: int | None = None,
        repack: bool | None = None,
        keep_prefix: bool = True,
        memory: int | None = None,
        lora: Sequence[Lora] = (),
        nice: int = 0,
    ) -> None:
        _check(context=context, threads=threads, conversations=conversations, batch=batch, nice=nice)
        path = find_model(model)
        log.info("model %s is %s", model, path)
        self._owners = itertools.count(1)
        super().__init__(_WORKER, str(nice))
        try:
            self.file = read_model(path)
            if not self.file.causal:
                raise SprigError(
                    f"{self.file.name} is an embedding model and writes no text; take a chat model, or `sprig embed` and "
                    "Embedder for its vectors"
                )
            tuned = recall_tuned(self.file.identity) if threads is None else None
            adapters = read_adapters(lora, self.file)
            self.file = with_adapters(self.file, adapters)
            batch = batch or (tuned.batch if tuned else BATCH)
            budget = MemoryBudget.of(memory)
            cache = cache or (tuned.cache if tuned else None)
            plan = plan_load(
                self.file, budget, context=context, cache=cache, repack=repack, sequences=conversations, batch=batch
            )  # fmt: skip
            self.need = plan.need
            log.info("%s; planned: %s", budget.words, plan.words)
            self.threads = tuned.threads if tuned else choose_threads(wanted=threads, spare=nice > 0)
            log.info("threads: %d to write, %d to read; %s", self.threads.decode, self.threads.prefill, self.threads.why)
            message = {
                "op": "load", "path": str(path), "repack": plan.repack, "cores": self.threads.cores,
                "lora": [[one.path, one.scale] for one in adapters],
                "context": {
                    "n_ctx": plan.context, "n_seq": conversations, "n_batch": min(batch, plan.context), "cache": plan.cache,
                    "flash": flash_attention(plan.cache), "threads": self.threads.decode, "prefill_threads": self.threads.prefill,
                },
                "prefix_folder": str(home() / "cache" / "prefix") if keep_prefix else None,
                "identity": f"{self.file.identity} {plan.cache} {_library()}",
            }  # fmt: skip
            self._load_model(message)
        except BaseException:
            self.close()
            raise

    need: Need

    @property
    def context(self) -> int:
        """Tokens that all conversations may hold together."""
        return int(self._load_message["context"]["n_ctx"])

    def conversation(self) -> str:
        """A new name under which tokens are kept in the cache."""
        return f"c{next(self._owners)}"

    def wait(self, timeout: float | None = None) -> Loaded:
        """Wait until the model is loaded. EngineError when it cannot be, or not in time; then it goes on loading."""
        until = FOREVER if timeout is None else Until(deadline=time.monotonic() + timeout)
        return Loaded(**self._ready(until)[1])

    def _words(self, loaded: Mapping[str, Any]) -> str:
        memory = loaded["resident"] / 1e6
        return f"loaded in {loaded['seconds']:.1f} s: {memory:.0f} MB of memory, context {self.context}"

    def tokenize(self, segments: Sequence[Segment], *, after: int | None = None, until: Until = FOREVER) -> list[int]:
        """Token ids of the segments of a prompt. What is not trusted never yields a control token or a mark of the chat format.

        ``after`` is the token in front of them; None at the start of a conversation, where BOS is put if the model wants it and
        the text does not begin with it. Raises Unanswered when ``until`` is over and the worker does not answer.
        """
        connection, _ = self._ready(until)
        message = {"op": "tokenize", "segments": [[s.text, s.trusted] for s in segments], "after": after}
        return list(connection.ask(message, Request).answer(until)["ids"])

    def generate(
        self,
        conversation: str,
        tokens: Sequence[int],
        *,
        sampling: Sampling,
        max_tokens: int,
        constraint: Mapping[str, Any] | None = None,
        prefix: int = 0,
        seconds: float | None = None,
        max_thinking: int | None = None,
        force: bool = True,
        by_token: bool = False,
        logprobs: int | None = None,
        cancelled: threading.Event | None = None,
    ) -> Iterator[Step]:
        """Compute what is new of a transcript and let the model go on.

        Args:
            conversation: of whom the tokens are; what of them is in the cache already is not computed again.
            tokens: the whole transcript.
            max_tokens: 0 only reads, ahead of a question; that gives way to every question, and what it has read stays.
            constraint: see agent.dialects.constrain.Constraint.from_spec.
            prefix: how many tokens at the start are the same at every start, so that their state is worth keeping on disk.
            seconds: limit on all of it.
            max_thinking: tokens after which a thought is ended.
            force: feed in what the constraint leaves no choice about, instead of drawing it.
            by_token: say the text of each token.
            logprobs: say also its log-probability, and those of so many likeliest.
            cancelled: set from any thread, it ends the answer within one step.

        A worker that does not answer, because it is stopped or hangs, is waited for no longer than a second beyond ``seconds``,
        or beyond the cancelling; it is ended, and started again, at the next use.

        Raises:
            EngineError: the worker died or refused.
        """
        job = {
            "op": "generate", "owner": conversation, "tokens": list(tokens), "sampling": asdict(sampling), "force": force,
            "max_tokens": max_tokens, "constraint": constraint, "prefix": prefix, "seconds": seconds,
            "max_thinking": max_thinking, "by_token": by_token or logprobs is not None, "logprobs": logprobs,
        }  # fmt: skip
        until = Until(cancelled, None if seconds is None else time.monotonic() + seconds)
        count = _Count(len(tokens), sampling.seed)
        request = None
        ended = False
        try:
            while not ended:
                try:
                    request = request or self._ready(until)[0].ask(job, Request)
                    step = _step(request.answer(until))
                except Unanswered as e:
                    step = count.end(e.reason)
                ended = isinstance(step, EndStep)
                count.add(step)
                yield step
        finally:
            if not ended and request is not None:  # the reader went away, or an error did
                with contextlib.suppress(EngineError):
                    request.cancel()

    def forget(self, conversation: str) -> None:
        """A conversation is over; its place in the cache is free."""
        if self._load.loaded is not None and os.getpid() == self._process:
            with contextlib.suppress(EngineError):
                self._connection.send({"op": "drop", "id": 0, "owner": conversation})


def _check(**settings: int | None) -> None:
    for name, value in settings.items():
        least, most = _RANGES[name]
        if value is not None and not least <= value <= most:
            raise SprigError(f"{name} is {value} and must be from {least} to {most}")


def _library() -> str:
    """Changes with the llama.cpp library: a saved state is for the one that wrote it."""
    spec = find_spec("llama_cpp")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for name in ("libllama.so", "libllama.dylib"):
            with contextlib.suppress(OSError):
                status = (Path(folder) / "lib" / name).stat()
                return f"{status.st_size} {status.st_mtime_ns}"
    return "unknown"


def _logprobs(message: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    if not message.get("likely"):
        return ()

    def one(token: int, logprob: float | None, raw: str, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        data = raw.encode("latin-1")
        return TokenLogprob(data.decode("utf-8", "replace"), logprob, top, data, token)

    return tuple(
        one(token, found and found[0], raw, tuple(one(*other) for other in found[1]) if found else ())
        for token, raw, found in zip(message["ids"], message["raw"], message["likely"], strict=True)
    )


def _step(message: Mapping[str, Any]) -> Step:
    """A worker's message as a step."""
    if message["event"] == "prefill":
        return Prefill(message["done"], message["total"], message["cached"])
    if message["event"] == "text":
        return TextStep(tuple(message["ids"]), message["text"], tuple(message.get("texts", ())), _logprobs(message))
    return EndStep(message["reason"], message["why"], message["timing"], message["resident"], message["seed"])


class _Count:
    """What is known here of an answer, for the end of one whose worker does not tell it."""

    def __init__(self, prompt: int, seed: int | None) -> None:
        self._began = time.monotonic()
        self._prompt, self._seed = prompt, seed or 0
        self._cached = self._generated = 0
        self._first = 0.0

    def add(self, step: Step) -> None:
        if isinstance(step, Prefill):
            self._cached = step.cached
        elif isinstance(step, TextStep):
            self._first = self._first or time.monotonic()
            self._generated += len(step.ids)

    def end(self, reason: str) -> EndStep:
        """The end, as ``agent.engine.job.Timing`` would have it."""
        now = time.monotonic()
        first = self._first or now
        timing = {
            "prompt_tokens": self._prompt, "cached_tokens": self._cached, "cache_source": "", "generated_tokens": self._generated,
            "forced_tokens": 0, "decodes": self._generated, "prefill_seconds": first - self._began,
            "decode_seconds": now - first, "first_token_seconds": first - self._began,
        }  # fmt: skip
        return EndStep(reason, "", timing, 0, self._seed)
