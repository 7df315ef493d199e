"""A process that a script forks off: what belongs to its parent gives it one error, and its end ends nothing there."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.sessions.store import Store
from agent.templates.process import RenderJob, TemplateProcess
from agent.tools.mcp.servers import MCPServers
from tests.fixtures.mcp_servers import honest

pytestmark = pytest.mark.usefixtures("home")


def in_a_fork(use: Callable[[], object], leave: Callable[[], None]) -> str:
    """What ``use`` raises in a forked process, which then leaves as Python does, with every ``atexit`` and destructor."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            try:
                use()
                said = "nothing"
            except Exception as e:
                said = f"{type(e).__name__}: {e}"
            os.write(write, said.encode())
            leave()
            gc.collect()
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.slow
def test_a_template() -> None:
    template = TemplateProcess("{{ messages[0].content }}!")
    job = [RenderJob([{"role": "user", "content": "hello"}])]
    try:
        assert template.render(job)[0].text == "hello!"
        said = in_a_fork(lambda: template.render(job), template.close)
        assert said.startswith("TemplateError: the chat template belongs to the process that opened it")
        assert template.render(job)[0].text == "hello!"
    finally:
        template.close()


@pytest.mark.slow
def test_a_store_of_sessions(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        session = store.create(title="first")
        said = in_a_fork(lambda: store.open(session.id), store.close)
        assert said.startswith("SessionError: the store")
        assert said.endswith("s.db was opened by another process; a forked process opens it again")
        assert store.open(session.id).id == session.id


@pytest.mark.slow
def test_mcp_servers(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    from agent.tools.mcp import transport

    with MCPServers([honest(tmp_path)]) as servers:
        add = next(tool for tool in servers.mcp_tools() if tool.remote == "add")
        assert add.call({"a": 2, "b": 3}).ok

        def leave() -> None:
            servers.close()
            transport._end_servers()  # as atexit would

        said = in_a_fork(lambda: fail(add.call({"a": 2, "b": 3}).text), leave)
        assert "the MCP servers belong to the process that started them" in said
        assert add.call({"a": 2, "b": 3}).text == "5"


def fail(text: str) -> None:
    raise RuntimeError(text)
