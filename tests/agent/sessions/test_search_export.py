"""Sessions are searched, shown to people and taken to another store; nothing that was said in them can act on the way."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.messages import Message, ToolCall
from agent.sessions import database as session_schema
from agent.sessions import search as session_search
from agent.sessions.store import SessionError, Store
from tests.fixtures.paths import ROOT


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "sessions.db") as opened:
        yield opened


def found(store: Store, text: str) -> list[str]:
    return [hit.snippet for hit in store.search(text)]


def test_words_are_found_in_any_order_case_and_accent_and_the_last_may_be_begun(store: Store) -> None:
    garden, sea = store.create(title="Garden"), store.create(title="Sea")
    moss = garden.append(Message("user", "Where does Moss grow on a damp wall?"))
    garden.append(Message("assistant", "", thinking="perhaps a fig tree", calls=(ToolCall("look", {"plant": "fern"}, "1"),)))
    sea.append(Message("user", "la mañana, über den Wellen"))
    (hit,) = store.search("WALL moss")
    assert (hit.session, hit.title, hit.message, hit.role) == (garden.id, "Garden", moss, "user")
    assert [hit.snippet[a:b] for a, b in hit.marks] == ["Moss", "wall"]
    assert [hit.message for hit in store.search("dam")] == [moss]
    assert found(store, "manana UBER") == ["la mañana, über den Wellen"]
    assert [[hit.snippet[a:b] for a, b in hit.marks] for hit in store.search("fern")] == [["fern"]]
    assert len(found(store, "fig")) == 1
    assert found(store, "moss wellen") == []
    assert store.search("moss", limit=0) == []


def test_a_script_without_spaces_and_signs_are_found_by_their_characters(store: Store) -> None:
    session = store.create()
    session.append(Message("user", "这是一个测试消息"))
    session.append(Message("user", "x" * 100 + " 100%_ sure\n" + "y" * 100))
    (hit,) = store.search("测试")
    assert hit.snippet == "这是一个测试消息"
    assert hit.snippet[slice(*hit.marks[0])] == "测试"
    (hit,) = store.search("%_")
    assert hit.snippet[slice(*hit.marks[0])] == "%_"
    assert hit.snippet[0] == hit.snippet[-1] == "…"
    assert len(hit.snippet) < 100
    assert "\n" not in hit.snippet


@pytest.mark.parametrize(
    "text",
    ['"', "''", "a AND", "NEAR(", "text:moss", "fern -moss", "moss OR fern", "(", "*", "^a", "{a b}: c", "\0", "\ud800", "a\0b",
     "'; --", "+", "a" * 100_000, " ".join("ab" * 5_000)],
)  # fmt: skip
def test_nothing_a_person_types_is_an_operator(store: Store, text: str) -> None:
    session = store.create()
    session.append(Message("user", "moss"))
    assert found(store, text) == []


def test_what_is_said_while_an_answer_grows_is_found_and_what_was_replaced_is_not(store: Store) -> None:
    session = store.create()
    id = session.append(Message("assistant", "walrus"), state="partial")
    assert len(found(store, "walrus")) == 1
    session.update(id, Message("assistant", "wombat"), state="complete")
    assert found(store, "walrus") == []
    assert found(store, "wombat") == ["wombat"]


def test_a_sqlite_without_the_index_writes_and_searches_too_and_the_index_catches_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.db"
    with Store(path) as store:
        store.create().append(Message("user", "written with an index"))
    with monkeypatch.context() as without:
        for module in (session_schema, session_search):
            without.setattr(module, "has_fts5", lambda connection: False)
        with Store(path) as store:
            store.create().append(Message("user", "written WITHOUT any"))
            assert found(store, "written") == ["written WITHOUT any", "written with an index"]
            assert [hit.snippet[slice(*hit.marks[0])] for hit in store.search("without")] == ["WITHOUT"]
    with sqlite3.connect(path) as connection:
        assert not session_schema.search_is_set_up(connection)
    connection.close()
    with Store(path) as store:
        assert found(store, "any written") == ["written WITHOUT any"]
        store.delete(store.search("any")[0].session)
        assert found(store, "written") == ["written with an index"]


def test_all_branches_travel_to_another_store(store: Store, tmp_path: Path) -> None:
    session = store.create(model="m", system="s", title="t", tools=["shell"], settings={"approve": "all"})
    first = session.append(Message("user", "a", images=("/etc/passwd",)), tokens=[1, 2])
    session.append(Message("assistant", "b", "hm", (ToolCall("f", {"x": [1, 2.5, None]}, "id"),)), usage={"prompt_tokens": 3})
    session.append(Message("tool", "r", call_id="id", name="f"), ok=True, data={"k": [True]}, seconds=0.5)
    session.branch(first)
    session.append(Message("assistant", "c"), state="partial")
    sent = json.loads(json.dumps(session.export_json()))
    with Store(tmp_path / "other.db") as other:
        other.create(title="in the way").append(Message("user", "so that ids differ"))
        copy = other.import_json(sent)
        assert copy.id != session.id
        assert [one.message.text for one in copy.messages()] == ["a", "c"]
        before, after = session.all_messages(), copy.all_messages()
        assert [(o.message.role, o.message.text, o.message.calls, o.ok, o.data, o.seconds, o.usage, o.state) for o in after] == [
            (o.message.role, o.message.text, o.message.calls, o.ok, o.data, o.seconds, o.usage, o.state) for o in before
        ]
        assert [one.parent for one in after] == [None, after[0].id, after[1].id, after[0].id]
        info = copy.info
        assert (info.title, info.model, info.system) == ("t", "m", "s")
        # What could act is left out: token ids are read as they are, a path would be opened, a setting might allow something.
        assert (info.tools, info.settings) == ((), {"imported": True})
        assert [one.tokens for one in after] == [None] * 4
        assert after[0].message.images == ()


def an_export() -> dict[str, Any]:
    return {
        "sprig_session": 1,
        "session": {"title": "t", "leaf": 2},
        "messages": [
            {"id": 1, "parent": None, "role": "user", "text": "a"},
            {"id": 2, "parent": 1, "role": "assistant", "calls": [{"id": "x", "name": "f", "arguments": {"a": 1}}]},
        ],
    }


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def put(*path: Any) -> Callable[[dict[str, Any]], object]:
    def change(data: Any) -> None:
        *way, key, value = path
        for step in way:
            data = data[step]
        data[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (put("sprig_session", 2), "sprig_session is not 1"),
        (put("session", []), "session is not an object"),
        (put("session", "title", 5), "title of session is not a text"),
        (put("session", "leaf", 9), "its leaf is no message of it"),
        (put("session", "leaf", "2"), "leaf has no id"),
        (put("messages", {}), "messages is not a list"),
        (put("messages", [{}] * 100_001), "messages is not a list of at most 100,000"),
        (put("messages", 0, "x"), "message 1 is not an object"),
        (put("messages", 0, "id", True), "message 1 has no id"),
        (put("messages", 0, "id", 2**80), "message 1 has no id"),
        (put("messages", 1, "id", 1), "message 2 does not follow"),
        (put("messages", 0, "parent", 2), "message 1 does not follow"),
        (put("messages", 1, "parent", 2), "message 2 does not follow"),
        (put("messages", 0, "role", "root"), "message 1 has an unknown role"),
        (put("messages", 0, "role", []), "message 1 has an unknown role"),
        (put("messages", 0, "state", "done"), "message 1 has an unknown role or state"),
        (put("messages", 0, "text", None), "text of message 1 is not a text"),
        (put("messages", 0, "text", "x" * 64_000_001), "longer than 64,000,000 characters"),
        (put("messages", 0, "ok", 1), "ok of message 1"),
        (put("messages", 0, "seconds", float("nan")), "seconds of message 1 is not a number"),
        (put("messages", 0, "created", "now"), "created of message 1 is not a number"),
        (put("messages", 0, "data", deep(5000)), "data of message 1 is nested too deep"),
        (put("messages", 0, "data", float("inf")), "data of message 1 holds something that JSON has not"),
        (put("messages", 0, "usage", {"x": "1"}), "usage of message 1 is not a number"),
        (put("messages", 1, "calls", [{}] * 257), "calls of message 2 is not a list of at most 256"),
        (put("messages", 1, "calls", 0, "arguments", []), "arguments of message 2 is not an object"),
        (put("messages", 1, "calls", 0, "name", {}), "name of message 2 is not a text"),
    ],
)  # fmt: skip
def test_an_import_that_is_none_changes_nothing(store: Store, change: Callable[[dict[str, Any]], object], told: str) -> None:
    data = an_export()
    store.delete(store.import_json(data).id)
    change(data)
    with pytest.raises(
        SessionError, match=f"^this is no session that Sprig exported: .*{re.escape(told)}.*; nothing was imported$"
    ):
        store.import_json(data)
    assert store.sessions() == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["sprig_session", "session", "messages", "id", "parent", "role", "text", "calls", "data", "leaf"]), inner
    ),
)  # fmt: skip


@given(data=JSON, message=JSON)
def test_any_json_is_an_import_or_one_line(data: Any, message: Any) -> None:
    from agent.sessions.export import checked_import

    for whole in (data, {**an_export(), "messages": data}, {**an_export(), "messages": [message], "session": {}}):
        with contextlib.suppress(SessionError):
            checked_import(whole)


def test_the_store_stands_on_the_standard_library_alone() -> None:
    code = "import sys, agent.sessions.store, agent.sessions.salvage; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, timeout=60)
    assert set(ended.stdout.split()) & {"numpy", "jinja2", "llama_cpp", "mcp", "pydantic"} == set()
