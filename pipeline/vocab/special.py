"""Special tokens, chat templates and generation defaults, from the small JSON files beside the vocabulary."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gguf import Keys, TokenType

from agent.errors import VocabError
from pipeline.format.gguf_file import Value
from pipeline.vocab.draft import VocabularyDraft, VocabularyToken
from pipeline.vocab.files import Json, parse_json, text_of

MAX_TEMPLATE_BYTES = 1_000_000

# Role in the JSON files -> key of the GGUF.
_ROLES = {
    "bos": Keys.Tokenizer.BOS_ID, "eos": Keys.Tokenizer.EOS_ID, "unk": Keys.Tokenizer.UNK_ID, "sep": Keys.Tokenizer.SEP_ID,
    "pad": Keys.Tokenizer.PAD_ID, "cls": "tokenizer.ggml.cls_token_id", "mask": Keys.Tokenizer.MASK_ID,
}  # fmt: skip
# Ends of a turn and of a message that models are known by, the likeliest first.
_TURN_ENDS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<turn|>", "<|endoftext|>", "<|end_of_text|>", "</s>")
# Ends of a turn that no file of their families names: Gemma 1's, and Code Llama's behind what it fills in. llama.cpp's converter
# writes them.
_UNNAMED_ENDS = ("<end_of_turn>", "▁<EOT>")
_FILE_END = "<|file_separator|>"  # CodeGemma's, behind what it fills in; llama.cpp does not know the text
# What llama.cpp ends a generation at by itself, whatever the keys say (special_eog_ids in src/llama-vocab.cpp).
_KNOWN_ENDS = {
    *_TURN_ENDS, "<|eom_id|>", "<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<eos>",
    "<end_of_utterance>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
}  # fmt: skip

# generation_config.json -> (key, whole number). llama.cpp reads them in common/common.cpp.
_SAMPLING = {
    "temperature": (Keys.General.SAMPLING_TEMP, False),
    "top_k": (Keys.General.SAMPLING_TOP_K, True),
    "top_p": (Keys.General.SAMPLING_TOP_P, False),
    "min_p": (Keys.General.SAMPLING_MIN_P, False),
    "repetition_penalty": (Keys.General.SAMPLING_PENALTY_REPEAT, False),
}


def special_keys(
    files: Mapping[str, bytes], config: Mapping[str, Any], draft: VocabularyDraft, n_rows: int
) -> tuple[dict[str, Value], list[str]]:
    """Ids of the special tokens and whether BOS and EOS are added, and notes.

    The tokenizer's own files come before generation_config.json and config.json; what the tokenizer really puts around a
    text comes before what they call it. Every key that llama.cpp has a default for is written: its defaults are other
    models' ids.

    Raises:
        VocabError: a broken JSON file.
    """
    ids, notes = _named_ids(files, config, draft, n_rows)
    ends = _ids(parse_json(files, "generation_config.json").get("eos_token_id"), n_rows)
    ends += [i for i in _ids(config.get("eos_token_id"), n_rows) if i not in ends]
    if done := _ids(config.get("eod_token_id"), n_rows):  # Hunyuan's; its files call something else the end, too
        ids["eos"] = done[0]
    before, after = draft.frame
    bos, eos = _added(files, ids, draft)
    if len(after) > 1:
        notes.append(f"the original tokenizer puts ids {after} after a text; llama.cpp only one")
    if len(before) > 1:
        notes.append(f"the original tokenizer puts ids {before} before a text, which llama.cpp cannot; chat templates write them")
    if "eos" not in ids and draft.model != "bert":
        ids["eos"] = ends[0] if ends else _fallback_end(draft, n_rows)
        if not ends:
            notes.append(f"no end-of-sequence token is named anywhere; id {ids['eos']} was taken")
    keys: dict[str, Value] = {key: ids[role] for role, key in _ROLES.items() if role in ids}
    keys |= {Keys.Tokenizer.ADD_BOS: bos, Keys.Tokenizer.ADD_EOS: eos}
    if eos and draft.between:  # llama-server puts an end and, if this says so, a separator between a question and a document
        keys[Keys.Tokenizer.ADD_SEP] = len(draft.between) > 1
        if keys[Keys.Tokenizer.ADD_SEP]:
            keys.setdefault(Keys.Tokenizer.SEP_ID, draft.between[-1])
    if mistaken := [t for t in mistaken_ends(draft) if draft.lookup(t) not in ends]:
        notes.append(f"llama.cpp ends a generation at {mistaken[0]!r}, which is ordinary text in this vocabulary")
    others = [i for i in dict.fromkeys((*ends, *_marks(_UNNAMED_ENDS, draft))) if i != ids.get("eos")]
    keys.update(_other_ends(others, draft, notes))
    if files_end := _marks((_FILE_END,), draft):
        keys[Keys.Tokenizer.FIM_SEP_ID] = files_end[0]
    return keys, notes


def _marks(texts: Sequence[str], draft: VocabularyDraft) -> list[int]:
    """Ids of those texts that are tokens beside the ordinary ones."""
    found = [number for text in texts if (number := draft.lookup(text)) is not None and number in draft.tokens]
    return [number for number in found if draft.tokens[number].type != TokenType.NORMAL]


def mistaken_ends(draft: VocabularyDraft) -> list[str]:
    """Ordinary tokens that llama.cpp takes for the end of a generation, by their text alone: HTML's ``</s>``, for one."""
    ordinary = (TokenType.NORMAL, TokenType.USER_DEFINED)
    return [token.text for token in draft.tokens.values() if token.type in ordinary and token.text in _KNOWN_ENDS]


def _named_ids(
    files: Mapping[str, bytes], config: Mapping[str, Any], draft: VocabularyDraft, n_rows: int
) -> tuple[dict[str, int], list[str]]:
    ids: dict[str, int] = {}
    notes: list[str] = []
    named = [parse_json(files, "tokenizer_config.json"), parse_json(files, "special_tokens_map.json")]
    text = config.get("text_config")
    numbered = [parse_json(files, "generation_config.json"), config, text if isinstance(text, Mapping) else {}]
    for role in _ROLES:
        for source in named:
            token = text_of(source.get(f"{role}_token"))
            found = draft.lookup(token) if token else None
            if found is not None and 0 <= found < n_rows:
                ids.setdefault(role, found)
            elif token and role not in ids:
                notes.append(f"the {role} token {token[:40]!r} is not in the vocabulary")
        for other in numbered:
            if role not in ids and (listed := _ids(other.get(f"{role}_token_id"), n_rows)):
                ids[role] = listed[0]
    if draft.unknown is not None:
        ids["unk"] = draft.unknown
    return ids, notes


def _ids(value: Any, n_rows: int) -> list[int]:
    """Token ids of a JSON value: a number or a list of them; what lies outside the vocabulary is left out."""
    listed = value if isinstance(value, list) else [value]
    return [v for v in listed if isinstance(v, int) and not isinstance(v, bool) and 0 <= v < n_rows]


def _added(files: Mapping[str, bytes], ids: dict[str, int], draft: VocabularyDraft) -> tuple[bool, bool]:
    """Whether BOS and EOS are added. Puts the ids that are really added into ``ids``."""
    before, after = draft.frame
    if draft.model == "bert":
        if before:
            ids["bos"] = ids["cls"] = before[0]
        if after:
            ids["sep"] = ids["eos"] = after[-1]
        return bool(before), bool(after)
    # transformers puts these two flags in the place of what tokenizer.json adds; of one that is not there, that still holds:
    # Qwen3-Embedding says no BOS, and puts an end behind every text, of which its vector is made.
    asked = parse_json(files, "tokenizer_config.json") if "tokenizer.json" in files else {}
    bos, eos = (asked.get(f"add_{role}_token") for role in ("bos", "eos"))
    if not isinstance(bos, bool):
        bos = len(before) == 1
        ids |= {"bos": before[0]} if before else {}
    if not isinstance(eos, bool):
        eos = bool(after)
        ids |= {"eos": after[0]} if after else {}
    return bos and "bos" in ids, eos and "eos" in ids


def _fallback_end(draft: VocabularyDraft, n_rows: int) -> int:
    """The token that ends a text if no file names one: a well-known token, else one that cannot occur."""
    for text in _TURN_ENDS:
        if (found := draft.lookup(text)) is not None and found < n_rows:
            return found
    return next((i for i in reversed(range(n_rows)) if i not in draft.tokens), n_rows - 1)


def _other_ends(others: Sequence[int], draft: VocabularyDraft, notes: list[str]) -> dict[str, Value]:
    """Keys for the ends of generation beside EOS: the end of a turn, the end of a message."""

    def text(number: int) -> str:
        return draft.tokens.get(number, VocabularyToken("")).text

    keys: dict[str, Value] = {}
    order = {t: i for i, t in enumerate(_TURN_ENDS)}
    rest = sorted(others, key=lambda i: (order.get(text(i), len(order)), others.index(i)))
    messages = [i for i in rest if text(i) == "<|eom_id|>"]
    turns = [i for i in rest if i not in messages]
    if turns:
        keys[Keys.Tokenizer.EOT_ID] = turns.pop(0)
    if not messages:
        messages = [turns.pop(0)] if turns else []
    if messages:
        keys[Keys.Tokenizer.EOM_ID] = messages[0]
    unknown = [text(i) for i in turns if text(i) not in _KNOWN_ENDS]
    if unknown:
        notes.append(f"llama.cpp will not stop at {unknown[0][:40]!r}, the model's fourth or later end token")
    return keys


def chat_templates(files: Mapping[str, bytes]) -> tuple[dict[str, str], list[str]]:
    """The model's chat templates by name, "default" the one that is used when none is named, and notes on those left out.

    Raises:
        VocabError: a broken JSON file.
    """
    found: dict[str, str] = {}
    for name in ("tokenizer_config.json", "chat_template.json"):
        found |= _declared(parse_json(files, name).get("chat_template"))
    notes: list[str] = []
    for path in sorted(files):
        named = re.fullmatch(r"additional_chat_templates/([^/]+)\.jinja", path)
        if path == "chat_template.jinja" or named:
            try:
                found[named[1] if named else "default"] = template_text(files[path], path)
            except VocabError as e:
                notes.append(f"a chat template is left out: {e}")
    for name, template in list(found.items()):
        try:
            template_text(template.encode("utf-8", "surrogatepass"), f"the template {name!r}")
        except VocabError as e:
            del found[name]
            notes.append(f"a chat template is left out: {e}")
    return found, notes


def template_text(raw: bytes, origin: str) -> str:
    """A template as it may be written. ``origin`` is what a message calls it. Raises VocabError."""
    if len(raw) > MAX_TEMPLATE_BYTES:
        raise VocabError(f"{origin} is longer than {MAX_TEMPLATE_BYTES} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise VocabError(f"{origin} is not UTF-8 text") from None


def _declared(value: Any) -> dict[str, str]:
    """Name -> template of a template field: a string, a list of {name, template}, or an object name -> template."""
    if isinstance(value, str):
        return {"default": value} if value else {}
    if isinstance(value, list):
        named = [(e.get("name"), e.get("template")) for e in value if isinstance(e, dict)]
    else:
        named = list(value.items()) if isinstance(value, dict) else []
    return {name: template for name, template in named if isinstance(name, str) and isinstance(template, str)}


def template_keys(templates: Mapping[str, str]) -> dict[str, Value]:
    """The templates under the keys that gguf-py's writer gives them."""
    named = {re.sub(r"[^A-Za-z0-9]", "_", n): template for n, template in sorted(templates.items()) if n != "default"}
    keys: dict[str, Value] = {Keys.Tokenizer.CHAT_TEMPLATE_N.format(name=name): template for name, template in named.items()}
    if named:
        keys[Keys.Tokenizer.CHAT_TEMPLATES] = sorted(named)
    if "default" in templates:
        keys[Keys.Tokenizer.CHAT_TEMPLATE] = templates["default"]
    return keys


def sampling_keys(files: Mapping[str, bytes]) -> dict[str, Value]:
    """general.sampling.*: how the model's makers sample from it. Nothing when they do not sample."""
    defaults: Json = parse_json(files, "generation_config.json")
    if defaults.get("do_sample") is False:
        return {}
    keys: dict[str, Value] = {}
    for name, (key, whole) in _SAMPLING.items():
        value = defaults.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e6:
            continue
        keys[key] = int(value) if whole else float(value)
    return keys
