"""A server's tools become others while an agent has them: each run begins with those that the server has then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent import events as e
from agent.agent import Agent
from agent.approval.policy import Policy, Rule
from agent.errors import SprigError
from agent.tools.define import Tool, tool
from agent.tools.mcp.known import KnownTools
from agent.tools.mcp.schema import Offered
from agent.tools.mcp.servers import MCPServers
from tests.fixtures.fake_engine import FakeEngine, call_text
from tests.fixtures.mcp_servers import MUTE, ChangingServer
from tests.fixtures.scripted import Make, weather

pytestmark = pytest.mark.usefixtures("home")

ALLOWED = Policy([Rule("allow", "house__*", even_after_untrusted=True)])
LASTING = e.CallReady | e.CallRefused | e.ToolDone | e.Problem | e.ToolsChanged | e.Done
OPEN = call_text("house__open", {"door": "front"})


def soon(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def change(server: ChangingServer, servers: MCPServers, *tools: str) -> None:
    """The server has other tools, and its word about that has come."""
    before = said(servers)
    server.offer(*tools)
    soon(lambda: said(servers) > before, "the server did not announce it")


def said(servers: MCPServers) -> int:
    return sum(event.kind == "tools" for event in servers.events)


def run(agent: Agent, text: str = "Hello") -> list[Any]:
    return [event for event in agent.stream(text) if isinstance(event, LASTING)]


def names(tools: tuple[Tool, ...]) -> list[str]:
    return [one.name for one in tools]


def test_the_next_run_has_what_is_new_lacks_what_is_gone_and_asks_for_what_changed(tmp_path: Path, make: Make) -> None:
    server = ChangingServer(tmp_path, "open: Open a door.", "close")
    with MCPServers([server.config]) as servers:
        agent, engine = make(OPEN, "Open.", "Hm.", OPEN, "No.", tools=[weather, servers], policy=ALLOWED)
        assert [type(event) for event in run(agent)] == [e.CallReady, e.ToolDone, e.Done]
        change(server, servers, "open: Open a door, and tell the neighbours.", "unlock")
        first, *_ = run(agent)
        assert first == e.ToolsChanged(new=("house__unlock",), changed=("house__open",), gone=("house__close",))
        assert first.text == (
            "the tools of MCP servers are others now: new house__unlock; changed house__open; gone house__close"
        )
        assert names(agent.tools) == ["weather", "house__open", "house__unlock"]
        assert "tell the neighbours" in engine.asked[-1]
        assert "house__close" not in engine.asked[-1].rpartition("<|im_start|>system")[2].partition("<|im_end|>")[0]
        refused = run(agent)[-2]
        assert isinstance(refused, e.CallRefused)
        assert "changed since it was first seen" in refused.why, "the rule that allowed it was made for another tool"
        unlock = agent.tool("house__unlock")
        assert unlock is not None
        assert (unlock.approval, unlock.origin, unlock.untrusted, unlock.doubt()) == ("ask", "mcp", True, "")


def test_a_tool_that_changed_is_covered_again_once_a_person_accepted_it(tmp_path: Path, make: Make) -> None:
    server = ChangingServer(tmp_path, "open: Open a door.")
    with MCPServers([server.config]) as servers:
        agent, _ = make("Hi.", OPEN, "Open.", tools=[servers], policy=ALLOWED)
        change(server, servers, "open: Open a door, and tell the neighbours.")
        run(agent)
        (changed,) = servers.known_tools()
        assert changed.changed
        lines = changed.difference().splitlines()[3:5]
        assert lines == ["-Open a door.", "+Open a door, and tell the neighbours."]
        servers.accept(changed)
        assert changed.difference() == ""
        assert [type(event) for event in run(agent)] == [e.CallReady, e.ToolDone, e.Done], "nothing else changed by that"


@pytest.mark.slow
def test_what_changed_between_two_starts_is_shown_too(tmp_path: Path) -> None:
    server = ChangingServer(tmp_path, "open: Open a door.")
    with MCPServers([server.config]) as servers:
        assert not servers.mcp_tools()[0].changed
    server.offer("open: Open all doors.")
    with MCPServers([server.config]) as servers:
        diff = servers.mcp_tools()[0].difference()
        assert "-Open a door.\n+Open all doors.\n" in diff
    seen = tmp_path / "home" / "mcp-tools-seen.json"
    for broken in ("[1", "[]", ""):
        seen.write_text(broken)
        with MCPServers([server.config]) as servers:
            (changed,) = servers.mcp_tools()
            assert changed.changed, "what decides is kept elsewhere"
            assert "+Open all doors." in changed.difference()


def test_what_is_said_to_have_changed_and_did_not_costs_no_prompt(tmp_path: Path, make: Make) -> None:
    server = ChangingServer(tmp_path, "open", "close")
    with MCPServers([server.config]) as servers:
        agent, engine = make("one", "two", tools=[servers])
        run(agent)
        change(server, servers, "close", "open")
        assert [type(event) for event in run(agent)] == [e.Done]
        engine.only_grows()


@pytest.mark.slow
def test_a_flood_of_announcements_is_one_question_a_run(tmp_path: Path, make: Make) -> None:
    """It also announces a change whenever it is asked: who followed each would never come to an end."""
    again = "old = listing\ndef listing(id):\n    old(id)\n    for _ in range(200): notify('notifications/tools/list_changed')\n"
    server = ChangingServer(tmp_path, "open", announced=500, behaviour=again)
    with MCPServers([server.config]) as servers:
        agent, _ = make("one", "two", "three", "four", tools=[servers])
        for n, tools in enumerate((["open"], ["open", "close"], ["open", "unlock"], ["lock"])):
            server.offer(*tools)
            time.sleep(0.1)
            before = server.asked
            run(agent)
            assert server.asked - before <= 1, n
        assert names(agent.tools) == ["house__lock"]


@pytest.mark.slow
def test_a_server_that_does_not_list_its_tools_again_keeps_those_that_it_had(tmp_path: Path, make: Make) -> None:
    server = ChangingServer(tmp_path, "open", behaviour=MUTE)
    with MCPServers([server.config]) as servers:
        agent, _ = make("one", "two", "three", tools=[servers])
        run(agent)
        (tmp_path / "house.mute").touch()
        change(server, servers, "close")
        threading.Timer(0.2, agent.cancel).start()
        began = time.monotonic()
        ended = run(agent)[-1]
        assert time.monotonic() - began < 5, "a person who stops the run need not wait for the server"
        assert ended.result.reason == "cancelled"
        assert names(agent.tools) == ["house__open"]
        (tmp_path / "house.mute").unlink()
        assert run(agent)[0] == e.ToolsChanged(new=("house__close",), gone=("house__open",))


def test_a_server_that_does_not_list_its_tools_again_is_left_alone_for_a_while(tmp_path: Path, make: Make) -> None:
    refuses = (
        "old = listing\ndef listing(id):\n    if not os.path.exists(HERE + '.mute'): return old(id)\n"
        "    open(HERE + '.asked', 'a').write('.')\n"
        "    say({'jsonrpc': '2.0', 'id': id, 'error': {'code': 1, 'message': 'later'}})\n"
    )
    server = ChangingServer(tmp_path, "open", behaviour=refuses)
    with MCPServers([server.config]) as servers:
        agent, _ = make("one", "two", tools=[servers])
        (tmp_path / "house.mute").touch()
        change(server, servers, "close")
        before = server.asked
        run(agent)
        assert (server.asked - before, servers.errors) == (1, {"house": "MCP server house: it refused: later"})
        change(server, servers, "lock")
        run(agent)
        assert server.asked - before == 1
        assert names(agent.tools) == ["house__open"]


def test_a_name_that_is_taken_changes_nothing_and_is_said(tmp_path: Path, make: Make) -> None:
    @tool(name="house__mine")
    def mine() -> str:
        """The script's own."""
        return "mine"

    server = ChangingServer(tmp_path, "open")
    with MCPServers([server.config]) as servers:
        agent, _ = make("one", tools=[mine, servers])
        change(server, servers, "open", "mine")
        first, last = run(agent)
        assert isinstance(first, e.Problem)
        assert "two tools called 'house__mine'" in first.text
        assert last.result.reason == "done"
        assert names(agent.tools) == ["house__mine", "house__open"]


def test_a_tool_that_must_be_called_and_is_gone_is_an_error_before_anything_begins(tmp_path: Path, make: Make) -> None:
    server = ChangingServer(tmp_path, "open")
    with MCPServers([server.config]) as servers:
        agent, _ = make("one", tools=[servers])
        change(server, servers, "close")
        with pytest.raises(SprigError, match="house__open"):
            agent.run("Open it", tool_choice="house__open")
        assert agent.messages == ()
        assert agent.run("Well?").text == "one"


def test_the_agent_of_the_settings_follows_its_servers_as_well(tmp_path: Path, kept_templates: None) -> None:
    server = ChangingServer(tmp_path, "open")
    with Agent.from_settings(model=FakeEngine(["one", "two"]), mcp=[server.config], root=tmp_path) as agent:
        run(agent)
        server.offer("open", "close")
        soon(lambda: isinstance(agent.renew_tools(), e.ToolsChanged), "it was not taken up")
        assert names(agent.tools) == ["house__open", "house__close"]


def test_a_list_of_tools_stays_as_it_was_handed_over(tmp_path: Path, make: Make) -> None:
    server = ChangingServer(tmp_path, "open")
    with MCPServers([server.config]) as servers:
        agent, _ = make("one", tools=servers.tools())
        change(server, servers, "close")
        assert [type(event) for event in run(agent)] == [e.Done]
        assert names(agent.tools) == ["house__open"]


def test_what_is_kept_of_tools_has_bounds(tmp_path: Path) -> None:
    path, large = tmp_path / "seen.json", {"type": "object", "description": "\u0416" * 60_000}
    known = KnownTools(path)
    for n in range(300):
        known.keep("house", Offered(f"t{n}", f"Tool {n}.", large, None, digest=str(n)))
    known.save()
    assert path.stat().st_size < 16_000_000
    again = KnownTools(path)
    before, after = (Offered("t0", text, large, None) for text in ("Tool 0.", "Another."))
    assert again.difference("house", before) == ""
    assert "-Tool 0.\n+Another.\n" in again.difference("house", after)
    assert "\n-Tool" not in again.difference("house", Offered("t299", "Another.", {}, None)), "that one is not kept"
