"""BPE of raw text with ``▁`` for the space and byte fallback: SentencePiece's kind, as transformers converts it.

llama.cpp has two ways to hold such a vocabulary: with a score for each token ("llama"), or with a list of merges ("gemma4",
"sarvam-moe"). Neither fits all tokenizers, so each is simulated, and the one that gives the original's ids is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gguf import Keys, TokenType
from tokenizers import AddedToken

from agent.errors import UnsupportedError, VocabError
from pipeline.format.gguf_file import Value
from pipeline.vocab.draft import Tokens, VocabularyDraft, VocabularyToken
from pipeline.vocab.files import TokenizerSource, carried
from pipeline.vocab.pretokenizers import SECONDS
from pipeline.vocab.probes import PROBES
from pipeline.vocab.sentencepiece import check_bytes, parse_model
from pipeline.vocab.simulate import SPACE, Form, Merges, Priority, by_rank, by_score
from pipeline.vocab.special import chat_templates
from pipeline.vocab.tokenizer_json import PHI3, all_tokens, encoder, frame, stripping_notes

MAX_DEVIATION = 0.25  # share of probes that a vocabulary may get wrong before it is refused
# Gemma 4's marks of calls and thoughts. Programs that show no control token (llama-server) read its calls by them, so llama.cpp's
# converter makes them user-defined.
_GEMMA4_VISIBLE = frozenset(
    {"<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>'}
)
_NEVER_GREEDY = frozenset({"<unk>", "<s>", "<|endoftext|>"})  # specials of Phi-3 that leave the white space behind them


@dataclass(frozen=True, slots=True)
class Writing:
    """One way to write the vocabulary, and how llama.cpp would then tokenize (``form``)."""

    model: str
    pre: str | None
    tokens: Tokens
    form: Form
    keys: dict[str, Value]


def draft_raw_bpe(
    source: TokenizerSource, files: Mapping[str, bytes], config: Mapping[str, Any], merges: Merges
) -> VocabularyDraft:
    """The vocabulary, written in the way that gives the original's ids on the probes.

    Raises:
        VocabError: broken files.
        UnsupportedError: a byte token is missing, or llama.cpp tokenizes otherwise in every writing.
    """
    tokens, added = all_tokens(source)
    check_bytes({token.text for token in tokens.values()}, source.origin)
    mark = next((t.content for t in added.values() if t.special), "")
    # Where a space is put first only in some places, a model that chats needs it right behind a special token.
    vital = [mark + text for text in PROBES] if mark and chat_templates(files)[0] else list(PROBES)
    wanted = _encode_all(source, dict.fromkeys((*vital, *PROBES)))
    before = carried(files)
    writings = list(_writings(source, files, config, tokens, added, merges)) if before.model else []
    same = [w for w in writings if (w.model, w.pre) == (before.model, before.pre)]
    chosen, missed = _choose(same or _writings(source, files, config, tokens, added, merges), wanted, vital)
    lost = [text for text in vital if text in missed]
    if len(lost) > MAX_DEVIATION * len(vital):
        text = next(t for t in missed if t in lost)
        raise UnsupportedError(
            f"{source.origin}: llama.cpp tokenizes unlike this tokenizer; {text!r} gives {wanted[text][:12]} here, "
            f"{chosen.form.encode(text)[:12]} there"
        )
    notes = [*source.notes, *stripping_notes(added.values())]
    if missed and not lost:
        notes.append(
            "the original puts a space before a text but none behind a special token; llama.cpp does both or neither, and "
            "here neither, as chats need it: a text that does not start with a special token lacks its first space"
        )
    elif missed:
        notes.append(f"llama.cpp gives other ids than the original for some texts, for example {missed[0]!r}")
    form, encode, unknown = chosen.form, encoder(source), source.spec["model"].get("unk_token")
    return VocabularyDraft(
        model=chosen.model,
        pre=chosen.pre,
        tokens=chosen.tokens,
        encode=lambda text: [*wanted[text]] if text in wanted else encode(text),
        frame=frame(source),
        lookup=source.tokenizer.token_to_id,
        keys=chosen.keys,
        scored=True,
        unknown=source.tokenizer.token_to_id(unknown) if isinstance(unknown, str) else None,
        name_needs=PHI3 if form.greedy and {"</s>", *_NEVER_GREEDY} <= form.ids.keys() else "",
        exact=lambda text: text not in missed if text in wanted else form.encode(text) == encode(text),
        notes=tuple(notes),
    )


def _encode_all(source: TokenizerSource, texts: Iterable[str]) -> dict[str, list[int]]:
    """The library's ids, within a time that shows that its regular expressions end."""
    start, encode = time.monotonic(), encoder(source)
    ids: dict[str, list[int]] = {}
    for text in texts:
        ids[text] = encode(text)
        if time.monotonic() - start > SECONDS:
            raise VocabError(f"{source.origin}: it needs more than {SECONDS:.0f} s for a few words")
    return ids


def _choose(writings: Iterable[Writing], wanted: Mapping[str, list[int]], vital: Sequence[str]) -> tuple[Writing, list[str]]:
    """The writing that gets the fewest vital texts wrong, then the fewest texts; and the texts that it gets wrong."""
    best: tuple[tuple[int, int], Writing, list[str]] | None = None
    for writing in writings:
        wrong = [text for text, ids in wanted.items() if writing.form.encode(text) != ids]
        cost = len({*vital} & {*wrong}), len(wrong)
        if best is None or cost < best[0]:
            best = cost, writing, wrong
        if not wrong:
            break
    assert best is not None, "there is always the one with scores"
    return best[1], best[2]


def _writings(
    source: TokenizerSource,
    files: Mapping[str, bytes],
    config: Mapping[str, Any],
    tokens: Tokens,
    added: Mapping[int, AddedToken],
    merges: Merges,
) -> Iterator[Writing]:
    """The ways to write it, the likeliest first."""
    merges_only = [(a, b) for a, b in merges if " " not in a + b]
    gemma4 = _is_gemma4(config)
    greedy = any(t.rstrip for t in added.values())
    lists = [f"{a} {b}" for a, b in merges_only]
    model, pre = ("gemma4", "gemma4") if gemma4 else ("gpt2", "sarvam-moe")
    tables = list(_score_tables(files, tokens, merges))
    ways = [*((scores, False) for scores in tables), (tables[-1], True)]
    for prefix in (False, True):
        for scores, by_merges in reversed(ways) if gemma4 else ways:
            for spelled in _spellings(_typed(source, tokens, added, scores, gemma4)):
                if not by_merges:  # the token with the best score is merged first
                    priority = by_score({token.text: token.score for token in spelled.values()})
                    form = _form(spelled, greedy, priority, prefix=prefix)
                    yield Writing("llama", None, spelled, form, {Keys.Tokenizer.ADD_PREFIX: prefix})
                elif merges_only and not prefix:  # the first merge of the list is done first
                    form = _form(spelled, greedy, by_rank(merges_only), lines=True, whole=gemma4)
                    keys: dict[str, Value] = {Keys.Tokenizer.ADD_PREFIX: False, Keys.Tokenizer.MERGES: lists}
                    yield Writing(model, pre, spelled, form, keys)


def _is_gemma4(config: Mapping[str, Any]) -> bool:
    text = config.get("text_config")
    names = (config.get("model_type"), text.get("model_type") if isinstance(text, Mapping) else None)
    return any(isinstance(name, str) and name.startswith("gemma4") for name in names)


def _score_tables(files: Mapping[str, bytes], tokens: Tokens, merges: Merges) -> Iterator[dict[str, float]]:
    """Scores under which llama.cpp's "best token first" merges as "first merge first" does.

    The model that tokenizer.json was converted from has them; without it the first merge that makes a token says how
    early it comes.
    """
    if "tokenizer.model" in files:
        own = parse_model(files["tokenizer.model"]).pieces
        if all((n < len(own) and own[n].text == t.text) or t.type != TokenType.NORMAL for n, t in tokens.items()):
            yield {piece.text: piece.score for piece in own}
    scores: dict[str, float] = {}
    for rank, (left, right) in enumerate(merges):
        scores.setdefault(left + right, -float(rank))
    yield scores


def _typed(
    source: TokenizerSource, tokens: Tokens, added: Mapping[int, AddedToken], scores: Mapping[str, float], gemma4: bool
) -> dict[int, VocabularyToken]:
    """The tokens with their scores; byte tokens and the unknown token get their types."""
    unknown = source.spec["model"].get("unk_token")
    typed: dict[int, VocabularyToken] = {}
    for number, token in tokens.items():
        text, kind = token.text, token.type
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">") and number not in added:
            kind = TokenType.BYTE
        elif gemma4 and text in _GEMMA4_VISIBLE:
            kind = TokenType.USER_DEFINED
        elif text == unknown and not (gemma4 and number in added):  # Gemma 4's is a control token to llama.cpp's converter
            kind = TokenType.UNKNOWN
        typed[number] = VocabularyToken(text, kind, scores.get(text, 0.0))
    return typed


def _spellings(plain: Tokens) -> list[Tokens]:
    """Two spellings if there are added runs of spaces, else one.

    llama.cpp looks for an added token in the raw text, so a run must be written with spaces. If the library never finds it
    there, it must be an ordinary token for llama.cpp.
    """
    runs = {n: t for n, t in plain.items() if t.type == TokenType.USER_DEFINED and SPACE in t.text}
    if not runs:
        return [plain]
    spaced = {n: token._replace(text=token.text.replace(SPACE, " ")) for n, token in runs.items()}
    ordinary = {n: token._replace(type=TokenType.NORMAL) for n, token in runs.items()}
    return [{**plain, **spaced}, {**plain, **ordinary}]


def _form(tokens: Tokens, greedy: bool, priority: Priority, **rules: bool) -> Form:
    """How llama.cpp would tokenize: it finds special texts before it merges, the longest first.

    ``greedy``: they swallow the white space behind them.
    """
    ids = {token.text: number for number, token in tokens.items()}
    kinds = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
    found = [token.text for token in tokens.values() if token.type in kinds and token.text]
    swallowing = frozenset(found) - _NEVER_GREEDY if greedy else frozenset()
    return Form(ids, sorted(found, key=lambda text: -len(text.encode())), priority, greedy=swallowing, **rules)
