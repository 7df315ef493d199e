"""Sessions are kept: every message with all that belongs to it, every branch, for every thread and process that asks."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.messages import Message, ToolCall
from agent.sessions.store import Session, SessionError, Store
from tests.fixtures.generated import runs
from tests.fixtures.paths import ROOT


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "home" / "sessions.db") as opened:
        yield opened


def said(session: Session) -> list[str]:
    return [one.message.text for one in session.messages()]


def test_the_store_lies_in_sprigs_home_and_only_its_owner_may_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path / "sprig"))
    with Store() as opened:
        opened.create(title="x")
        files = list((tmp_path / "sprig").iterdir())
        assert {f.name for f in files} == {"sessions.db", "sessions.db-wal", "sessions.db-shm"}
        assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
    (tmp_path / "sprig" / "sessions.db").chmod(0o644)
    Store().close()
    assert stat.S_IMODE((tmp_path / "sprig" / "sessions.db").stat().st_mode) == 0o600


def test_a_turn_with_a_tool_comes_back_with_all_that_belongs_to_it(store: Store) -> None:
    session = store.create(model="qwen.gguf", system="You water.", tools=["water"], settings={"temperature": 0.2})
    call = ToolCall("water", {"bed": 2, "note": "grün", "deep": [1, {"x": None}]}, "abc123def")
    first = session.append(Message("user", "Water bed 2", images=("bed.png",)))
    session.append(
        Message("assistant", "", thinking="a bed", calls=(call,)),
        tokens=[1, 2**31 - 1, 0], fingerprint="f00d", usage={"prompt_tokens": 12, "decode_seconds": 0.5},
    )  # fmt: skip
    session.append(Message("tool", "done", call_id="abc123def", name="water"), ok=False, data={"litres": 3}, seconds=1.5)
    again = store.open(session.id)
    user, answer, result = again.messages()
    assert (user.id, user.parent, user.message.images) == (first, None, ("bed.png",))
    assert answer.message == Message("assistant", "", "a bed", (call,))
    assert (answer.tokens, answer.fingerprint) == ((1, 2**31 - 1, 0), "f00d")
    assert answer.usage == {"prompt_tokens": 12, "decode_seconds": 0.5}
    assert (result.ok, result.data, result.seconds, result.message.name) == (False, {"litres": 3}, 1.5, "water")
    info = again.info
    assert (info.model, info.system, info.tools, info.settings) == ("qwen.gguf", "You water.", ("water",), {"temperature": 0.2})
    assert (info.title, info.messages) == ("Water bed 2", 3)


def test_the_title_is_the_first_words_until_somebody_renames_it(store: Store) -> None:
    session = store.create()
    session.append(Message("user", "Please tell me\n  about the many kinds of moss that grow on the north side of a stone wall"))
    assert session.info.title == "Please tell me about the many kinds of moss that grow on the…"
    store.rename(session.id, "Moss")
    session.append(Message("user", "and lichen"))
    assert session.info.title == "Moss"


def test_a_session_is_found_by_the_start_of_its_id(store: Store) -> None:
    ids = [store.create(title=str(n)).id for n in range(40)]
    assert len(set(ids)) == 40
    assert all(len(id) == 10 and id.isalnum() for id in ids)
    assert store.open(ids[7].upper()[:9]).id == ids[7]
    twice = next(a[0] for a in ids if sum(b[0] == a[0] for b in ids) > 1)
    with pytest.raises(SessionError, match=f"several sessions begin with '{twice}'"):
        store.open(twice)
    for nothing in ("", "zzzzzzzzzzz", "%", "\ud800"):
        with pytest.raises(SessionError, match="there is no session"):
            store.open(nothing)


def test_an_edited_question_is_a_branch_and_the_old_answer_stays(store: Store) -> None:
    session = store.create()
    session.append(Message("user", "hello"))
    greeting = session.append(Message("assistant", "hi"))
    first = session.append(Message("user", "2+2?"))
    old = session.append(Message("assistant", "5"))
    session.branch(first)
    new = session.append(Message("assistant", "4"))
    assert said(session) == ["hello", "hi", "2+2?", "4"]
    assert [one.id for one in session.branches(new)] == [old, new]
    session.branch(greeting)
    edited = session.append(Message("user", "3+3?"))
    assert said(session) == ["hello", "hi", "3+3?"]
    assert [one.id for one in session.branches(first)] == [first, edited]
    session.switch(first)
    assert said(session) == ["hello", "hi", "2+2?", "4"]
    session.switch(old)
    assert said(store.open(session.id)) == ["hello", "hi", "2+2?", "5"]
    session.branch(None)
    assert said(session) == []
    session.append(Message("user", "anew"))
    assert said(session) == ["anew"]
    assert len(session.all_messages()) == 7


def test_a_fork_is_a_session_of_its_own(store: Store) -> None:
    session = store.create(model="m", system="s")
    at = session.append(Message("user", "a"), tokens=[5], fingerprint="f")
    session.append(Message("assistant", "b"))
    fork = session.fork(at)
    fork.append(Message("assistant", "c"))
    assert said(session) == ["a", "b"]
    assert said(fork) == ["a", "c"]
    assert fork.messages()[0].tokens == (5,)
    assert (fork.info.parent, fork.info.parent_message, fork.info.system) == (session.id, at, "s")
    store.delete(session.id)
    assert said(fork) == ["a", "c"]
    assert fork.info.parent is None


def test_a_message_of_another_session_is_no_place_to_branch(store: Store) -> None:
    mine, other = store.create(), store.create()
    theirs = other.append(Message("user", "x"))
    for act in (mine.branch, mine.switch, mine.branches, mine.fork):
        with pytest.raises(SessionError, match=f"has no message {theirs}"):
            act(theirs)
    with pytest.raises(SessionError, match="is not being written"):
        mine.update(theirs, state="complete")


def test_an_answer_is_written_as_it_grows_and_then_stands(store: Store) -> None:
    session = store.create()
    session.append(Message("user", "count"))
    id = session.append(Message("assistant", "one"), state="partial")
    session.update(id, Message("assistant", "one two"), tokens=[1, 2])
    seen = store.open(session.id).messages()[-1]
    assert (seen.message.text, seen.state, seen.tokens) == ("one two", "partial", (1, 2))
    session.update(id, Message("assistant", "one two three"), usage={"generated_tokens": 3}, state="complete")
    seen = session.messages()[-1]
    assert (seen.message.text, seen.state, seen.tokens, seen.usage) == (
        "one two three", "complete", (1, 2), {"generated_tokens": 3},
    )  # fmt: skip
    with pytest.raises(SessionError, match=f"message {id} of session"):
        session.update(id, Message("assistant", "never said"))


def test_the_order_is_that_of_the_acts_whatever_the_clock_says(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def clock(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: seconds)

    clock(2e9)
    first = store.create(title="first")
    clock(1e9)
    second = store.create(title="second")
    assert [info.title for info in store.sessions()] == ["second", "first"]
    clock(-5e8)
    first.append(Message("user", "a"))
    clock(5e9)
    first.append(Message("assistant", "b"))
    clock(0)
    first.append(Message("user", "c"))
    assert said(first) == ["a", "b", "c"]
    assert [info.title for info in store.sessions()] == ["first", "second"]
    latest = store.latest()
    assert latest is not None
    assert latest.id == first.id
    second.configure(model="other")
    assert [info.title for info in store.sessions(1)] == ["second"]


def test_a_list_of_sessions_is_narrowed_by_title_model_or_id(store: Store) -> None:
    moss, lake = store.create(title="Moss 100%", model="qwen"), store.create(title="Lake", model="gemma_3")
    assert [i.id for i in store.sessions(query="mos")] == [moss.id]
    assert [i.id for i in store.sessions(query="0%")] == [moss.id]
    assert [i.id for i in store.sessions(query="gemma_")] == [lake.id]
    assert store.sessions(query="%%") == []
    assert [i.id for i in store.sessions(query=lake.id[:6].upper())] == [lake.id]
    assert len(store.sessions(query="  ")) == 2


def test_a_deleted_session_is_gone_and_its_words_are_not_in_the_file(store: Store) -> None:
    session = store.create()
    parent = session.append(Message("user", "the secret word is hippopotamus"))
    session.append(Message("assistant", "noted"))
    store.delete(session.id)
    assert store.sessions() == []
    assert store.latest() is None
    assert store.search("hippopotamus") == []
    with pytest.raises(SessionError, match="was deleted meanwhile"):
        session.append(Message("user", "still there?"))
    with pytest.raises(SessionError, match="was deleted meanwhile"):
        _ = session.info
    assert store.create().append(Message("user", "next")) > parent + 1, "a number is never given twice"
    store.close()
    assert b"hippopotamus" not in store.path.read_bytes()


def test_a_session_without_a_word_leaves_nothing_behind(store: Store) -> None:
    with store.create(model="m"):
        pass
    with store.create(title="named"):
        pass
    assert [info.title for info in store.sessions()] == ["named"]


def test_a_closed_store_says_so(store: Store) -> None:
    session = store.create()
    store.close()
    store.close()
    with pytest.raises(SessionError, match="was closed: open it again"):
        session.append(Message("user", "x"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"data": {"x": object()}}, "a tool's result cannot be kept as JSON"),
        ({"data": float("nan")}, "a tool's result cannot be kept as JSON"),
        ({"usage": {"x": float("inf")}}, "a usage cannot be kept as JSON"),
        ({"tokens": [2**31]}, "does not fit in 32 bits"),
        ({"state": "half"}, "state 'half' is unknown"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_nothing_is_written(store: Store, arguments: dict[str, object], told: str) -> None:
    session = store.create()
    with pytest.raises(SessionError, match=told):
        session.append(Message("tool", "x"), **arguments)  # type: ignore[arg-type]
    assert session.all_messages() == []


TEXTS = st.text(st.characters(codec=None, categories=None), max_size=30) | st.sampled_from(
    ["\ud800", "a\udfffb", "\0", "x\0y", "\ud83d\ude00", "\u202e", "ﷺ" * 9, "'; DROP TABLE messages; --"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def as_utf8(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@settings(max_examples=runs(80), deadline=None)
@given(text=TEXTS, thinking=TEXTS, name=TEXTS, arguments=st.dictionaries(TEXTS, VALUES, max_size=3), query=TEXTS)
def test_any_text_survives_the_store_and_may_be_searched_for(
    text: str, thinking: str, name: str, arguments: dict[str, object], query: str
) -> None:
    session = SHARED.create()
    session.append(Message("assistant", text, thinking, (ToolCall(name, arguments, "id"),)))
    kept = session.messages()[0].message
    assert (kept.text, kept.thinking, kept.calls[0].name) == (as_utf8(text), as_utf8(thinking), as_utf8(name))
    if all(key == as_utf8(key) for key in arguments):
        assert kept.calls[0].arguments.keys() == arguments.keys()
    SHARED.search(query)
    SHARED.sessions(query=query)
    copy = SHARED.import_json(session.export_json())
    assert copy.messages()[0].message == kept
    assert session.export_markdown().encode()
    SHARED.delete(session.id)
    SHARED.delete(copy.id)


SHARED: Store


@pytest.fixture(autouse=True, scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    global SHARED
    with Store(tmp_path_factory.mktemp("shared") / "s.db") as SHARED:
        yield


def test_eight_threads_share_one_store(store: Store) -> None:
    def talk(n: int) -> str:
        session = store.create(title=f"thread {n}")
        for i in range(20):
            session.append(Message("user", f"{n}.{i}"))
        assert said(session) == [f"{n}.{i}" for i in range(20)]
        return session.id

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(talk, range(8)))
    assert {store.open(id).info.messages for id in ids} == {20}


# Appends to the same session as others do, as fast as it can, and says what was acknowledged.
WRITER = """
import sys
from pathlib import Path
from agent.messages import Message
from agent.sessions.store import Store
with Store(Path(sys.argv[1])) as store:
    session = store.open(sys.argv[2])
    for i in range(int(sys.argv[4])):
        print(session.append(Message("user", f"{sys.argv[3]}.{i}")), flush=True)
"""


@pytest.mark.slow
def test_two_processes_write_one_session_and_neither_tears_the_others_turns(store: Store) -> None:
    session = store.create(title="shared")
    start = session.append(Message("user", "start"))
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store.path), session.id, name, "60"], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for name in "ab"
    ]
    acknowledged = [[int(line) for line in child.communicate(timeout=60)[0].split()] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    everything = {one.id: one for one in session.all_messages()}
    assert sorted(everything) == [start, *sorted(acknowledged[0] + acknowledged[1])]
    for name, ids in zip("ab", acknowledged, strict=True):
        assert len(ids) == 60
        mine = [everything[id] for id in ids]
        assert [one.message.text for one in mine] == [f"{name}.{i}" for i in range(60)]
        assert [one.parent for one in mine[1:]] == ids[:-1], "each of its messages follows the one before it"
    last = max(everything)
    assert store.open(session.id).messages()[-1].id == last


def test_another_process_at_work_makes_a_writer_wait_and_not_fail(store: Store) -> None:
    session, other = store.create(title="x"), Store(store.path)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with other._database.writing():
            entered.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert entered.wait(10)
    threading.Timer(0.2, leave.set).start()
    assert session.append(Message("user", "patience"))
    assert leave.is_set()
    holder.join()
    other.close()
