"""What the tests of chat templates share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.templates.chat_template import ChatTemplate
from tests.fixtures.chat_templates import TEMPLATES


@pytest.fixture(scope="module")
def templates() -> Iterator[dict[str, ChatTemplate]]:
    """Our own templates, each open in its process."""
    opened = {name: ChatTemplate(source, bos="<s>", eos="</s>") for name, (source, _) in TEMPLATES.items()}
    yield opened
    for template in opened.values():
        template.close()
