"""What the tests of chat templates share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.templates.chat_template import ChatTemplate
from tests.fixtures.chat_templates import TEMPLATES


class _Opened(dict[str, ChatTemplate]):
    def __missing__(self, name: str) -> ChatTemplate:
        self[name] = ChatTemplate(TEMPLATES[name][0], bos="<s>", eos="</s>")
        return self[name]


@pytest.fixture(scope="session")
def templates() -> Iterator[dict[str, ChatTemplate]]:
    """Our own templates by name, each in its process, which begins when it is first asked for."""
    opened = _Opened()
    yield opened
    for template in opened.values():
        template.close()
