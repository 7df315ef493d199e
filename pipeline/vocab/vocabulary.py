"""A model's tokenizer as GGUF keys: tokens, types, scores, merges, pre-tokenizer, special tokens, chat templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gguf import Keys, TokenType

from agent.errors import UnsupportedError, VocabError
from pipeline.format.gguf_file import Value
from pipeline.vocab.bpe import draft_bpe
from pipeline.vocab.draft import VocabularyDraft, lay_out_tokens
from pipeline.vocab.files import MAX_ROWS
from pipeline.vocab.probes import PROBES
from pipeline.vocab.reading import read_source
from pipeline.vocab.sentencepiece import draft_sentencepiece
from pipeline.vocab.special import chat_templates, mistaken_ends, sampling_keys, special_keys
from pipeline.vocab.unigram_wordpiece import draft_unigram, draft_wordpiece


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a GGUF says about its tokens.

    Attributes:
        keys: all tokenizer.* keys but those of templates, and the generation defaults general.sampling.*.
        templates: the chat templates by name, "default" the one used when none is named.
        notes: what the user should know, a line each.
        encode: text -> ids that the original tokenizer gives, without added BOS and EOS, special tokens in the text
            parsed. Raises VocabError.
        name_needs: what general.name must contain, in any case, for llama.cpp to tokenize so: "phi-3" or "" for nothing.
        exact: whether llama.cpp must give the ids of ``encode`` for a text. False where ``notes`` say why it may not.
        probes: texts for which it must, and their ids: PROBES, bare and behind one of this vocabulary's own special tokens.
    """

    keys: dict[str, Value]
    templates: dict[str, str]
    notes: tuple[str, ...]
    encode: Callable[[str], list[int]]
    name_needs: str
    exact: Callable[[str], bool]
    probes: Mapping[str, list[int]]


def load_vocabulary(files: Mapping[str, bytes], n_rows: int, config: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary of a checkpoint.

    Args:
        files: its small files by name (``SMALL_FILES`` of ``pipeline.sources.source``).
        n_rows: rows of the embedding; the vocabulary is padded to it with unused tokens.
        config: the parsed config.json.

    Raises:
        VocabError: a tokenizer or a JSON file is broken, or does not fit the embedding.
        UnsupportedError: a tokenizer that llama.cpp cannot reproduce.
    """
    if not 0 < n_rows <= MAX_ROWS:
        raise VocabError(f"the embedding has {n_rows} rows, which no vocabulary has")
    draft = _draft(files, n_rows, config)
    tokens, token_notes = lay_out_tokens(draft, n_rows)
    special, special_notes = special_keys(files, config, draft, n_rows)
    templates, template_notes = chat_templates(files)
    mistaken = mistaken_ends(draft)

    def exact(text: str) -> bool:
        return draft.exact(text) and not any(end in text for end in mistaken)

    keys: dict[str, Value] = {Keys.Tokenizer.MODEL: draft.model}
    if draft.pre is not None:
        keys[Keys.Tokenizer.PRE] = draft.pre
    keys |= {**tokens, **draft.keys, **special, **sampling_keys(files)}
    return Vocabulary(
        keys=keys,
        templates=templates,
        notes=(*draft.notes, *token_notes, *special_notes, *template_notes),
        encode=draft.encode,
        name_needs=draft.name_needs,
        exact=exact,
        probes={text: draft.encode(text) for text in _probes(draft) if exact(text)},
    )


def _draft(files: Mapping[str, bytes], n_rows: int, config: Mapping[str, Any]) -> VocabularyDraft:
    if "tokenizer.model" in files and "tokenizer.json" not in files:
        return draft_sentencepiece(files, n_rows)
    source = read_source(files, n_rows)
    kind = source.spec["model"].get("type")
    if kind is None:  # old files leave it out
        kind = "BPE" if "merges" in source.spec["model"] else "Unigram" if "unk_id" in source.spec["model"] else "WordPiece"
    if kind == "BPE":
        return draft_bpe(source, files, config)
    if kind == "Unigram":
        return draft_unigram(source)
    if kind == "WordPiece":
        return draft_wordpiece(source)
    raise UnsupportedError(f"{source.origin} holds a {str(kind)[:40]!r} model; BPE, Unigram and WordPiece are supported")


def _probes(draft: VocabularyDraft) -> list[str]:
    """PROBES, and special tokens at the start, in the middle and at the end of a text."""
    tokens = [token for _, token in sorted(draft.tokens.items())]
    marks = [token.text for token in tokens if token.type == TokenType.CONTROL and token.text.isprintable()]
    chosen = [*marks[:3], *marks[-2:]]
    behind = [marks[0] + text for text in PROBES] if marks else []
    return [*PROBES, *behind, *(f"{mark}user\nHello{mark}" for mark in chosen), "x".join(chosen)]
