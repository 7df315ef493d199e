"""What a student learns from: the user's files, or what the teacher writes itself, as sequences of tokens.

Words, thoughts and calls of an assistant count, and what others say does not; of a plain text everything counts but the first
token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from agent.errors import SprigError
from agent.templates.chat_template import ChatTemplate
from pipeline.distill.data.content import ChatTranscript, LineError
from pipeline.distill.data.files import Material, read_files, refuse
from pipeline.distill.data.lesson import TrainingSequence
from pipeline.distill.data.own import own_pieces
from pipeline.distill.data.packing import LessonPiece, packed, windows
from pipeline.distill.data.stretches import Stretch, passage_stretches, stretches_of
from pipeline.distill.data.tokens import TokenizerProcess

OWN_TOKENS = 32_768  # that the teacher writes where there is nothing else


def read_lessons(
    folder: Path,
    files: Sequence[Path],
    *,
    width: int,
    own: int | None = None,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[TrainingSequence, ...]:
    """The sequences to learn from.

    Args:
        folder: a checkpoint whose tokenizer and chat template are used; the teacher's where it writes.
        files: text files in UTF-8, and .jsonl files (see ``pipeline.distill.data.files``).
        width: tokens of a sequence, at most. Longer texts are cut, shorter ones packed together.
        own: tokens that the teacher writes beside the files; by default OWN_TOKENS where there are none.
        threads, on_progress: of its writing; tokens that are there, of how many.

    Raises:
        SprigError: a file is broken, with its line; or nothing is to be learned from all of it.
    """
    if width < 2:
        raise SprigError(f"a sequence of {width} tokens predicts nothing; take 256")
    material = read_files(files)
    pieces: list[LessonPiece] = []
    with ExitStack() as stack:
        vocabulary = stack.enter_context(TokenizerProcess(folder))
        if material:
            pieces += _pieces(vocabulary, _sequences(stack, vocabulary, material))
    if own is None:
        own = 0 if files else OWN_TOKENS
    if own:
        pieces += own_pieces(folder, own, threads, on_progress)
    found = packed((part for piece in pieces for part in windows(piece, width, vocabulary.bos)), width)
    if not found:
        raise SprigError("--data: nothing in it can be learned from; give a longer text")
    return found


def _sequences(stack: ExitStack, vocabulary: TokenizerProcess, material: Sequence[Material]) -> list[tuple[list[Stretch], bool]]:
    """All material as stretches, and whether the token that ends a text follows. Raises SprigError with the broken lines."""
    template: ChatTemplate | None = None
    if any(isinstance(one.content, ChatTranscript) for one in material):
        template = vocabulary.template()
        if template is None:
            first = next(one.where for one in material if isinstance(one.content, ChatTranscript))
            raise SprigError(f"--data: {first} is a conversation, and the model has no chat template; give plain text")
        stack.callback(template.close)
    found: list[tuple[list[Stretch], bool]] = []
    broken: list[tuple[str, str]] = []
    for one in material:
        if isinstance(one.content, ChatTranscript):
            assert template is not None
            try:
                found += [(stretches, False) for stretches in stretches_of(template, one.content)]
            except LineError as e:
                broken.append((one.where, str(e)))
        else:
            found.append((passage_stretches(one.content.prompt, one.content.text), one.content.ends))
    refuse(broken)
    return found


def _pieces(vocabulary: TokenizerProcess, sequences: Sequence[tuple[list[Stretch], bool]]) -> Iterator[LessonPiece]:
    for ids, (stretches, ends) in zip(vocabulary.tokenize(s for s, _ in sequences), sequences, strict=True):
        tokens = [token for part in ids for token in part]
        scored = [one.scored for one, part in zip(stretches, ids, strict=True) for _ in part]
        if ends and vocabulary.eos is not None and tokens[-1:] != [vocabulary.eos]:
            tokens, scored = [*tokens, vocabulary.eos], [*scored, True]
        yield LessonPiece(tokens, scored)
