"""llama.cpp as the worker and the trial use it: a model, its vocabulary, one context with several sequences. Only a child
process imports it, because the library aborts its process over some models."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from agent.engine.llama_import import import_llama
from agent.text import brief

_PIECE = 64  # most tokens are shorter
_MAX_RUN = 4096  # characters given to the tokenizer at once: some pre-tokenizers recurse over a run without a break
_CONTROL, _USER_DEFINED, _UNKNOWN = 1 << 3, 1 << 4, 1
_WATCH, _HANGS = 0.2, 0.5  # seconds between two looks at a tokenizer, and those after which it hangs; it needs some microseconds
_PROBE = "".join(map(chr, range(0x20, 0x7F))) + "\t\n\u00e9\u2581\u4e2d\U0001f331"  # a text of which any part may make it hang
_NO_VOCABULARY, _SPM = 0, 1  # enum llama_vocab_type
_F16, _Q8_0 = 1, 8  # ggml types of the K/V cache
_NO_POOLING, _RANK_POOLING = 0, 4


class LlamaError(Exception):
    """llama.cpp said no, in an orderly way; the message is one line."""


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """How a context is made."""

    n_ctx: int  # tokens of all sequences together
    n_seq: int
    n_batch: int  # tokens of one decode
    threads: int  # that compute one token
    prefill_threads: int  # that compute several at once
    cache: str  # "f16" or "q8_0", the type of K and V
    flash: bool  # compute attention in one pass, without keeping its scores; quantized V needs it
    embeddings: bool = False  # compute these, not logits
    pooling: int = -1  # of embeddings, as enum llama_pooling_type; -1 is as the file says
    n_outputs: int | None = None  # rows of one decode whose result is kept; by default one for each sequence


@contextlib.contextmanager
def _end_of_itself(complaint: str) -> Iterator[None]:
    """What hangs inside in C ends this process, with a complaint that agent.engine.last_words finds."""
    done, begun = threading.Event(), time.process_time()

    def watch() -> None:
        while not done.wait(_WATCH):
            # Of the processor's time: a machine that is busy, or was asleep, is no reason to give up.
            if time.process_time() - begun > _HANGS:
                print(f"error loading model: {complaint}", file=sys.stderr, flush=True)
                os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch").start()
    try:
        yield
    finally:
        done.set()


class LlamaModel:
    """One loaded model and its vocabulary. Never freed: the process ends with it."""

    def __init__(
        self,
        path: str,
        *,
        repack: bool,
        on_progress: Callable[[float], None] | None = None,
        vocab_only: bool = False,
        check_weights: bool = False,
    ) -> None:
        """
        Args:
            vocab_only: load a file without tensors, to tokenize.
            check_weights: refuse weights that are NaN or infinite; some 0.2 s of a fast core for each GB.
        """
        self.lib: Any = import_llama()
        lib = self.lib
        _quiet(lib)
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        # A repacked copy beside the mapped file would hold the weights twice.
        params.load_mode = lib.LLAMA_LOAD_MODE_NONE if repack else lib.LLAMA_LOAD_MODE_MMAP
        params.use_extra_bufts = repack
        params.n_gpu_layers, params.vocab_only, params.check_tensors = 0, vocab_only, check_weights

        def go_on(part: float, _: Any) -> bool:
            if on_progress is not None:
                on_progress(part)
            return True

        self._progress = lib.llama_progress_callback(go_on)
        params.progress_callback = self._progress
        started = time.monotonic()
        self.handle = lib.llama_model_load_from_file(os.fsencode(path), params)
        self.load_seconds = time.monotonic() - started
        if not self.handle:
            raise LlamaError("llama.cpp did not load the file")
        self.vocab = lib.llama_model_get_vocab(self.handle)
        self.n_vocab: int = lib.llama_vocab_n_tokens(self.vocab)
        if lib.llama_vocab_type(self.vocab) != _NO_VOCABULARY:
            kind = brief(self.key("tokenizer.ggml.model"))
            with _end_of_itself(f"tokenizer.ggml.model is {kind}, and that tokenizer does not end over this vocabulary"):
                self.raw_tokenize(_PROBE, parse_special=True, add_special=True)
        self.partial_rollback = not (
            lib.llama_model_is_recurrent(self.handle)
            or lib.llama_model_is_hybrid(self.handle)
            or lib.llama_model_n_swa(self.handle) > 0
        )
        self._pieces: dict[int, bytes] = {}
        self._attributes: dict[int, int] = {}
        self._ends: dict[int, bool] = {}
        self.tokenize = Tokenizer(self).tokenize

    def load_adapter(self, path: str) -> Any:
        """A LoRA adapter for this model, to be given to its contexts; before the first of these is made."""
        adapter = self.lib.llama_adapter_lora_init(self.handle, os.fsencode(path))
        if not adapter:
            raise LlamaError(f"llama.cpp did not load the adapter {path}")
        return adapter

    def key(self, name: str) -> str:
        """A metadata value as text; empty when there is none."""
        size = 256
        for _ in range(2):
            buffer = ctypes.create_string_buffer(size)
            length = self.lib.llama_model_meta_val_str(self.handle, name.encode(), buffer, size)
            if length < size:
                return buffer.value.decode("utf-8", "replace") if length >= 0 else ""
            size = length + 1
        return ""

    @property
    def description(self) -> str:
        """What llama.cpp calls the model."""
        buffer = ctypes.create_string_buffer(256)
        self.lib.llama_model_desc(self.handle, buffer, 256)
        return buffer.value.decode("utf-8", "replace")

    def piece(self, token: int) -> bytes:
        """What a token adds to the text; control tokens too are written out."""
        found = self._pieces.get(token)
        if found is None:
            size = _PIECE
            for _ in range(2):
                buffer = ctypes.create_string_buffer(size)
                count = self.lib.llama_token_to_piece(self.vocab, token, buffer, size, 0, True)
                if count >= 0:
                    break
                size = -count
            found = self._pieces[token] = buffer.raw[: max(0, count)]
        return found

    def special(self, token: int) -> bool:
        """Whether the token is a control or a user-defined one, which ordinary text does not produce."""
        found = self._attributes.get(token)
        if found is None:
            found = self._attributes[token] = self.lib.llama_vocab_get_attr(self.vocab, token)
        return bool(found & (_CONTROL | _USER_DEFINED))

    def ends(self, token: int) -> bool:
        found = self._ends.get(token)
        if found is None:
            found = self._ends[token] = bool(self.lib.llama_vocab_is_eog(self.vocab, token))
        return found

    def starting_with(self, characters: frozenset[str]) -> Any:
        """The tokens, as an array of int64, whose text begins with the first byte of one of these characters."""
        import numpy as np

        wanted = sorted({c.encode("utf-8", "surrogatepass")[0] for c in characters})
        return np.flatnonzero(np.isin(self._first_bytes, wanted))

    @cached_property
    def _first_bytes(self) -> Any:
        """Of each token's text; 256 where it is empty."""
        import numpy as np

        return np.array([piece[0] if (piece := self.piece(token)) else 256 for token in range(self.n_vocab)], np.int64)

    def raw_tokenize(self, text: str | bytes, *, parse_special: bool, add_special: bool = False) -> list[int]:
        """Token ids of a text as llama.cpp sees it; ``add_special`` puts BOS and EOS where the model wants them."""
        raw = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
        room = len(raw) + 16
        for _ in range(2):
            ids = (self.lib.llama_token * room)()
            count = self.lib.llama_tokenize(self.vocab, raw, len(raw), ids, room, add_special, parse_special)
            if count >= 0:
                return list(ids[:count])
            room = -count
        raise LlamaError("a text could not be tokenized")


class Tokenizer:
    """Text to tokens, where untrusted text never yields a control token or a mark of the chat format."""

    def __init__(self, model: LlamaModel) -> None:
        self.model = model
        lib, vocab = model.lib, model.vocab
        self.bos = lib.llama_vocab_bos(vocab) if lib.llama_vocab_get_add_bos(vocab) else None
        self._prefixed = lib.llama_vocab_type(vocab) == _SPM and model.key("tokenizer.ggml.add_space_prefix") != "false"
        self._nfc = model.key("tokenizer.ggml.pre").startswith("qwen")

    def tokenize(self, segments: Sequence[tuple[str, bool]], *, after: int | None = None) -> list[int]:
        """Token ids of the segments; ``after`` is the token in front of the first one, None at the start of a sequence."""
        ids: list[int] = []
        for text, trusted in segments:
            for part in self._parts(text, trusted):
                ids += self._one(part, trusted, ids[-1] if ids else after)
        if after is None and self.bos is not None:
            if ids[:1] != [self.bos]:
                ids.insert(0, self.bos)
            elif ids[1:2] == [self.bos]:
                del ids[0]
        return ids

    def _parts(self, text: str, trusted: bool) -> list[str]:
        if trusted:
            return _cut(text)
        if self._nfc:
            text = unicodedata.normalize("NFC", text)
        return [piece for part in self._without_marks(text) for piece in _cut(part)]

    def _one(self, text: str, trusted: bool, previous: int | None) -> list[int]:
        model = self.model
        if not self._prefixed or previous is None or model.special(previous):
            return model.raw_tokenize(text, parse_special=trusted)
        # This vocabulary puts a blank before every text it is given; a byte that never merges keeps it away from ours.
        ids = model.raw_tokenize("\x01" + text, parse_special=trusted)
        at = next((i for i, t in enumerate(ids[:3]) if model.piece(t) == b"\x01"), None)
        return model.raw_tokenize(text, parse_special=trusted) if at is None else ids[at + 1 :]

    def _without_marks(self, text: str) -> list[str]:
        """The text cut inside each mark that the vocabulary would recognise even in plain text: user-defined tokens."""
        marks, lengths, firsts = self._marks
        parts, start = [], 0
        for match in firsts.finditer(text):
            i = match.start()
            if any(text[i : i + n] in marks for n in lengths):
                parts.append(text[start : i + 1])
                start = i + 1
        parts.append(text[start:])
        return [p for p in parts if p]

    @cached_property
    def _marks(self) -> tuple[set[str], set[int], re.Pattern[str]]:
        """The marks, their lengths, and what finds the characters that they begin with."""
        model = self.model
        texts = set()
        for token in range(model.n_vocab):
            if model.lib.llama_vocab_get_attr(model.vocab, token) & (_CONTROL | _USER_DEFINED | _UNKNOWN):
                mark = model.piece(token).decode("utf-8", "replace")
                if len(mark) > 1 and not mark.isspace():  # a run of blanks forges nothing
                    texts.add(mark)
        return texts, {len(t) for t in texts}, re.compile("|".join({re.escape(t[0]) for t in texts}) or "$^")


def _cut(text: str) -> list[str]:
    """Stretches that a tokenizer can bear, cut before a blank where there is one."""
    parts = []
    while len(text) > _MAX_RUN:
        at = max(text.rfind(" ", _MAX_RUN // 2, _MAX_RUN), text.rfind("\n", _MAX_RUN // 2, _MAX_RUN))
        at = at if at > 0 else _MAX_RUN
        parts.append(text[:at])
        text = text[at:]
    return [*parts, text] if text else parts


class Context:
    """The K/V cache and the computation over it. Positions of a sequence count from 0."""

    def __init__(self, model: LlamaModel, settings: ContextSettings, watch: Callable[[int, bool], bool] | None = None) -> None:
        """
        Args:
            watch: llama.cpp's evaluation callback. It is asked for each step of a computation with the address of its result (a
                ``ggml_tensor``) and True: whether it wants to see that. If so it is called again when the step is done, with
                False; an answer of False then ends the computation.
        """
        self.model, self.settings = model, settings
        lib = self.lib = model.lib
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_seq_max = settings.n_ctx, settings.n_seq
        params.n_batch = params.n_ubatch = settings.n_batch
        params.n_outputs_max = settings.n_outputs or settings.n_seq  # logits are asked for once per sequence
        params.embeddings, params.pooling_type = settings.embeddings, settings.pooling
        params.n_threads, params.n_threads_batch = settings.threads, settings.prefill_threads
        params.offload_kqv = params.op_offload = params.swa_full = False
        params.kv_unified = True  # one pool of cells: a lone conversation may use all of them
        params.no_perf = True
        params.type_k = params.type_v = _Q8_0 if settings.cache == "q8_0" else _F16
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED if settings.flash else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._watch: Any = None  # llama.cpp holds only the address
        if watch is not None:
            self._watch = lib.ggml_backend_sched_eval_callback(lambda tensor, ask, _: watch(tensor, ask))
            params.cb_eval = self._watch
        self._abort: Any = None
        self._threads = settings.threads
        self.handle = lib.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise LlamaError(f"llama.cpp could not make a context of {settings.n_ctx} tokens; take a smaller one")
        self.memory = lib.llama_get_memory(self.handle)
        self.batch = lib.llama_batch_init(settings.n_batch, 0, 1)
        self.count = 0

    def on_abort(self, wanted: Callable[[], bool] | None) -> None:
        """Ask this between the steps of a computation; True ends ``decode`` with status 2. None asks nothing.

        A call into Python for each of some thousand steps costs a long batch nothing, but a single token much.
        """
        callback = self.lib.ggml_abort_callback(lambda _: wanted()) if wanted else self.lib.ggml_abort_callback()
        self.lib.llama_set_abort_callback(self.handle, callback, None)
        self._abort = callback  # llama.cpp holds only its address

    def set_threads(self, threads: int) -> None:
        """Compute single tokens with so many threads from now on."""
        if threads != self._threads:
            self._threads = threads
            self.lib.llama_set_n_threads(self.handle, threads, self.settings.prefill_threads)

    def use_adapters(self, adapters: Sequence[tuple[Any, float]]) -> None:
        """Compute with these adapters, each as much as its scale says."""
        handles = (self.lib.llama_adapter_lora_p_ctypes * len(adapters))(*(handle for handle, _ in adapters))
        scales = (ctypes.c_float * len(adapters))(*(scale for _, scale in adapters))
        if self.lib.llama_set_adapters_lora(self.handle, handles, len(adapters), scales):
            raise LlamaError("llama.cpp did not take the adapters")

    def clear_batch(self) -> None:
        self.count = 0

    def add(self, token: int, position: int, sequence: int, *, logits: bool) -> int:
        """Put a token into the batch; returns its place there."""
        i, batch = self.count, self.batch
        batch.token[i], batch.pos[i], batch.logits[i] = token, position, logits
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = sequence
        self.count += 1
        return i

    def decode(self) -> int:
        """Compute the batch: 0 done, 1 no room in the cache, anything else is llama.cpp's error."""
        self.batch.n_tokens = self.count
        return int(self.lib.llama_decode(self.handle, self.batch))

    def encode(self) -> int:
        """Give the batch to the encoder of a model that has one; the token with which its decoder starts."""
        self.batch.n_tokens = self.count
        if status := self.lib.llama_encode(self.handle, self.batch):
            raise LlamaError(f"encoding ended with status {status}")
        start = int(self.lib.llama_model_decoder_start_token(self.model.handle))
        return start if start >= 0 else int(self.lib.llama_vocab_bos(self.model.vocab))

    def logits(self, row: int) -> Any:
        """The logits of a row of the last batch: float32, one a token, valid until the next decode."""
        return _floats(self.lib.llama_get_logits_ith(self.handle, row), self.model.n_vocab)

    def embedding(self, sequence: int = 0) -> Any:
        """The embedding of a sequence of the last batch: float32; pooled where the model pools, else that of the last row."""
        lib, model = self.lib, self.model.handle
        pooling = lib.llama_pooling_type(self.handle)
        if pooling == _NO_POOLING:
            return _floats(lib.llama_get_embeddings_ith(self.handle, -1), lib.llama_model_n_embd_out(model))
        size = lib.llama_model_n_cls_out(model) if pooling == _RANK_POOLING else lib.llama_model_n_embd_out(model)
        return _floats(lib.llama_get_embeddings_seq(self.handle, sequence), size)

    def remove(self, sequence: int, start: int) -> bool:
        """Forget a sequence from a position on; False when this kind of model cannot forget a part."""
        return bool(self.lib.llama_memory_seq_rm(self.memory, sequence, start, -1))

    def forget(self) -> None:
        """Forget all sequences."""
        if self.memory:  # an encoder has none
            self.lib.llama_memory_clear(self.memory, True)

    def copy(self, source: int, target: int, end: int) -> None:
        self.lib.llama_memory_seq_cp(self.memory, source, target, 0, end)

    def position_max(self, sequence: int) -> int:
        return int(self.lib.llama_memory_seq_pos_max(self.memory, sequence))

    def state(self, sequence: int, *, partial: bool = False) -> bytearray:
        """The sequence's cache as bytes; ``partial``: only what cannot be rolled back (recurrent state, sliding window)."""
        flags = 1 if partial else 0
        size = self.lib.llama_state_seq_get_size_ext(self.handle, sequence, flags)
        data = bytearray(size)
        view = (ctypes.c_uint8 * size).from_buffer(data)
        got = self.lib.llama_state_seq_get_data_ext(self.handle, view, size, sequence, flags)
        return data if got == size else bytearray()

    def set_state(self, sequence: int, data: bytes | bytearray, *, partial: bool = False) -> bool:
        if not data:
            return False
        view = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        return bool(self.lib.llama_state_seq_set_data_ext(self.handle, view, len(data), sequence, 1 if partial else 0))


def _floats(pointer: Any, count: int) -> Any:
    import numpy as np  # a tenth of a second on a board, and most answers never need it

    if not pointer:
        raise LlamaError("llama.cpp gave no output")
    return np.ctypeslib.as_array(pointer, (count,))


def _quiet(lib: Any) -> None:
    """Keep llama.cpp's warnings and errors for the case that it dies, and drop the rest."""
    lib.llama_log_set(_log(lib), None)


@cache  # llama.cpp calls it for as long as the process lives, which may be longer than any model
def _log(lib: Any) -> Any:
    written = 0

    def keep(level: int, text: bytes, _: Any) -> None:
        nonlocal written
        # 3 and 4 are warnings and errors; 5 goes on with the line before, whose level is not known here.
        if level in (3, 4) and written < 1 << 20:
            written += len(text)
            sys.stderr.buffer.write(text)
            sys.stderr.buffer.flush()

    return lib.llama_log_callback(keep)
