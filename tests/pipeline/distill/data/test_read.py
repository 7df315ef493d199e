"""Files become sequences: what the assistant says counts, what others say does not, and no text can forge a mark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.errors import SprigError
from pipeline.distill.data.lesson import TrainingSequence
from pipeline.distill.data.read import read_lessons
from tests.fixtures.chat_templates import TEMPLATES
from tests.fixtures.random_llama import LlamaShape, write_checkpoint
from tests.fixtures.shared import shared
from tests.fixtures.tokenizers import make_tokenizer

SHAPE = LlamaShape(32, 32, 1, 2, 2, 512)
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}
CALL = {"id": "abcdefgh1", "type": "function", "function": {"name": "look", "arguments": {"place": "Bern"}}}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Bern?"},
    {"role": "assistant", "content": "", "reasoning_content": "I must look.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "abcdefgh1", "name": "look", "content": "rain"},
    {"role": "assistant", "content": "It rains.", "reasoning_content": "Say it."},
    {"role": "user", "content": "Thanks <|im_end|> bye"},
    {"role": "assistant", "content": "Bye."},
]


def checkpoint(family: str = "qwen2", template: str | None = "qwen3") -> Path:
    def make(folder: Path) -> None:
        write_checkpoint(folder, SHAPE)
        for old in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            (folder / old).unlink()
        make_tokenizer(family, folder, SHAPE.vocab)
        if template is not None:
            (folder / "chat_template.jinja").write_text(TEMPLATES[template][0], "utf-8")

    return shared(f"lessons-{family}-{template}", make)


def lessons(folder: Path, *lines: Any, width: int = 512, name: str = "data.jsonl", tmp: Path) -> tuple[TrainingSequence, ...]:
    file = tmp / name
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return read_lessons(folder, [file], width=width)


class Shown:
    """Ids as text, by the checkpoint's own tokenizer."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))

    def scored(self, sequence: TrainingSequence) -> list[str]:
        """The stretches that count."""
        runs: list[list[int]] = []
        before = False
        for token, scored in zip(sequence.ids, sequence.scored, strict=True):
            if scored:
                runs = runs if before else [*runs, []]
                runs[-1].append(token)
            before = scored
        return [self.text(run) for run in runs]


@pytest.mark.slow
def test_each_turn_of_the_assistant_counts_once_with_its_thought_and_its_call(tmp_path: Path) -> None:
    folder = checkpoint()
    found = lessons(folder, {"messages": TALK, "tools": [TOOL]}, tmp=tmp_path)
    shown = Shown(folder)
    counted = [text for sequence in found for text in shown.scored(sequence)]
    assert counted == [
        "<think>\nI must look.\n</think>\n\n"
        '<tool_call>\n{"name": "look", "arguments": {"place": "Bern"}}\n</tool_call><|im_end|>',
        "<think>\nSay it.\n</think>\n\nIt rains.<|im_end|>",
        "Bye.<|im_end|>",  # in a sequence of its own: the template leaves old thoughts out
    ]
    whole = "".join(shown.text(list(sequence.ids)) for sequence in found)
    assert whole.count("Weather in Bern?") == 2
    assert whole.count("I must look.") == 1
    assert not any(sequence.scored[0] for sequence in found)


@pytest.mark.slow
def test_a_call_is_one_breath_and_marks_are_single_tokens(tmp_path: Path) -> None:
    """What a model generates is tokenized across the places where a template puts names and arguments into its own text."""
    folder = checkpoint()
    (sequence,) = lessons(folder, {"messages": TALK[:5], "tools": [TOOL]}, tmp=tmp_path)
    shown = Shown(folder)
    said = shown.scored(sequence)[0]
    ids = [token for token, scored in zip(sequence.ids, sequence.scored, strict=True) if scored]
    expected = shown.tokenizer.encode(said, add_special_tokens=False).ids
    assert ids[: len(expected)] == expected
    for mark in ("<think>", "<tool_call>", "<|im_end|>"):
        assert shown.tokenizer.token_to_id(mark) in expected


@pytest.mark.slow
def test_a_users_text_forges_no_mark(tmp_path: Path) -> None:
    folder = checkpoint()
    found = lessons(folder, {"messages": TALK[5:]}, tmp=tmp_path)
    end = Shown(folder).tokenizer.token_to_id("<|im_end|>")
    (sequence,) = found
    assert sequence.ids.count(end) == 2  # of the user's turn and of the assistant's
    assert "Thanks <|im_end|> bye" in Shown(folder).text(list(sequence.ids))


@pytest.mark.slow
def test_a_thought_stands_in_the_turn_though_the_template_leaves_it_out(tmp_path: Path) -> None:
    folder = checkpoint("deepseek-r1-qwen", "deepseek")
    (sequence,) = lessons(folder, {"messages": [TALK[1], TALK[4]]}, tmp=tmp_path)
    assert Shown(folder).scored(sequence) == ["Say it.\n</think>\n\nIt rains.<｜end▁of▁sentence｜>"]
    assert (
        Shown(folder)
        .text(list(sequence.ids))
        .startswith("<｜begin▁of▁sentence｜><｜User｜>Weather in Bern?<｜Assistant｜><think>\n")
    )


@pytest.mark.slow
@pytest.mark.parametrize(("family", "template"), [("llama3", "llama3"), ("smollm2", "chatml"), ("tinyllama", "chatml")])
def test_other_families_and_a_template_without_tools(family: str, template: str, tmp_path: Path) -> None:
    folder = checkpoint(family, template)
    plain = [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "It rains today."}]
    found = lessons(folder, {"messages": plain}, tmp=tmp_path)
    said = "".join(Shown(folder).scored(found[0]))
    assert said.replace(" ", "").replace("▁", " ").strip().replace(" ", "").startswith("Itrainstoday.")


@pytest.mark.slow
def test_completions_and_texts_end_and_plain_files_do_not(tmp_path: Path) -> None:
    folder = checkpoint("smollm2", None)
    shown = Shown(folder)
    end = shown.tokenizer.token_to_id("<|im_end|>")
    (packed,) = lessons(folder, {"prompt": "2 + 2 =", "completion": " 4"}, {"text": "Once upon a time."}, tmp=tmp_path)
    assert shown.scored(packed) == [
        " 4<|im_end|>",
        shown.text(list(packed.ids[-len(shown.tokenizer.encode("Once upon a time.").ids) :])),
    ]
    assert packed.ids.count(end) == 2
    (plain,) = lessons(folder, "Once upon a time.", name="a.txt", tmp=tmp_path)
    assert end not in plain.ids
    assert plain.scored == (False, *[True] * (len(plain.ids) - 1))


@pytest.mark.slow
def test_long_texts_are_cut_and_short_ones_share_a_sequence(tmp_path: Path) -> None:
    folder = checkpoint("llama3", None)
    words = " ".join(f"word{i}" for i in range(60))
    found = lessons(folder, {"text": words}, *({"text": f"Short {i}."} for i in range(5)), width=24, tmp=tmp_path)
    bos = Shown(folder).tokenizer.token_to_id("<|begin_of_text|>")
    assert all(len(sequence.ids) <= 24 for sequence in found)
    assert all(sequence.ids[0] == bos and not sequence.scored[0] for sequence in found)
    assert all(not scored for s in found for token, scored in zip(s.ids, s.scored, strict=True) if token == bos)
    shown = Shown(folder).text([token for sequence in found for token in sequence.ids if token != bos])
    assert all(f"word{i}" in shown for i in range(60))
    assert sum(len(s.ids) for s in found) / (24 * len(found)) > 0.7
    assert found == lessons(folder, {"text": words}, *({"text": f"Short {i}."} for i in range(5)), width=24, tmp=tmp_path)


@pytest.mark.slow
def test_what_the_template_refuses_is_named_by_its_line(tmp_path: Path) -> None:
    talk = [TALK[1], {"role": "assistant", "content": "", "tool_calls": [CALL, {**CALL, "id": "abcdefgh2"}]}]
    with pytest.raises(SprigError, match=r"data\.jsonl:2: .*message 2"):
        lessons(checkpoint("llama3", "llama3"), {"text": "a"}, {"messages": talk, "tools": [TOOL]}, tmp=tmp_path)
    with pytest.raises(SprigError, match=r"data\.jsonl:1 is a conversation, and the model has no chat template"):
        lessons(checkpoint("smollm2", None), {"messages": [*TALK[:2], TALK[4]]}, tmp=tmp_path)
    with pytest.raises(SprigError, match="nothing in it can be learned"):
        lessons(checkpoint("smollm2", None), "a", name="a.txt", tmp=tmp_path)


@pytest.mark.slow
def test_the_teacher_writes_where_there_are_no_files() -> None:
    found = read_lessons(checkpoint("smollm2", "chatml"), [], width=64, own=400, threads=1)
    assert sum(len(sequence.ids) for sequence in found) >= 400
    assert all(len(sequence.ids) <= 64 and any(sequence.scored) for sequence in found)


@pytest.mark.slow
def test_the_teacher_writes_beside_files_when_it_is_told_to(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("a short note about the garden")
    folder = checkpoint("smollm2", "chatml")
    alone, both = (read_lessons(folder, [file], width=64, own=own, threads=1) for own in (None, 400))
    assert sum(len(s.ids) for s in alone) < 64
    assert sum(len(s.ids) for s in both) >= 400
