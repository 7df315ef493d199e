"""Nothing that a model, a tool or a file says can write to the terminal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.widget import Widget
from textual.widgets import Static

from tests.fixtures.terminal import assert_safe, hostile, leaks, output_of, towers
from tui.widgets.answer_text import AnswerText


def streamed(text: str) -> Widget:
    """A text that arrived letter by letter and has not ended."""
    widget = AnswerText(streaming=True)
    for letter in text:
        widget.append(letter)
    return widget


def entities(text: str) -> str:
    return "".join(c if c.isalnum() or c == "\n" else f"&#{ord(c)};" for c in text)


ANSWERS: dict[str, Callable[[str], Widget]] = {
    "a paragraph": AnswerText,
    "while it streams": streamed,
    "as entities": lambda text: AnswerText(entities(text)),
    "as hexadecimal entities": lambda text: AnswerText("".join(f"&#x{ord(c):x};" for c in text)),
    "code in a line": lambda text: AnswerText(f"see `{text}` here"),
    "a code block": lambda text: AnswerText(f"```python\n{text}\n```"),
    "the language of a code block": lambda text: AnswerText(f"```{text}\nx = 1\n```"),
    "indented code": lambda text: AnswerText(f"    {text}"),
    "a heading": lambda text: AnswerText(f"# {text}"),
    "a list in a quote": lambda text: AnswerText(f"> - {text}\n>   1. {text}"),
    "a table": lambda text: AnswerText(f"| a{text} | b |\n|---|---|\n| {text} | **{text}** |"),
    "a link": lambda text: AnswerText(f"[{text}](http://x.y/{text}) [a](<{text}> '{text}') <http://{text}>"),
    "a link as entities": lambda text: AnswerText(f"[{entities(text)}](http://x.y/{entities(text)})"),
    "an image": lambda text: AnswerText(f"![{text}]({text}) ![{entities(text)}](<{text}>)"),
    "a definition": lambda text: AnswerText(f"[{text}]: http://x.y/{text} '{text}'\n\n[{text}] [a][{text}]"),
    "HTML": lambda text: AnswerText(f"<div title='{text}'>{text}</div><!-- {text} -->"),
    "task": lambda text: AnswerText(f"- [x] ~~{text}~~ *{text}*"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_cannot_write_to_the_terminal(name: str) -> None:
    await assert_safe({name: ANSWERS[name]})


def test_there_are_enough_hostile_texts() -> None:
    texts = hostile()
    assert len(texts) >= 300
    assert all(leaks(text.replace("\r", "\x1b")) or towers(text) or "\ufe0f" in text for text in texts)


@pytest.mark.parametrize("text", ["a\x1b]52;c;AA==\x07b", "a\x1b[2Jb", "a\x1b[5;8;31mb", "a\u202eb", "a\x9b2Jb"])
async def test_the_harness_sees_what_an_ordinary_widget_lets_through(text: str) -> None:
    """A test of the test: Textual's own Static passes these on."""
    assert leaks(await output_of([Static(text, markup=False)])) != []
