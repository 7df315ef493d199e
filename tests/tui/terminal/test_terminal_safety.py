"""Nothing that a model, a tool or a file says can write to the terminal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.geometry import Size
from textual.widget import Widget
from textual.widgets import Static

from tests.fixtures.terminal import hostile, leaks, output_of, towers
from tui.widgets.messages.answer_text import AnswerText

pytestmark = pytest.mark.slow


WIDTH = 100


def rows(answer: AnswerText) -> int:
    size = Size(WIDTH, 5000)
    return answer.get_content_height(size, size, WIDTH)


def entities(text: str) -> str:
    return "".join(c if c.isalnum() or c == "\n" else f"&#{ord(c)};" for c in text)


PLACES: dict[str, Callable[[str], str]] = {
    "a paragraph": lambda text: text,
    "entities": entities,
    "hexadecimal entities": lambda text: "".join(f"&#x{ord(c):x};" for c in text),
    "code": lambda text: f"see `{text}` here\n\n    {text}\n\n```python\n{text}\n```",
    "the language of a code block": lambda text: f"```{text}\nx = 1\n```",
    "a heading in a list in a quote": lambda text: f"> - # {text}\n>   1. {text}\n> - [x] ~~{text}~~ *{text}*",
    "a table": lambda text: f"| a{text} | b |\n|---|---|\n| {text} | **{text}** |",
    "a link": lambda text: f"[{text}](http://x.y/{text}) [a](<{text}> '{text}') <http://{text}> http://{text}",
    "a link in entities": lambda text: f"[{entities(text)}](http://x.y/{entities(text)})",
    "an image": lambda text: f"![{text}]({text}) ![{entities(text)}](<{text}>)",
    "a definition": lambda text: f"[{text}]: http://x.y/{text} '{text}'\n\n[{text}] [a][{text}]",
    "HTML": lambda text: f"<div title='{text}'>{text}</div><!-- {text} -->",
}


@pytest.mark.parametrize("place", PLACES)
async def test_an_answer_cannot_write_to_the_terminal(place: str) -> None:
    texts = [PLACES[place](text) for text in hostile()]
    answers = [AnswerText("\n\n".join(texts[at : at + 200])) for at in range(0, len(texts), 200)]
    output = await output_of(answers, size=(WIDTH, sum(map(rows, answers)) + 1))
    assert leaks(output) == []
    assert towers(output) == []


async def test_an_answer_that_streams_in_cannot_write_to_the_terminal() -> None:
    def streamed(text: str) -> Widget:
        widget = AnswerText(streaming=True)
        for letter in text:
            widget.append(letter)
        return widget

    output = await output_of(map(streamed, hostile()[::4]))
    assert leaks(output) == []
    assert towers(output) == []


def test_there_are_enough_hostile_texts() -> None:
    texts = hostile()
    assert len(texts) >= 300
    assert all(leaks(text.replace("\r", "\x1b")) or towers(text) or "\ufe0f" in text for text in texts)


@pytest.mark.parametrize("text", ["a\x1b]52;c;AA==\x07b", "a\x1b[2Jb", "a\x1b[5;8;31mb", "a\u202eb", "a\x9b2Jb"])
async def test_the_harness_sees_what_an_ordinary_widget_lets_through(text: str) -> None:
    """A test of the test: Textual's own Static passes these on."""
    assert leaks(await output_of([Static(text, markup=False)])) != []
