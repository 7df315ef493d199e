"""What a model says itself: answers to seed prompts in its own chat template, several at once.

A quantized model must be good at what it will read and write, and that is best written by the model. Source of the idea: LLM-QAT
(Liu et al., 2023, arXiv 2305.17888), which calibrates with the model's own generations.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.engine.handle import EndStep, Engine, TextStep
from agent.engine.sampling import Sampling
from agent.errors import EngineError, SprigError, TemplateError
from agent.home import home
from agent.messages import Message, Segment, ToolSpec
from agent.models.file import read_model
from agent.templates.chat_template import ChatTemplate

_AT_ONCE = 8  # talks that are written at once
_ANSWER, _OPENING = 128, 32  # tokens
_ROOM = 1024  # tokens of one talk; a longer prompt is passed over
_TEMPERATURE = 0.8
_SHARE = 3  # a third of the text at most is not the model's


class TalkPrompt(Protocol):
    """What a model is asked, as ``pipeline.text.seeds`` has it."""

    @property
    def messages(self) -> tuple[Message, ...]: ...
    @property
    def tools(self) -> tuple[ToolSpec, ...]: ...


@dataclass(frozen=True, slots=True)
class Written:
    """Pieces of text as token ids: the talks that the model wrote, and paragraphs of a text that it was given."""

    talks: tuple[tuple[int, ...], ...]
    paragraphs: tuple[tuple[int, ...], ...]

    def mixed(self) -> list[tuple[int, ...]]:
        """All pieces, in an order that is always the same."""
        pieces = [*self.talks, *self.paragraphs]
        random.Random(0).shuffle(pieces)
        return pieces


def write_talks(
    gguf: Path,
    prompts: Sequence[TalkPrompt],
    text: str,
    tokens: int,
    *,
    threads: int | None = None,
    memory: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Written:
    """Let a model write.

    Args:
        gguf: the model. One without a chat template goes on with openings of the text.
        prompts: for its talks.
        text: paragraphs between them, a third of the whole at most.
        tokens: of all together, at least.
        on_progress: tokens that are there, of how many.

    Raises:
        SprigError: the model writes no text, does not fit the memory, or nothing came.
    """
    trained = read_model(gguf).n_ctx_train
    room = min(_ROOM, trained)
    at_once = max(1, min(_AT_ONCE, trained // room))
    with ExitStack() as stack:
        engine = stack.enter_context(
            Engine(gguf, conversations=at_once, context=at_once * room, keep_prefix=False, threads=threads, memory=memory)
        )
        engine.wait()
        paragraphs = _paragraphs(engine, text, tokens // _SHARE)
        wanted = tokens - sum(map(len, paragraphs))
        template = _template(engine)
        if template is not None:
            stack.callback(template.close)
        answer = min(_ANSWER, room // 2)
        starts = _starts(engine, template, prompts, text, room - answer)
        talks: list[tuple[int, ...]] = []
        pool = stack.enter_context(ThreadPoolExecutor(at_once))
        done = 0
        while batch := list(itertools.islice(starts, at_once)):
            talks += pool.map(lambda start: _talk(engine, start[0], start[1], answer), batch)
            done = sum(map(len, talks))
            on_progress(min(done, wanted), wanted)
            if done >= wanted:
                return Written(tuple(talks), tuple(paragraphs))
        raise SprigError(f"{gguf} wrote {done} tokens and no more; give a text with --text")


def _template(engine: Engine) -> ChatTemplate | None:
    """The model's template; None if it has none that can be used."""
    file = engine.file
    if not file.template:
        return None
    try:
        template = ChatTemplate(file.template, bos=file.bos, eos=file.eos, cache=home() / "cache" / "templates")
        if template.profile.error is None:
            return template
        template.close()
    except TemplateError:
        pass
    return None


def _paragraphs(engine: Engine, text: str, most: int) -> list[tuple[int, ...]]:
    """Paragraphs of a text, so many tokens at most, in an order that is always the same."""
    pieces = [f"{part}\n\n" for part in text.split("\n\n") if part.strip()]
    random.Random(1).shuffle(pieces)
    found: list[tuple[int, ...]] = []
    for piece in pieces:
        ids = _plain(engine, piece)
        if sum(map(len, found)) + len(ids) > most:
            break
        found.append(tuple(ids))
    return found


def _plain(engine: Engine, text: str) -> list[int]:
    return engine.tokenize([Segment(text, False)])


def _starts(
    engine: Engine, template: ChatTemplate | None, prompts: Sequence[TalkPrompt], text: str, most: int
) -> Iterator[tuple[int, list[int]]]:
    """Seeds and beginnings of talks, without end unless none can be used: prompts, or openings of the text where none fits."""
    seeds = itertools.count(1)
    found = True
    while found:
        found = False
        for ids in _asked(engine, template, prompts) if template is not None else ():
            if len(ids) <= most:
                found = True
                yield next(seeds), ids
        if not found:
            for ids in _openings(engine, text):
                found = True
                yield next(seeds), ids[:most]


def _asked(engine: Engine, template: ChatTemplate, prompts: Sequence[TalkPrompt]) -> Iterator[list[int]]:
    for prompt in random.Random(0).sample(list(prompts), len(prompts)):
        for tools in (prompt.tools, ()) if prompt.tools else ((),):
            try:
                yield engine.tokenize(template.head(prompt.messages, tools))
                break
            except TemplateError:  # it knows no tools, or no system prompt
                continue


def _openings(engine: Engine, text: str) -> Iterator[list[int]]:
    for part in text.split("\n\n"):
        if ids := _plain(engine, part.strip()):
            yield ids[:_OPENING]


def _talk(engine: Engine, seed: int, ids: Sequence[int], answer: int) -> tuple[int, ...]:
    name = engine.conversation()
    said = list(ids)
    sampling = Sampling(temperature=_TEMPERATURE, top_k=100, top_p=1.0, min_p=0.02, seed=seed)
    for step in engine.generate(name, ids, sampling=sampling, max_tokens=answer):
        if isinstance(step, TextStep):
            said += step.ids
        elif isinstance(step, EndStep) and step.reason == "failed":
            raise EngineError(f"the model could not write: {step.why}")
    engine.forget(name)
    return tuple(said)
