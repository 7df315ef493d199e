"""MCP servers become tools: honest ones of the SDK, over standard input and output and over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.tools.define import Tool
from agent.tools.mcp.servers import MCPError, MCPEvent, MCPServers, MCPTool, ServerConfig
from agent.tools.result import ToolContext
from tests.fixtures.mcp_servers import honest, honest_http, raw
from tests.fixtures.paths import ROOT

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MCPServers]:
    """One honest server for the tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("honest")
    config = honest(folder, env={"TOKEN": "t0p"}, cwd=str(folder), deny=("die", "gr*"))
    with MCPServers([config], pins=folder / "pins.json") as opened:
        assert opened.errors == {}
        yield opened


def tool(servers: MCPServers, name: str) -> Tool:
    return next(t for t in servers.tools() if t.name == name)


def mcp_tool(servers: MCPServers, name: str) -> MCPTool:
    return next(t for t in servers.mcp_tools() if t.remote == name)


def test_its_tools_carry_its_name_and_their_schema_and_are_asked_for(servers: MCPServers) -> None:
    names = {t.name for t in servers.tools()}
    assert names == {f"honest__{n}" for n in ("add", "weather", "picture", "mixed", "refuse", "count", "sleep", "environment")}
    add = tool(servers, "honest__add")
    assert (add.spec.description, add.approval, add.origin, add.unconfined) == ("Add two numbers.", "ask", "mcp", "")
    assert add.spec.parameters["properties"]["b"]["description"] == "the second"
    assert add.spec.parameters["required"] == ["a"]
    assert mcp_tool(servers, "add").annotations == {"readOnlyHint": True}


def test_a_call_gives_text_and_data(servers: MCPServers) -> None:
    result = tool(servers, "honest__add").invoke({"a": 2, "b": 40})
    assert (result.ok, result.text, result.data) == (True, "42", {"result": 42})
    assert 0 < result.seconds < 5
    result = tool(servers, "honest__weather").invoke({"city": "Köln"})
    assert (result.ok, result.data) == (True, {"city": "Köln", "celsius": 21.5})


def test_a_picture_is_a_file_as_long_as_the_servers_are_open(servers: MCPServers) -> None:
    result = tool(servers, "honest__picture").invoke({})
    assert result.text == "[PNG image, 15 bytes]"
    assert result.image is not None
    assert Path(result.image).read_bytes().endswith(b"picture")
    assert Path(result.image).parent.stat().st_mode & 0o077 == 0


def test_resources_and_links_are_text(servers: MCPServers) -> None:
    assert tool(servers, "honest__mixed").invoke({}).text == "first\n[resource file:///a.txt]\ninside\n[link http://x/y] far"


def test_an_error_of_the_tool_and_wrong_arguments_come_back_as_such(servers: MCPServers) -> None:
    result = tool(servers, "honest__refuse").invoke({"why": "no \x1b[31mwater"})
    assert not result.ok
    assert "no water" in result.text
    result = tool(servers, "honest__add").invoke({"a": "x"})
    assert not result.ok
    assert "integer" in result.text


def test_progress_is_told_while_it_works(servers: MCPServers) -> None:
    lines: list[str] = []
    result = tool(servers, "honest__count").invoke({"to": 3}, ToolContext(progress=lines.append))
    assert result.text == "counted"
    assert lines == ["step 1 (1/3)", "step 2 (2/3)", "step 3 (3/3)"]


def test_a_call_that_is_cancelled_ends_at_once_here_and_there(servers: MCPServers) -> None:
    cancelled = threading.Event()
    threading.Timer(0.2, cancelled.set).start()
    began = time.monotonic()
    result = tool(servers, "honest__sleep").invoke({"seconds": 30}, ToolContext(cancelled=cancelled))
    assert (result.ok, result.text) == (False, "cancelled")
    assert time.monotonic() - began < 2
    deadline = time.monotonic() + 5
    while "woken by" not in servers.log("honest") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "woken by" in servers.log("honest"), "the server was told"
    assert tool(servers, "honest__add").invoke({"a": 1}).ok, "and serves on"


@pytest.mark.slow
def test_a_call_that_takes_too_long_is_given_up(servers: MCPServers) -> None:
    began = time.monotonic()
    result = mcp_tool(servers, "sleep").call({"seconds": 30}, timeout=0.3)
    assert (result.ok, result.text) == (False, "MCP server honest: it did not answer within 0.3 s")
    assert time.monotonic() - began < 2


def test_eight_threads_call_one_server(servers: MCPServers) -> None:
    add = tool(servers, "honest__add")
    results: dict[int, str] = {}
    threads = [threading.Thread(target=lambda n=n: results.update({n: add.invoke({"a": n, "b": 1}).text})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == {n: str(n + 1) for n in range(8)}


def test_it_sees_of_our_environment_only_what_it_needs(servers: MCPServers) -> None:
    seen = tool(servers, "honest__environment").invoke({}).data
    assert seen.keys() <= {"PATH", "HOME", "LANG", "TMPDIR", "TOKEN", "LC_CTYPE", "PWD", "SHLVL", "_"}
    assert seen["TOKEN"] == "t0p"
    assert os.environ.keys() - seen.keys(), "there was something to keep back"


def test_what_it_writes_to_its_log_is_kept_and_not_shown(servers: MCPServers, capfd: pytest.CaptureFixture[str]) -> None:
    tool(servers, "honest__refuse").invoke({"why": "quiet"})
    assert "hello from the log" in servers.log("honest")
    assert servers.log("nobody") == ""
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_new_tool_is_offered_once_the_server_says_so(tmp_path: Path) -> None:
    events: list[MCPEvent] = []
    with MCPServers([honest(tmp_path, allow=("gr*",))], on_event=events.append) as servers:
        assert [t.name for t in servers.tools()] == ["honest__grow"]
        assert tool(servers, "honest__grow").invoke({}).text == "grown"
        deadline = time.monotonic() + 5
        while not any(event.kind == "tools" for event in events) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [t.name for t in servers.tools()] == ["honest__grow", "honest__grown"]
        assert tool(servers, "honest__grown").invoke({}).text == "new"
    assert [event.kind for event in events] == ["connected", "tools"]


@pytest.mark.slow
def test_over_http_it_is_the_same_with_headers_and_after_a_restart(tmp_path: Path) -> None:
    with honest_http(tmp_path) as (url, first):
        config = ServerConfig("web", url=url, headers={"X-Key": "s3cret"}, connect_timeout=5)
        with MCPServers([config]) as servers:
            assert servers.errors == {}
            assert tool(servers, "web__add").invoke({"a": 20, "b": 3}).text == "23"
            assert tool(servers, "web__header").invoke({"name": "x-key"}).text == "s3cret"
            lines: list[str] = []
            assert tool(servers, "web__count").invoke({"to": 2}, ToolContext(progress=lines.append)).ok
            assert lines == ["step 1 (1/2)", "step 2 (2/2)"]
            first.kill()
            first.wait()
            result = tool(servers, "web__add").invoke({"a": 1})
            assert not result.ok
            assert result.text.startswith("MCP server web: ")
            with honest_http(tmp_path, port=int(url.split(":")[2].split("/")[0])):
                deadline = time.monotonic() + 8
                while not (result := tool(servers, "web__add").invoke({"a": 1})).ok and time.monotonic() < deadline:
                    time.sleep(0.1)
                assert result.text == "2", "a later call connects again"


@pytest.mark.slow
def test_two_servers_with_the_same_tool_do_not_meet_and_closing_ends_both(tmp_path: Path) -> None:
    pids = "def call(id, name, arguments, meta):\n    reply(id, text(str(os.getpid())))\n"
    with MCPServers([raw(tmp_path, pids, "one"), raw(tmp_path, pids, "two")]) as servers:
        running = {t.name: int(t.invoke({}).text) for t in servers.tools()}
        assert running.keys() == {"one__go", "two__go"}
        one = tool(servers, "one__go")
    assert not any(Path(f"/proc/{pid}").exists() for pid in running.values())
    assert one.invoke({}).text == "the MCP servers were closed"
    servers.close()


def test_a_name_is_given_once() -> None:
    with pytest.raises(MCPError, match="two MCP servers are called a"):
        MCPServers([ServerConfig("a", command=("x",)), ServerConfig("a", url="http://x/")])


def test_without_the_package_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['mcp'] = None\n"
        "from agent.tools.mcp.servers import MCPServers, ServerConfig\n"
        "MCPServers([])\n"
        "try: MCPServers(list(ServerConfig.parse('a=b')))\n"
        "except Exception as e: print(type(e).__name__, e)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert ended.stdout == "MCPError MCP servers need a package: pip install '.[mcp]' in the checkout of Sprig\n"


def test_the_package_is_loaded_only_for_a_server() -> None:
    code = "import sys, agent.tools.mcp.servers; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, timeout=60)
    assert not set(ended.stdout.split()) & {"mcp", "pydantic", "httpx2", "anyio"}
