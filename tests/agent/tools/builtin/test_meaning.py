"""search_meaning: passages of files and of earlier conversations, below the root and never beyond it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from agent.agent import Agent
from agent.embedding.vectors import VectorStore
from agent.messages import Message
from agent.sessions.store import Store
from agent.tools.builtin.catalogue import builtin
from agent.tools.builtin.meaning import MAX_FILE
from agent.tools.define import Tool
from agent.tools.result import ToolContext
from tests.fixtures.fake_engine import FakeEngine
from tests.fixtures.tiny import llama

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("m") / "mean.gguf", llama__pooling_type=1, llama__context_length=600)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "garden.md").write_text("beetroots are in bed three\n\nkale is in bed one\n")
    (folder / "heat.txt").write_text("the bath is warm\x1b[2J\n")
    (folder / "picture.bin").write_bytes(b"\0\1\2")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "large.txt").write_text("word " * (MAX_FILE // 5 + 1))
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("the bath is warm")
    (tmp_path / "outside.txt").write_text("the bath is warm")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    return folder


@pytest.fixture
def tool(root: Path, tmp_path: Path, model: Path) -> Tool:
    return builtin(["search_meaning"], root=root, home=tmp_path / "home", embedding_model=model)[0]


def test_it_finds_a_passage_and_says_where(tool: Tool) -> None:
    found = tool.invoke({"query": "the bath is warm"})
    assert found.ok
    assert found.text.startswith("heat.txt:1 (")
    assert {hit["path"] for hit in found.data} == {"heat.txt", "notes/garden.md"}, "nothing but texts below the root"
    assert "\x1b" not in found.text


@pytest.mark.slow
def test_a_file_that_is_changed_or_gone_is_found_as_it_is_now(tool: Tool, root: Path) -> None:
    tool.invoke({"query": "x"})
    (root / "heat.txt").unlink()
    (root / "notes" / "garden.md").write_text("the bath is cold now\n")
    assert [hit["path"] for hit in tool.invoke({"query": "the bath is warm"}).data] == ["notes/garden.md"]


@pytest.mark.slow
def test_it_finds_what_was_said_in_other_conversations(tool: Tool, tmp_path: Path) -> None:
    with Store(tmp_path / "home" / "sessions.db") as store:
        other, own = store.create(), store.create()
        other.append(Message("user", "the bath is warm"))
        own.append(Message("user", "what did i say of the bath"))
        asked = {"query": "the bath is warm", "where": "conversations"}
        found = tool.invoke(asked, ToolContext(session=own.id))
        assert [hit["session"] for hit in found.data] == [other.id]
        assert "user (1.00)\nthe bath is warm" in found.text
        assert {hit["session"] for hit in tool.invoke(asked).data} == {other.id, own.id}


@pytest.mark.slow
def test_an_agent_gives_it_its_model_and_its_session(root: Path, model: Path, tmp_path: Path, kept_templates: None) -> None:
    from tests.fixtures.fake_engine import call_text

    engine = FakeEngine([call_text("search_meaning", {"query": "the bath is warm"}), "It is warm."])
    with Store(tmp_path / "s.db") as store:
        agent = Agent(engine, tools=["search_meaning"], root=root, embedding_model=model, session=store.create())
        result = agent.run("How is the bath?")
        agent.close()
    assert "heat.txt:1" in result.calls[0].text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"query": " "}, "the query is empty"), ({"query": "x", "where": "web"}, "where")],
)
def test_a_wrong_call_is_answered_in_one_line(tool: Tool, arguments: dict[str, str], said: str) -> None:
    result = tool.invoke(arguments)
    assert not result.ok
    assert said in result.text


def test_without_a_model_it_says_what_to_do(root: Path) -> None:
    result = builtin(["search_meaning"], root=root)[0].invoke({"query": "x"})
    assert not result.ok
    assert result.text == "no embedding model is named; the option embedding_model does it"


def test_a_cancelled_call_ends_at_once(tool: Tool) -> None:
    context = ToolContext(cancelled=threading.Event())
    context.cancelled.set()
    assert not tool.invoke({"query": "x"}, context).ok


@pytest.mark.slow
def test_what_does_not_get_done_in_time_is_said_and_goes_on_later(
    tool: Tool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import agent.tools.builtin.meaning as meaning

    monkeypatch.setattr(meaning, "_INDEX_SECONDS", 0.0)
    assert tool.invoke({"query": "x"}).text.endswith("[0 files were looked at in 0 s; the same search goes on with the rest]")
    monkeypatch.undo()
    assert tool.invoke({"query": "the bath is warm"}).text.startswith("heat.txt:1")
    with VectorStore(tmp_path / "home" / "cache" / "vectors.db") as vectors:
        assert vectors.path.exists()
