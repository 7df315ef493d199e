"""What a person does in the chat, on screens from a phone held upright to a desk, with a model whose words are known."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest

from agent.sessions.store import Store
from tests.fixtures.fake_engine import Say, call_text
from tests.fixtures.screens import STILL, answered, at_home, chatting, picture, say, settle, text_of, until
from tests.fixtures.sizes import all_sizes, small_and_wide
from tests.fixtures.talks import press_tool
from tui.settings.values import ChatSettings
from tui.widgets.approval.question import ApprovalView
from tui.widgets.messages.notice import Notice
from tui.widgets.messages.tool_call import ToolCallView
from tui.widgets.messages.user import UserMessage

HARVEST = """\
You can harvest in **three weeks**. Until then:

- water every second day
- keep slugs away, see `slugs.md`

```python
for day in range(21):
    water(day)
```
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(tmp_path, monkeypatch)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("tui.widgets.status_line.CALM", 0.0)


def said(app: Any) -> list[str]:
    return [view.text for view in app.chat.conversation.views()]


def notices(app: Any) -> list[str]:
    return [notice.text for notice in app.chat.query(Notice)]


@all_sizes
async def test_a_question_an_answer_and_a_tool(size: tuple[int, int]) -> None:
    done: list[str] = []
    script = [HARVEST, call_text("press", {"button": "red"}), "Pressed."]
    name = f"{size[0]}x{size[1]}"
    async with chatting(script, size=size, tools=(press_tool(done),)) as (app, pilot):
        await until(pilot, lambda: app.chat.facts)
        await settle(pilot)
        picture(app, f"start-{name}")
        await say(pilot, "When can I harvest the lettuce?")
        await answered(pilot)
        still(app)
        picture(app, f"answer-{name}")
        await say(pilot, "Press the red button, please.")
        await until(pilot, lambda: app.chat.query(ApprovalView))
        await settle(pilot)
        picture(app, f"approval-{name}")
        assert done == [], "it has not been allowed yet"
        await pilot.press("y")
        await answered(pilot)
        assert done == ["red"]
        assert said(app)[-1] == "Pressed."
        still(app)
        picture(app, f"tool-{name}")


def still(app: Any) -> None:
    """Speeds differ from run to run; a picture has none."""
    from dataclasses import replace

    work = app.chat.work
    work._status = replace(work._status, speed=None)
    app.chat.show_status()
    for view in app.chat.query(ToolCallView):
        view.done(True, "the red button is pressed", 0.01, 0, None)


async def test_thinking_is_folded_and_opens() -> None:
    async with chatting(["<think>\nThe user greets me.\n</think>\n\nHello!"], size=(60, 20), template="qwen3") as (app, pilot):
        await say(pilot, "Hi")
        await answered(pilot)
        assert "The user greets me" not in text_of(app)
        await pilot.press("ctrl+t")
        await settle(pilot)
        assert "The user greets me." in text_of(app)
        await pilot.press("ctrl+t")
        await settle(pilot)
        assert "The user greets me" not in text_of(app)


async def test_esc_stops_and_what_was_said_stays() -> None:
    import threading

    reached, go_on = threading.Event(), threading.Event()

    def during(text: str) -> None:
        if len(text) > 20:
            reached.set()
            go_on.wait(10)

    async with chatting([Say("A story of a king who had three daughters.", during=during), "Fine."]) as (app, pilot):
        await say(pilot, "A story, please")
        await until(pilot, reached.is_set)
        await pilot.press("escape")
        go_on.set()
        await answered(pilot)
        assert "broken off" in text_of(app) or said(app)[-1].startswith("A story of a king")
        with Store() as store:
            latest = store.latest()
            assert latest is not None
            kept = latest.messages()[-1]
        assert kept.state == "partial"
        assert kept.message.text.startswith("A story of a king")
        await say(pilot, "Thanks")
        await answered(pilot)
        assert said(app)[-1] == "Fine."


async def test_messages_wait_for_their_turn_and_come_back_when_stopped() -> None:
    import threading

    go_on = threading.Event()

    def wait(text: str) -> None:
        go_on.wait(10)

    script = [Say("One, and a little more.", during=wait), "Two.", Say("Three, slowly, slowly.", during=wait)]
    async with chatting(script) as (app, pilot):
        await say(pilot, "first")
        await until(pilot, lambda: app.chat.busy)
        await say(pilot, "second")
        await settle(pilot)
        assert "next: second" in text_of(app)
        go_on.set()
        await answered(pilot)
        assert said(app) == ["first", "One, and a little more.", "second", "Two."]
        go_on.clear()
        await say(pilot, "third")
        await until(pilot, lambda: app.chat.busy)
        await say(pilot, "fourth")
        await pilot.press("escape")
        go_on.set()
        await answered(pilot)
        assert app.chat.prompt.text == "fourth", "nothing is sent that was meant for after the answer"


async def test_a_message_is_edited_on_a_branch_and_both_are_there() -> None:
    async with chatting(["Paris.", "Rome."]) as (app, pilot):
        await say(pilot, "Capital of France?")
        await answered(pilot)
        await pilot.press("ctrl+up", "up", "e")
        await settle(pilot)
        assert "Editing message 1" in text_of(app)
        assert app.chat.prompt.text == "Capital of France?"
        await say(pilot, "Capital of Italy?")
        await answered(pilot)
        assert said(app) == ["Capital of Italy?", "Rome."]
        assert "‹ 2/2 ›" in text_of(app)
        next(iter(app.chat.query(UserMessage))).focus()
        await pilot.press("left")
        await until(pilot, lambda: said(app) == ["Capital of France?", "Paris."])
        assert "‹ 1/2 ›" in text_of(app)


async def test_another_answer_stands_beside_the_first() -> None:
    async with chatting(["Heads.", "Tails."]) as (app, pilot):
        await say(pilot, "Toss a coin")
        await answered(pilot)
        await pilot.press("ctrl+g")
        await answered(pilot)
        assert said(app) == ["Toss a coin", "Tails."]
        app.chat.conversation.last().focus()
        await pilot.press("left")
        await until(pilot, lambda: said(app) == ["Toss a coin", "Heads."])


@pytest.mark.slow
@pytest.mark.parametrize(("key", "runs", "asked"), [("y", 1, 2), ("s", 2, 1), ("n", 0, 2), ("escape", 0, 2)])
async def test_a_person_stays_in_charge_of_tools(key: str, runs: int, asked: int) -> None:
    done: list[str] = []
    call = call_text("press", {"button": "red"})
    async with chatting([call, "One.", call, "Two."], tools=(press_tool(done),)) as (app, pilot):
        questions = 0
        for number in range(2):
            await say(pilot, f"Press it, {number}")
            await until(pilot, lambda: app.chat.query(ApprovalView) or not app.chat.busy)
            if app.chat.query(ApprovalView):
                questions += 1
                await pilot.press(key if number == 0 else "n")
            await answered(pilot)
        assert len(done) == runs
        assert questions == asked


async def test_always_is_written_into_the_settings() -> None:
    done: list[str] = []
    call = call_text("press", {"button": "red"})
    async with chatting([call, "One.", call, "Two."], tools=(press_tool(done),)) as (app, pilot):
        await say(pilot, "Press it")
        await until(pilot, lambda: app.chat.query(ApprovalView))
        await pilot.press("a")
        await settle(pilot)
        await pilot.press("enter")
        await answered(pilot)
        await say(pilot, "Press it again")
        await answered(pilot)
        assert done == ["red", "red"]
        await until(pilot, lambda: app.settings_path.is_file())
        assert re.search(r'\[\[rules\]\]\s+action = "allow"\s+tool = "press"', app.settings_path.read_text())


async def test_stopping_takes_the_question_away_and_nothing_runs() -> None:
    done: list[str] = []
    async with chatting([call_text("press", {"button": "red"})], tools=(press_tool(done),)) as (app, pilot):
        await say(pilot, "Press it")
        await until(pilot, lambda: app.chat.query(ApprovalView))
        await pilot.press("ctrl+c")
        await answered(pilot)
        assert done == []
        assert not app.chat.query(ApprovalView)
        assert app.chat.prompt.display


async def test_the_engine_dies_in_mid_answer_and_the_person_has_it_again() -> None:
    async with chatting([Say("The capital of France is Paris", dies=14), "Paris."]) as (app, pilot):
        await say(pilot, "Capital of France?")
        await answered(pilot)
        assert any("the model's process ended" in text for text in notices(app))
        assert said(app)[-1] == "The capital of"
        await pilot.click("Notice Button")
        await answered(pilot)
        assert said(app) == ["Capital of France?", "Paris."]


async def test_a_model_that_does_not_fit_is_said_and_the_message_stays() -> None:
    from agent.errors import SprigError

    def too_large(setup: Any) -> Any:
        raise SprigError("huge.gguf with a context of 1024 needs 40 GB of memory and 3 GB are free; take a smaller model")

    async with chatting(engine=too_large) as (app, pilot):
        await until(pilot, lambda: app.chat.query(Notice))
        await say(pilot, "Hello?")
        await until(pilot, lambda: not app.chat.busy and len(app.chat.query(Notice)) > 1)
        assert "needs 40 GB" in notices(app)[0]
        assert app.chat.prompt.text == "Hello?"
        assert said(app) == []


async def test_a_session_is_found_and_opened_and_a_new_one_begun() -> None:
    async with chatting(["Basil likes sun.", "Hello Bo.", "Yes."]) as (app, pilot):
        await say(pilot, "Where to put basil?")
        await answered(pilot)
        await pilot.press("ctrl+n")
        await until(pilot, lambda: said(app) == [])
        await say(pilot, "My name is Bo")
        await answered(pilot)
        await say(pilot, "/search basil")
        await until(pilot, lambda: "Basil likes sun" in text_of(app))
        await pilot.press("down", "enter")
        await until(pilot, lambda: said(app) == ["Where to put basil?", "Basil likes sun."])
        await pilot.press("escape", "escape")
        await say(pilot, "Really?")
        await answered(pilot)
        assert said(app)[-1] == "Yes."
        with Store() as store:
            assert len(store.sessions()) == 2


async def test_the_chat_begins_with_the_session_and_the_message_that_were_named() -> None:
    async with chatting(["Hello."]) as (app, pilot):
        await say(pilot, "Good morning")
        await answered(pilot)
        session = app.chat.session
    async with chatting(["Good night."], session=session, message="I am tired") as (app, pilot):
        await until(pilot, lambda: said(app)[-1:] == ["Good night."])
        assert said(app) == ["Good morning", "Hello.", "I am tired", "Good night."]


async def test_two_thousand_messages_leave_the_tree_and_come_back() -> None:
    with Store() as store:
        data = store.create().export_json()
        texts = [f"{who} {number}" for number in range(1000) for who in ("question", "answer")]
        data["messages"] = [
            {"id": n, "parent": n - 1 or None, "role": ("assistant", "user")[n % 2], "text": text, "state": "complete"}
            for n, text in enumerate(texts, 1)
        ]
        data["session"]["leaf"] = len(texts)
        id = store.import_json(data).id  # in one transaction
    async with chatting(["The last."], session=id) as (app, pilot):
        await until(pilot, lambda: said(app)[-1:] == ["answer 999"])
        conversation = app.chat.conversation
        assert len(list(conversation.views())) <= 40
        await until(pilot, lambda: conversation.scroll_y > 0)
        first = said(app)[0]
        for _ in range(16):
            await pilot.press("pageup")
            await settle(pilot)
        assert first not in said(app)[:1], "earlier messages came"
        assert len(list(conversation.views())) <= 80, "and others left"
        assert "answer 999" not in said(app)
        await say(pilot, "And now?")
        await answered(pilot)
        assert said(app)[-2:] == ["And now?", "The last."]
        assert "The last." in text_of(app)


async def test_what_is_copied_goes_to_the_clipboard(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[str] = []

    async def copy(app: Any, text: str) -> str:
        copied.append(text)
        return "Copied."

    monkeypatch.setattr("tui.terminal.clipboard.copy", copy)
    async with chatting([HARVEST]) as (app, pilot):
        await say(pilot, "When?")
        await answered(pilot)
        await pilot.press("alt+c")
        await until(pilot, lambda: copied)
        await say(pilot, "/copy code")
        await until(pilot, lambda: len(copied) == 2)
        app.chat.conversation.last().focus()
        await pilot.press("c", "k")
        await until(pilot, lambda: len(copied) == 4)
    code = "for day in range(21):\n    water(day)"
    assert [text.strip() for text in copied] == [HARVEST.strip(), code, HARVEST.strip(), code]


async def test_a_file_that_is_named_goes_along_and_is_folded(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("line one\nline two\n")
    async with chatting(["I read it."], root=tmp_path) as (app, pilot):
        await say(pilot, "What is in @notes.txt ?")
        await answered(pilot)
        assert "+ notes.txt (2 lines)" in text_of(app)
        assert "line two" not in text_of(app)
        with Store() as store:
            latest = store.latest()
            assert latest is not None
            assert "line two" in latest.messages()[0].message.text


async def test_keys_are_remapped_by_the_settings() -> None:
    settings = ChatSettings(screen=STILL, keys={"chat.again": "f8"})
    async with chatting(["One.", "Two."], settings=settings) as (app, pilot):
        await say(pilot, "Say")
        await answered(pilot)
        await pilot.press("ctrl+g")
        await settle(pilot)
        assert said(app)[-1] == "One."
        await pilot.press("f8")
        await answered(pilot)
        assert said(app)[-1] == "Two."


async def test_ctrl_c_twice_leaves_and_once_does_not() -> None:
    async with chatting() as (app, pilot):
        await pilot.press("ctrl+c")
        await settle(pilot)
        assert app.is_running
        assert "again" in " ".join(str(n.message) for n in app._notifications)
        await pilot.press("ctrl+c")
        await until(pilot, lambda: app._exit)


async def test_every_command_of_the_palette_is_there() -> None:
    from tui.commands.table import COMMANDS

    async with chatting() as (app, pilot):
        listed = {command.help.split()[0] for command in app.get_system_commands(app.screen)}
        assert {f"/{command.name}" for command in COMMANDS} <= listed
        await pilot.press("ctrl+p")
        await pilot.press(*"thinking")
        await until(pilot, lambda: "/think" in text_of(app))


async def test_a_key_for_an_action_that_there_is_not_is_said() -> None:
    settings = ChatSettings(screen=STILL, keys={"chat.agian": "f8"})
    async with chatting(settings=settings) as (app, pilot):
        await until(pilot, lambda: any("chat.agian" in str(n.message) for n in app._notifications))


async def test_a_fault_of_ours_is_one_line_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(ZeroDivisionError):  # which the test's frame raises again
        async with chatting() as (app, pilot):
            app.call_later(lambda: 1 / 0)
            await until(pilot, lambda: app.fault)
    assert isinstance(app.fault, ZeroDivisionError)
    assert capsys.readouterr().err == ""


@small_and_wide
async def test_a_change_is_seen_before_the_yes_and_goes_back(size: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("water\nbread\n")
    script = [call_text("write_file", {"path": "notes.txt", "content": "milk\n" * 60}), "Written. " * 40, "Second."]
    async with chatting(script, size=size, tools=("write_file",), root=tmp_path) as (app, pilot):
        await say(pilot, "Write it")
        await until(pilot, lambda: "write_file: notes.txt" in text_of(app) and "replaces 2 lines with 60" in text_of(app))
        assert "5 w  no" in text_of(app), "the answers are all in view"
        assert "Space: read all" in text_of(app)
        await pilot.press("end", "y")
        await answered(pilot)
        assert (tmp_path / "notes.txt").read_text() == "milk\n" * 60
        await say(pilot, "And?")
        await answered(pilot)
        await say(pilot, "/compact")
        await until(pilot, lambda: any("1 former turn replaced by a digest" in notice.text for notice in app.query(Notice)))
        await say(pilot, "/undo")
        await until(pilot, lambda: any("notes.txt: put back" in notice.text for notice in app.query(Notice)))
        assert (tmp_path / "notes.txt").read_text() == "water\nbread\n"


async def test_an_editor_needs_a_terminal() -> None:
    async with chatting() as (app, pilot):
        app.chat.prompt.text = "half a message"
        await app.run_command("/editor")
        await until(pilot, lambda: "an editor needs the whole terminal" in " ".join(text_of(app).split()))
        assert app.chat.prompt.text == "half a message"
