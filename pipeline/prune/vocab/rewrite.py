"""The tokenizer's files with fewer tokens and new ids. Only files that the checkpoint has are written."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.prune.vocab.lexicon import Lexicon
from pipeline.prune.vocab.model_file import cut_model
from pipeline.vocab.files import Json, parse_json, text_of
from pipeline.vocab.trial import walk


def rewritten(files: Mapping[str, bytes], lexicon: Lexicon, new: Mapping[int, int], carried: Json) -> dict[str, bytes]:
    """File name -> content, for every file that names tokens by id or lists them.

    Args:
        files: the checkpoint's small files.
        lexicon: all its tokens.
        new: old id -> new id of those that are kept, in the same order.
        carried: goes into tokenizer_config.json, which is made where there is none.

    Raises:
        UnsupportedError: tokenizer.model and tokenizer.json number their tokens differently.
    """
    ids = {text: new[number] for number, text in lexicon.texts.items() if number in new}
    gone = {text for number, text in lexicon.texts.items() if number not in new and number in lexicon.added}
    made: dict[str, bytes] = {}
    if "tokenizer.json" in files and lexicon.spec is not None:
        made["tokenizer.json"] = _json(_tokenizer_json(lexicon.spec, ids, new))
    if "tokenizer.model" in files:
        made["tokenizer.model"] = cut_model(files["tokenizer.model"], lexicon.texts, new)
    for name, change in _OTHERS.items():
        if name in files:
            made[name] = change(files, name, ids)
    config = parse_json(files, "tokenizer_config.json")
    made["tokenizer_config.json"] = _json({**_tokenizer_config(config, ids, gone), **carried})
    if "special_tokens_map.json" in files:
        made["special_tokens_map.json"] = _json(_without(parse_json(files, "special_tokens_map.json"), gone))
    return made


def _json(value: Json) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode("utf-8", "surrogatepass")


def _tokenizer_json(spec: Json, ids: Mapping[str, int], new: Mapping[int, int]) -> Json:
    model = dict(spec["model"])
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = _table(vocab, ids)
    else:
        model["vocab"] = [entry for number, entry in enumerate(vocab) if number in new]
    if isinstance(model.get("unk_id"), int):
        model["unk_id"] = new[model["unk_id"]]
    if isinstance(model.get("merges"), list):
        model["merges"] = [merge for merge in model["merges"] if _stays(merge, model["vocab"])]
    added = [{**entry, "id": ids[entry["content"]]} for entry in spec.get("added_tokens") or [] if entry["content"] in ids]
    whole = {**copy.deepcopy({k: v for k, v in spec.items() if k not in ("model", "added_tokens")})}
    for step in walk(whole.get("post_processor")):
        special = step.get("special_tokens")
        for entry in special.values() if isinstance(special, dict) else ():
            entry["ids"] = [new[number] for number in entry["ids"]]
        for name in ("sep", "cls"):
            if isinstance(step.get(name), list):
                step[name] = [step[name][0], new[step[name][1]]]
    if isinstance(whole.get("padding"), dict) and isinstance(whole["padding"].get("pad_id"), int):
        whole["padding"]["pad_id"] = new.get(whole["padding"]["pad_id"], 0)
    return {**whole, "added_tokens": added, "model": model}


def _table(vocab: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(((text, ids[text]) for text in vocab if text in ids), key=lambda pair: pair[1]))


def _stays(merge: Any, vocab: Mapping[str, int]) -> bool:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left in vocab and right in vocab and left + right in vocab


def _vocab_json(files: Mapping[str, bytes], name: str, ids: Mapping[str, int]) -> bytes:
    return _json(_table(parse_json(files, name), ids))


def _vocab_txt(files: Mapping[str, bytes], name: str, ids: Mapping[str, int]) -> bytes:
    return b"".join(line + b"\n" for line in _lines(files, name) if line.rstrip(b"\r").decode("utf-8", "replace") in ids)


def _merges_txt(files: Mapping[str, bytes], name: str, ids: Mapping[str, int]) -> bytes:
    kept = []
    for line in _lines(files, name):
        pair = line.rstrip(b"\r").decode("utf-8", "replace").split(" ")
        if line.startswith(b"#version") or (len(pair) == 2 and _stays(pair, ids)):
            kept.append(line + b"\n")
    return b"".join(kept)


def _lines(files: Mapping[str, bytes], name: str) -> list[bytes]:
    return [line for line in files[name].split(b"\n") if line]


_OTHERS: dict[str, Callable[[Mapping[str, bytes], str, Mapping[str, int]], bytes]] = {
    "vocab.json": _vocab_json,
    "added_tokens.json": _vocab_json,
    "vocab.txt": _vocab_txt,
    "merges.txt": _merges_txt,
}


def _tokenizer_config(config: Json, ids: Mapping[str, int], gone: set[str]) -> Json:
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        texts = {key: text_of(entry) for key, entry in decoder.items()}
        moved = {str(ids[text]): decoder[key] for key, text in texts.items() if text is not None and text in ids}
        config = {**config, "added_tokens_decoder": moved}
    return _without(config, gone)


def _without(config: Json, gone: set[str]) -> Json:
    """The same without tokens that are gone in its lists of special tokens."""
    changed = dict(config)
    for name in ("additional_special_tokens", "extra_special_tokens"):
        if isinstance(listed := config.get(name), list):
            changed[name] = [entry for entry in listed if text_of(entry) not in gone]
    return changed
