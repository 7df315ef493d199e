"""A checkpoint's tokens as llama.cpp will see them on the device: its tokenizer in a GGUF without weights, in a child process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self

from agent.home import home
from agent.templates.chat_template import ChatTemplate
from pipeline.distill.data.stretches import Stretch
from pipeline.format.gguf_file import lay_out
from pipeline.forward.process import ForwardProcess
from pipeline.model import from_checkpoint
from pipeline.recipes.names import find_recipe
from pipeline.sources.source import open_source

_AT_ONCE = 1 << 20  # characters of a message


class TokenizerProcess:
    """The tokenizer and the chat template of a checkpoint.

    Args:
        folder: the checkpoint; no weight of it is read.

    Attributes:
        bos: the token that begins a text; None where the model wants none.
        eos: the token that ends a text; None where there is none.

    Raises:
        SprigError: the folder is no checkpoint that converts, or its tokenizer does not work.
    """

    def __init__(self, folder: Path) -> None:
        self._keys: dict[str, Any] = dict(from_checkpoint(open_source(str(folder)), find_recipe("F32")).keys)
        self.eos: int | None = self._keys.get("tokenizer.ggml.eos_token_id")
        self._folder = tempfile.TemporaryDirectory(prefix="sprig-")
        path = Path(self._folder.name) / "vocabulary.gguf"
        path.write_bytes(lay_out(self._keys, []).header)
        self._process = ForwardProcess(path, "pipeline.distill.data.tokens_child", threads=1)
        self.bos = self._process.bos if self._process.add_bos else None

    def template(self) -> ChatTemplate | None:
        """The chat template, in a process that the caller closes; None where the checkpoint has none that renders."""
        source = self._keys.get("tokenizer.chat_template")
        if not isinstance(source, str):
            return None
        tokens: list[str] = self._keys["tokenizer.ggml.tokens"]
        bos, eos = (self._keys.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos"))
        texts = ["" if number is None else tokens[number] for number in (bos, eos)]
        return ChatTemplate(source, bos=texts[0], eos=texts[1], cache=home() / "cache" / "templates")

    def tokenize(self, sequences: Iterable[Sequence[Stretch]]) -> Iterator[list[list[int]]]:
        """The token ids of each stretch of each sequence."""
        waiting = iter(sequences)
        while batch := list(_batch(waiting)):
            told = [[[[[s.text, s.trusted] for s in one.segments], one.scored] for one in sequence] for sequence in batch]
            yield from self._process.ask("ids", sequences=told)["ids"]

    def close(self) -> None:
        self._process.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _batch(waiting: Iterator[Sequence[Stretch]]) -> Iterator[Sequence[Stretch]]:
    """Sequences for one message."""
    characters = 0
    while characters < _AT_ONCE:
        for sequence in islice(waiting, 1):
            characters += 1000 + sum(len(s.text) for one in sequence for s in one.segments)
            yield sequence
            break
        else:
            return
