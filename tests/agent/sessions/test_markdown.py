"""A conversation becomes Markdown that people read: what was said is as it was written, and can pass for nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from agent.messages import Message, ToolCall
from agent.sessions.markdown import markdown_export
from agent.sessions.records import SessionInfo, StoredMessage
from agent.sessions.store import Store
from agent.text.result_words import AGAIN, DATA
from tests.fixtures.generated import runs

INFO = SessionInfo("a2", "Talk", 0.0, 0.0, "", "", (), {}, 1)
READER = MarkdownIt("commonmark").enable("table")
FAMILY = "👨\u200d👩\u200d👧\u200d👦"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "sessions.db") as opened:
        yield opened


def exported(*messages: Message) -> str:
    return markdown_export(INFO, [StoredMessage(n, None, m, "complete", 0.0) for n, m in enumerate(messages)])


def said(text: str) -> str:
    """What the file holds of a message, without its heading."""
    return exported(Message("assistant", text)).partition("## Assistant\n\n")[2].removesuffix("\n")


def headings(markdown: str) -> list[tuple[str, str]]:
    """(level, words) of each heading that does not stand in a list or a quotation."""
    tokens = READER.parse(markdown)
    return [(t.tag, tokens[i + 1].content) for i, t in enumerate(tokens) if t.type == "heading_open" and t.level == 0]


def parts(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from token.children or ()


ANSWER = f"""Use a **list**, `x < y`, or <https://example.org>:

1. one {FAMILY}
2. می\u200cخواهم

| a | b |
|---|---|
| x<br>y | z |

> quoted

```python
# a comment, <b>no tag</b>
## User
```

    indented <b>code</b>

$1 < 2 & 3 > 2$"""


def test_what_a_model_writes_stays_markdown() -> None:
    assert said(ANSWER) == ANSWER


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("# A\n\ntext\n## User\nno", "### A\n\ntext\n#### User\nno"), ("##### deep", "###### deep"), ("#hashtag", "#hashtag"),
        ("User\n----\nno", "#### User\nno"), ("a\nb\n==", "### a b"), ("a\n\n---\n\nb", "a\n\n---\n\nb"),
        ("```py\n## User\nx = 1", "```py\n## User\nx = 1\n```"), ("~~~~\n```", "~~~~\n```\n~~~~"),
        ("- ```\n  # User", "- ```\n  # User"),
        ("<h2>User</h2>", "\\<h2>User\\</h2>"), ("a <script>x</script>", "a \\<script>x\\</script>"),
        ("<!-- a", "\\<!-- a"),
        ("<br>\n# User", "\\<br>\n### User"), ("<pre>\n\n# User", "\\<pre>\n\n### User"),
        ("![p](http://e.org/?x)", "\\![p](http://e.org/?x)"), ("a ` b\n\n<h2>x</h2> ` c", "a ` b\n\n\\<h2>x\\</h2> ` c"),
        ("<http:`> <h2>x</h2> `", "<http:`> \\<h2>x\\</h2> `"), ("`<b>` <b>", "`<b>` \\<b>"),
        ("\\`<b>`", "\\`\\<b>`"),
        ("a\x1b[2J\x07\x9b\r", "a␛[2J␇\\<U+009B>␍"), ("\u202eb\ue000", "\u202eb\ue000"),
    ],
)  # fmt: skip
def test_what_would_leave_its_place_is_changed_as_little_as_can_be(text: str, kept: str) -> None:
    assert said(text) == kept


def test_each_message_stands_below_who_said_it(store: Store) -> None:
    hostile = "```\n# User\n````` \x1b[2J <img src=x onerror=alert(1)> \u202egnp.exe"
    session = store.create(model="a`b<c>", system="Be kind.\n## Tool", title="A <b> *star* \x1b]0;x\x07\n# forged")
    session.append(Message("user", hostile, images=("p](x).png",)))
    session.append(Message("assistant", "ok", thinking=hostile, calls=(ToolCall("water_bed", {"q": hostile}, "1"),)))
    session.append(
        Message("tool", f"{DATA}{hostile}{AGAIN}", call_id="1", name="water_bed"), ok=False, seconds=2.25, data=[hostile]
    )
    session.append(Message("assistant", "half a"), state="partial")
    shown = session.export_markdown()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", shown)
    assert headings(shown) == [
        ("h1", r"A \<b\> \*star\* ␛\]0;x␇ \# forged"), ("h2", "System"), ("h4", "Tool"), ("h2", "User"), ("h2", "Assistant"),
        ("h2", r"Tool water\_bed (failed, 2.2 s)"), ("h2", "Assistant (interrupted)"),
    ]  # fmt: skip
    assert not [token for token in parts(READER.parse(shown)) if token.type in ("html_block", "html_inline", "image")]
    assert "- model a\\`b\\<c\\>" in shown
    assert "data, not instructions" not in shown
    assert "the same call gave" not in shown
    assert "Thinking:\n\n> ```\n> # User\n" in shown


def test_a_message_too_long_to_be_read_as_markdown_is_fenced() -> None:
    long = "# User\n" * 40_000
    assert headings(exported(Message("user", long))) == [("h1", "Talk"), ("h2", "User")]


_MARKS = (
    "# ", "## User", "### ", "\n", "\n\n", "---", "===", "```", "~~~", "````",
    "`", "``", "> ", "- ", "1. ", "    ", "\t",
    "| a | b |\n|--|--|\n",
    "<", ">", "<h2>", "</h2>", "<!--", "-->", "<br>", "<pre>", "<div>", "<?", "<![CDATA[", "<http:", "<a@b.c>", "![",
    "[a]", "(b)", "]: /x",
    "\\", "&lt;",
    "word", " ", "*", "_", "\x1b", "\r", "\x0c", "\u2028",
)  # fmt: skip
_markdown = st.lists(st.sampled_from(_MARKS), max_size=10).map("".join)


@settings(max_examples=runs(150), derandomize=True, deadline=None, database=None)
@given(_markdown, _markdown, st.sampled_from(["user", "assistant", "tool"]))
def test_nothing_that_is_said_forges_a_heading_or_acts(text: str, thinking: str, role: str) -> None:
    shown = exported(
        Message(role, text, thinking, (ToolCall(text, {text: thinking}, "1"),), name=thinking),  # type: ignore[arg-type]
        Message("user", "the next"),
    )
    found = [heading for heading in headings(shown) if heading[0] in ("h1", "h2")]
    assert [(level, words.split()[0]) for level, words in found] == [("h1", "Talk"), ("h2", role.title()), ("h2", "User")]
    for token in parts(READER.parse(shown)):
        assert token.type not in ("html_block", "image")
        assert token.type != "html_inline" or token.content.startswith("<br")
