"""Stories of a conversation that becomes a file: to read, to keep, to show."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import OutputError
from agent.messages import Message, ToolCall
from agent.sessions.records import State, StoredMessage
from agent.sessions.store import Store
from agent.text import display
from tests.fixtures.generated import runs
from tui.export import svg
from tui.export.files import export, message_markdown
from tui.export.svg import session_svg


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "sessions.db") as opened:
        yield opened


def stored(message: Message, *, state: State = "complete", ok: bool | None = None, seconds: float | None = None) -> StoredMessage:
    return StoredMessage(1, None, message, state, 0.0, ok=ok, seconds=seconds)


def picture(*messages: StoredMessage, title: str = "Title", width: int = 100) -> str:
    """The text of the picture, line by line, after it was read as XML."""
    root = ET.fromstring(session_svg(title, messages, width=width))
    rows: dict[float, str] = {}
    for node in root.iter("{http://www.w3.org/2000/svg}text"):
        rows[float(node.attrib["y"])] = rows.get(float(node.attrib["y"]), "") + (node.text or "")
    return "\n".join(text.replace("\u00a0", " ").rstrip() for _, text in sorted(rows.items()))


def test_a_conversation_becomes_a_file_of_each_kind(store: Store, tmp_path: Path) -> None:
    with store.create(title="Why is the sky: blue?") as session:
        session.append(Message("user", "Why?"))
        session.append(Message("assistant", "Because **so**."))
        paths = [export(session, kind, tmp_path) for kind in ("md", "json", "svg")]
        assert [path.name for path in paths] == [f"why-is-the-sky-blue.{kind}" for kind in ("md", "json", "svg")]
        assert paths[0].read_text() == session.export_markdown()
        assert "Because" in paths[2].read_text()
    again = store.import_json(json.loads(paths[1].read_text()))
    assert [one.message.text for one in again.messages()] == ["Why?", "Because **so**."]


def test_nothing_is_overwritten(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine.md").write_text("precious")
    (tmp_path / "mine-2.md").symlink_to(tmp_path / "elsewhere")
    with store.create(title="Mine") as session:
        assert export(session, "md", tmp_path) == tmp_path / "mine-3.md"
        assert export(session, "md", tmp_path) == tmp_path / "mine-4.md"
    assert (tmp_path / "mine.md").read_text() == "precious"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("../../etc/passwd", "etc-passwd.md"), ("~/.bashrc; rm -rf $HOME", "bashrc-rm-rf-home.md"),
        ("空はなぜ青い", "空はなぜ青い.md"), ("CON\x00\x1b[2J\n-rf", "con-2j-rf.md"), ("é" * 200, "é" * 40 + ".md"),
    ],
)  # fmt: skip
def test_a_title_is_no_path(store: Store, tmp_path: Path, title: str, name: str) -> None:
    with store.create(title=title) as session:
        assert export(session, "md", tmp_path) == tmp_path / name


@given(st.text(max_size=300))
def test_every_title_is_one_safe_name(title: str) -> None:
    from tui.export.files import _slug

    name = _slug(title)
    assert len(name.encode()) <= 80
    assert not re.search(r"[/\\.\s\x00-\x1f~$*?'\"-]{2}|[/.\s\x00-\x1f]|^-", name)


def test_a_title_without_letters_gives_the_id(store: Store, tmp_path: Path) -> None:
    with store.create(title="?!") as session:
        assert export(session, "json", tmp_path).name == f"session-{session.id}.json"


def test_where_nothing_can_be_written_nothing_stays(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.create(title="t") as session:
        with pytest.raises(OutputError, match="there is no folder"):
            export(session, "md", tmp_path / "nowhere")
        with pytest.raises(OutputError, match=r"cannot write t\.md"):
            export(session, "md", tmp_path / "sessions.db")

        def full(*_: object) -> None:
            raise OutputError("the disk is full")

        monkeypatch.setattr("tui.export.files.atomic_write", full)
        before = sorted(tmp_path.iterdir())
        with pytest.raises(OutputError, match="the disk is full"):
            export(session, "md", tmp_path)
        assert sorted(tmp_path.iterdir()) == before


def test_the_picture_shows_who_said_what() -> None:
    text = picture(
        stored(Message("user", "How much\nmemory?")),
        stored(Message("assistant", "I **look**.", thinking="well now " * 30, calls=(ToolCall("run", {"command": "free"}),))),
        stored(Message("tool", "\n".join(f"row {n}" for n in range(40)), name="run"), ok=False, seconds=0.31),
        stored(Message("assistant", "```python\nx = 1\n```\nThree"), state="partial"),
    )
    lines = [line.strip() for line in text.splitlines()]
    assert "▌ How much" in lines
    assert "▌ memory?" in lines
    assert "I look." in lines
    assert next(line for line in lines if line.startswith("▸ thought: well now")).endswith("…")
    assert "⚙ run" in lines
    assert "command: free" in lines
    assert "✗ run  0.3 s" in lines
    assert "row 5" in lines
    assert "row 6" not in lines
    assert "… 34 more lines" in lines
    assert any(line.replace(" ", "") == "x=1" for line in lines)
    assert "(interrupted)" in lines


def test_the_picture_fetches_nothing_and_runs_nothing() -> None:
    hostile = "[a](javascript:alert(1)) ![p](http://evil/p.png) <script>alert(1)</script> <http://evil/> &#8238;&#x1b;]0;t&#7;"
    whole = session_svg(hostile, [stored(Message(role, hostile)) for role in ("user", "assistant", "tool", "system")])
    root = ET.fromstring(whole)
    tags = {node.tag.rpartition("}")[2] for node in root.iter()}
    assert tags <= {"svg", "title", "style", "rect", "circle", "text"}
    attributes = {name for node in root.iter() for name in node.attrib}
    assert attributes <= {*"xyr", "viewBox", "width", "height", "class", "cx", "cy", "rx", "fill", "textLength", "text-anchor"}
    style = next(node.text or "" for node in root.iter() if node.tag.endswith("style"))
    assert "url" not in style
    assert "@" not in style
    assert "\u202e" not in whole
    assert "\x1b" not in whole


_words = st.text(alphabet=st.characters(), max_size=60)
_marks = ["\n", "\n\n", "```", "| a | b |\n|--|--|\n", "> " * 30, "- " * 30, "**", "<b>", "]]>", "&#0;", "&lt;", "[a](b)"]
_markdown = st.lists(st.one_of(_words, st.sampled_from(_marks)), max_size=12).map("".join)


@given(_markdown, _words, st.sampled_from(["user", "assistant", "tool", "system"]), st.integers(20, 120))
@settings(max_examples=runs(60), deadline=None)
def test_the_picture_is_xml_whatever_was_said(text: str, name: str, role: str, width: int) -> None:
    calls = (ToolCall(name, {name: text, "n": [1, None]}),)
    message = Message(role, text, name, calls, "", name, (name,))  # type: ignore[arg-type]
    shown = session_svg(name, [stored(message)], width=width)
    ET.fromstring(shown)
    assert all(display(line) == line for line in shown.replace("\u00a0", " ").splitlines())


def test_wide_characters_have_their_room() -> None:
    root = ET.fromstring(session_svg("", [stored(Message("user", "漢字"))]))
    node = next(node for node in root.iter() if node.text == "漢字")
    assert float(node.attrib["textLength"]) == pytest.approx(4 * 9.6)


def test_a_long_conversation_says_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [stored(Message("user", f"number {n}")) for n in range(500)]
    text = picture(*many)
    assert text.splitlines()[1].startswith("… 100 earlier messages are left out")
    assert "number 99\n" not in text
    assert "▌ number 499" in text
    monkeypatch.setattr(svg, "LINES", 50)
    lines = picture(*many[:100]).splitlines()
    assert len(lines) <= 50 + 1  # and the title
    assert re.search(r"… the rest of this message and \d+ more are left out", lines[-1])


def test_one_endless_message_ends() -> None:
    text = picture(stored(Message("assistant", "word " * 1_000_000)))
    assert "… 4,970,000 more characters" in text


def test_markdown_that_cannot_be_laid_out_is_shown_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("rich.markdown.Markdown.__rich_console__", broken)
    assert "**still here**" in picture(stored(Message("assistant", "**still here**")))


def test_a_copied_message_is_what_was_said() -> None:
    assert message_markdown(stored(Message("assistant", "# A\n\n* b\n", thinking="hm"))) == "# A\n\n* b\n"
    assert message_markdown(stored(Message("assistant", "", thinking="only thought"))) == "only thought"
    assert message_markdown(stored(Message("user", "می‌خواهم"))) == "می‌خواهم"  # its joiner is part of the word
    assert message_markdown(stored(Message("tool", "a\x1b[201~; rm\x9b\tb\r"))) == "a␛[201~; rm<U+009B>\tb␍"
    call = ToolCall("run", {"command": "echo ```` x"})
    copied = message_markdown(stored(Message("assistant", "Look:", calls=(call,))))
    assert copied == 'Look:\n\nrun\n\n`````json\n{\n  "command": "echo ```` x"\n}\n`````'
