"""What single families need beside their pre-tokenizer: ends that no file names, and vocabularies in files of their own."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, pre_tokenizers

from agent.errors import SprigError, UnsupportedError
from pipeline.vocab.sentencepiece import parse_model
from pipeline.vocab.vocabulary import Vocabulary, load_vocabulary
from tests.fixtures.corpus import hard_strings
from tests.fixtures.llama_vocab import llama_vocab
from tests.fixtures.tokenizers import TEKKEN, make_tokenizer

ROWS = 540


def made(family: str, folder: Path) -> dict[str, bytes]:
    make_tokenizer(family, folder)
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def load(files: Mapping[str, bytes], **config: Any) -> Vocabulary:
    return load_vocabulary(files, ROWS, config)


def renamed(files: dict[str, bytes], **names: str) -> dict[str, bytes]:
    """The files with some tokens under other names."""
    for old, new in names.items():
        quoted = json.dumps(old).encode(), json.dumps(new, ensure_ascii=False).encode()
        files = {name: content.replace(*quoted) for name, content in files.items()}
    return files


def ends(vocabulary: Vocabulary) -> dict[str, str]:
    tokens: list[str] = vocabulary.keys["tokenizer.ggml.tokens"]  # type: ignore[assignment]
    keys = {role: vocabulary.keys.get(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos", "eot", "eom", "fim_sep")}
    return {role: tokens[number] for role, number in keys.items() if isinstance(number, int)}


def test_of_glms_two_first_tokens_none_is_added_because_its_template_writes_them(tmp_path: Path) -> None:
    vocabulary = load(made("glm4", tmp_path / "m"))
    assert ends(vocabulary) == {"bos": "[gMASK]", "eos": "<|endoftext|>", "eot": "<|user|>", "eom": "<|observation|>"}
    assert vocabulary.keys["tokenizer.ggml.add_bos_token"] is False
    assert any("chat templates write them" in note for note in vocabulary.notes)


def test_hunyuans_end_is_the_one_that_config_json_calls_eod(tmp_path: Path) -> None:
    files = made("smollm2", tmp_path / "m")
    number = load(files).encode("<|endoftext|>")[0]
    assert ends(load(files, eod_token_id=number))["eos"] == "<|endoftext|>"
    assert ends(load(files, eod_token_id=-1))["eos"] == "<|im_end|>"


def test_gemma_1_ends_a_turn_though_no_file_says_so(tmp_path: Path) -> None:
    files = made("gemma3", tmp_path / "m")
    del files["generation_config.json"]
    assert ends(load(files)) == {"bos": "<bos>", "eos": "<eos>", "eot": "<end_of_turn>"}
    files = {name: content.replace(b"<unused7>", b"<|file_separator|>") for name, content in files.items()}
    assert ends(load(files))["fim_sep"] == "<|file_separator|>", "where CodeGemma stops filling in"


def test_code_llama_ends_what_it_fills_in(tmp_path: Path) -> None:
    vocabulary = load(renamed(made("mistral-v0.3", tmp_path / "m"), **{"[/INST]": "▁<EOT>"}))
    assert ends(vocabulary)["eot"] == "▁<EOT>"
    with llama_vocab(vocabulary.keys, tmp_path / "v.gguf") as llama:
        assert llama.ends(vocabulary.keys["tokenizer.ggml.eot_token_id"])  # type: ignore[arg-type]


def test_gpt_oss_ends_at_a_return_and_at_a_call_but_not_at_the_end_of_a_message(tmp_path: Path) -> None:
    files = renamed(made("phi4-mini", tmp_path / "m"), **{"<|user|>": "<|return|>", "<|system|>": "<|call|>"})
    first = load(files).encode("<|endoftext|>")[0]  # then <|end|>, <|return|>, <|assistant|>, <|call|>
    files["generation_config.json"] = json.dumps({"eos_token_id": [first + 2, first, first + 4]}).encode()
    config = {**json.loads(files["tokenizer_config.json"]), "eos_token": "<|return|>"}
    vocabulary = load({**files, "tokenizer_config.json": json.dumps(config).encode()})
    assert ends(vocabulary) == {"eos": "<|return|>", "eot": "<|endoftext|>", "eom": "<|call|>"}
    with llama_vocab(vocabulary.keys, tmp_path / "v.gguf") as llama:
        assert [llama.ends(first + i) for i in range(5)] == [True, False, True, False, True]


def test_xlm_roberta_from_its_sentencepiece_model_alone(tmp_path: Path) -> None:
    files = made("xlm-roberta", tmp_path / "m")
    whole = load(files)
    alone = load({name: content for name, content in files.items() if name != "tokenizer.json"})
    assert alone.keys.keys() == whole.keys.keys()
    assert [k for k, value in whole.keys.items() if str(alone.keys[k]) != str(value)] == []
    assert [text for text in hard_strings()[::3] if alone.encode(text) != whole.encode(text)] == []
    with pytest.raises(UnsupportedError, match=r"only for XLM-RoBERTa, and this is for 'NllbTokenizer'"):
        load({
            "sentencepiece.bpe.model": files["sentencepiece.bpe.model"],
            "tokenizer_config.json": b'{"tokenizer_class": "NllbTokenizer"}',
        })  # fmt: skip


def test_a_sentencepiece_model_without_its_first_space(tmp_path: Path) -> None:
    """InternLM3 and others say so in tokenizer_config.json, which counts more than the model's own setting."""
    files = made("llama2-model-only", tmp_path / "m")
    config = json.loads(files["tokenizer_config.json"])
    bare = load({**files, "tokenizer_config.json": json.dumps({**config, "add_prefix_space": False}).encode()})
    assert bare.keys["tokenizer.ggml.add_space_prefix"] is False
    assert bare.encode(" the") == load(files).encode("the") != bare.encode("the")
    with llama_vocab(bare.keys, tmp_path / "v.gguf") as llama:
        assert [t for t in hard_strings()[::9] if llama.encode(t) != bare.encode(t)] == []


def test_roberta_from_its_two_files_has_its_frame(tmp_path: Path) -> None:
    files = made("roberta", tmp_path / "m")
    whole = load(files)
    spec = json.loads(files["tokenizer.json"])
    vocab = spec["model"]["vocab"] | {token["content"]: token["id"] for token in spec["added_tokens"]}
    pairs = [" ".join(pair) if isinstance(pair, list) else pair for pair in spec["model"]["merges"]]
    alone = load({
        "vocab.json": json.dumps(vocab).encode(), "merges.txt": "\n".join(["#version: 0.2", *pairs]).encode(),
        "tokenizer_config.json": b'{"tokenizer_class": "RobertaTokenizer"}',
    })  # fmt: skip
    same = ("tokens", "token_type", "merges", "bos_token_id", "eos_token_id", "add_bos_token", "add_eos_token", "add_sep_token")
    assert [k for k in same if alone.keys[f"tokenizer.ggml.{k}"] != whole.keys[f"tokenizer.ggml.{k}"]] == []
    assert [text for text in hard_strings()[::3] if alone.encode(text) != whole.encode(text)] == []


def by_rank(piece: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """tiktoken's rule: of all neighbours that make a token, those of the lowest rank merge first."""
    if piece in ranks:
        return [ranks[piece]]
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while True:
        pairs = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
        if not pairs:
            return [ranks[part] for part in parts]
        i = min(pairs)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def test_mistrals_own_file_gives_the_ids_of_its_ranks(tmp_path: Path) -> None:
    files = made("tekken-json", tmp_path / "m")
    vocabulary = load(files)
    assert vocabulary.keys["tokenizer.ggml.tokens"][:9] == [  # type: ignore[index]
        "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[TOOL_CALLS]", "<SPECIAL_7>", "<SPECIAL_8>",
    ]  # fmt: skip
    older = json.loads(files["tekken.json"])
    del older["special_tokens"]
    assert load({"tekken.json": json.dumps(older).encode()}).keys["tokenizer.ggml.tokens"][17:20] == [  # type: ignore[index]
        "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
    ]  # fmt: skip
    listed = json.loads(files["tekken.json"])["vocab"][: len(vocabulary.keys["tokenizer.ggml.tokens"])]  # type: ignore[arg-type]
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in listed[:-3]}
    split = pre_tokenizers.Split(Regex(TEKKEN), "isolated")
    texts = [t for t in hard_strings()[::3] if not any(mark in t for mark in ("<s>", "</s>", "<unk>", "INST", "TOOL"))]
    for text in texts:
        wanted = [20 + i for piece, _ in split.pre_tokenize_str(text) for i in by_rank(piece.encode(), ranks)]
        assert vocabulary.encode(text) == wanted, text
    assert vocabulary.encode("[INST]a</s>")[::2] == [3, 2]
    assert (vocabulary.keys["tokenizer.ggml.bos_token_id"], vocabulary.keys["tokenizer.ggml.add_bos_token"]) == (1, True)


@pytest.mark.parametrize(
    "change",
    [
        {"vocab": []}, {"vocab": 3}, {"config": None}, {"config": {"pattern": 7}}, {"vocab": [{"token_bytes": "?"}]},
        {"vocab": [{"rank": 1}]}, {"vocab": ["x"]}, {"vocab": [{"token_bytes": ""}]}, {"special_tokens": 5},
        {"vocab": [{"token_bytes": base64.b64encode(b"a" * 600).decode()}]}, {"special_tokens": [1, None, "x"]},
        {"config": {"pattern": "(", "default_num_special_tokens": 7}}, {"config": {"pattern": "a", "default_vocab_size": -1}},
    ],
)  # fmt: skip
def test_a_broken_file_of_mistrals_is_one_clear_line(change: dict[str, Any], tmp_path: Path) -> None:
    content = json.loads(made("tekken-json", tmp_path / "m")["tekken.json"])
    with pytest.raises(SprigError) as caught:
        load({"tekken.json": json.dumps({**content, **change}).encode()})
    assert "tekken.json" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_tokenizer_that_is_python_code_is_said_to_be(tmp_path: Path) -> None:
    config = {"auto_map": {"AutoTokenizer": ["tokenization_x.XTokenizer", None]}}
    with pytest.raises(UnsupportedError, match=r"is Python code of its own \(auto_map in tokenizer_config.json\); take a rev"):
        load({"tokenizer_config.json": json.dumps(config).encode()})


def test_internlm2s_piece_that_is_a_nul_is_replaced(tmp_path: Path) -> None:
    """The library refuses such a model, and llama.cpp would read the piece as an empty text."""
    files = made("llama2-model-only", tmp_path / "m")
    raw = files["tokenizer.model"]
    model = parse_model(raw)
    lost = max(i for i, piece in enumerate(model.pieces) if len(piece.text.encode()) == 1)
    letter = model.pieces[lost].text.encode()
    assert raw.count(b"\x0a\x01" + letter) == 1
    files["tokenizer.model"] = raw.replace(b"\x0a\x01" + letter, b"\x0a\x01\0")
    vocabulary = load(files)
    assert vocabulary.keys["tokenizer.ggml.tokens"][lost] == f"[PAD{lost}]"  # type: ignore[index]
    assert any("no text of their own" in note for note in vocabulary.notes)
    with llama_vocab(vocabulary.keys, tmp_path / "v.gguf") as llama:
        assert [t for t in hard_strings()[::9] if llama.encode(t) != vocabulary.encode(t)] == []
