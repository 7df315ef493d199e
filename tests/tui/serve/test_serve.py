"""A person opens the chat in a browser: who gets in, what the page may do, and what is left when it is over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.paths import ROOT

pytest.importorskip("textual_serve", reason="the serve extra is not installed")

import aiohttp
from aiohttp import WSMsgType, web
from textual.app import App

from agent.errors import SprigError
from tests.fixtures.browser import MISSING, Browser, Page, find_chromium
from tui.serve import child as serve_child
from tui.serve.door import Door
from tui.serve.driver import ServedDriver
from tui.serve.gate import TokenGate, check_token, make_token
from tui.serve.place import Close, Place
from tui.serve.server import serve
from tui.serve.web import make_app

pytestmark = pytest.mark.slow
SECONDS = 20.0
TOKEN = "a-token-for-the-tests"
APP = """
import io, os, signal, sys, time
from textual.app import App
from textual.widgets import Input, Label, Static

class Parrot(App):
    CSS = "#said { height: 1fr }"

    def compose(self):
        yield Label(f"pid {os.getpid()}.")
        yield Static("", id="said", markup=False)
        yield Input()

    def on_key(self, event):
        self.query_one("#said").update(f"({event.key})")

    def on_input_submitted(self, event):
        event.input.value = ""
        self.query_one("#said").update(f"<{event.value[::-1]}>")
        match event.value:
            case "copy":
                self.copy_to_clipboard("a leaf")
            case "link":
                self.open_url("https://example.org/leaf")
            case "script":
                self.open_url("javascript:alert(1)")
            case "export":
                self.deliver_text(io.StringIO("# Grüße\\n" * 20000), save_filename="über; \\"uns\\".html", mime_type="text/html")
            case "crash":
                sys.exit("the model is gone")
            case "hang":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(600)
            case "bye":
                self.exit()

Parrot().run()
"""
SERVE = """
import json, sys
from agent.errors import SprigError
from tui.serve.server import serve
try:
    serve([sys.executable, sys.argv[1]], say=lambda line: print(line, flush=True), **json.loads(sys.argv[2]))
except SprigError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def parrot(tmp_path: Path) -> Path:
    path = tmp_path / "parrot; touch 'me' &.py"  # a name that a shell would trip over
    path.write_text(APP)
    return path


async def until(holds: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(SECONDS):
            while not holds():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited in vain: {what}") from None


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


class Tab:
    """A page as the protocol sees it."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws, self.drawn, self.told = ws, b"", list[Any]()

    async def _more(self) -> bool:
        message = await self.ws.receive(timeout=SECONDS)
        if message.type is WSMsgType.BINARY:
            self.drawn += message.data
        elif message.type is WSMsgType.TEXT:
            self.told.append(json.loads(message.data))
        return message.type in {WSMsgType.BINARY, WSMsgType.TEXT}

    async def see(self, pattern: str) -> str:
        while not (found := re.search(pattern, self.drawn.decode("utf-8", "replace"))):
            assert await self._more(), f"closed with {self.ws.close_code} before it showed {pattern}"
        self.drawn = self.drawn[len(found.string[: found.end()].encode()) :]
        return found[0]

    async def pid(self) -> int:
        return int((await self.see(r"pid \d+\."))[4:-1])

    async def hear(self, kind: str) -> Any:
        while not any(message[0] == kind for message in self.told):
            assert await self._more(), f"closed with {self.ws.close_code} before it told {kind}"
        return next(message[1] for message in self.told if message[0] == kind)

    async def submit(self, text: str) -> None:
        await self.ws.send_json(["stdin", text + "\r"])

    async def goodbye(self) -> int | None:
        while await self._more():
            pass
        return self.ws.close_code


@dataclass
class Site:
    """A running server and a browser's worth of cookies."""

    url: str
    http: aiohttp.ClientSession
    process: asyncio.subprocess.Process | None = None

    @property
    def origin(self) -> str:
        return "http://" + urlsplit(self.url).netloc

    def get(self, path: str, **options: Any) -> Any:
        return self.http.get(self.origin + path, allow_redirects=False, **options)

    async def enter(self) -> None:
        async with self.http.get(self.url) as answer:
            assert answer.status == 200

    async def tab(self, **options: Any) -> Tab:
        given: dict[str, Any] = {"origin": self.origin, **options}
        return Tab(await self.http.ws_connect(self.origin + "/ws?width=60&height=20", **given))


@contextlib.asynccontextmanager
async def served(app: Path, **options: Any) -> AsyncIterator[Site]:
    """The real thing: `serve` in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, str(app), json.dumps({"port": 0, **options}), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), SECONDS)).decode()
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
            yield Site(line.split()[1], http, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def here(command: list[str], said: list[str] | None = None, **waits: float) -> AsyncIterator[Site]:
    """The same server in this process, with waits of its own."""
    place = Place(command, (said if said is not None else []).append, **waits)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        door = Door()
        runner = web.AppRunner(make_app(place, TokenGate(TOKEN, "127.0.0.1", port), door), shutdown_timeout=1.0)
        await runner.setup()
        assert runner.server is not None
        listener.setblocking(False)
        await door.open(runner.server, listener)
        try:
            async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
                yield Site(f"http://127.0.0.1:{port}/?token={TOKEN}", http)
        finally:
            door.close()
            await place.close()
            await runner.cleanup()


async def test_nothing_is_shown_without_the_token_and_the_token_does_not_stay_in_the_address(parrot: Path) -> None:
    async with served(parrot) as site:
        for path in ("/", "/static/page.js", "/static/none", "/download/0", "/ws", "/?token=", "/?token=wrong", "/?token=%FF%00"):
            async with site.get(path) as answer:
                assert answer.status == 403, path
                assert (await answer.text()).count("\n") == 1
        async with site.get(f"/static/page.js?{urlsplit(site.url).query}") as answer:
            assert answer.status == 403  # the token opens the front door only

        async with site.http.get(site.url + "&reader=1", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "./?reader=1")
            cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        async with site.http.get(site.url) as answer:
            assert (answer.status, str(answer.url)) == (200, site.origin + "/")
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"
            assert "default-src 'none'; script-src 'self';" in answer.headers["Content-Security-Policy"]
        async with site.get("/static/terminal.js") as answer:
            assert answer.status == 200
        for path in ("/static/", "/static/..%2fserve.py", "/static/%2e%2e/serve.py", "/nowhere", "/download/0"):
            async with site.get(path) as answer:
                assert answer.status == 404, path


async def test_pages_of_other_sites_get_neither_the_page_nor_the_socket(parrot: Path) -> None:
    async with served(parrot) as site:
        await site.enter()
        port = urlsplit(site.url).port
        for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", "", "[", "192.168.1.9"):
            async with site.get("/", headers={"Host": host}) as answer:
                assert answer.status in {400, 403}, host
        async with site.get("/", headers={"Host": f"localhost:{port}"}) as answer:
            assert answer.status == 200
        for origin in ("http://evil.example", f"http://127.0.0.1:{port + 1 if port else 1}", "null", ""):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await site.tab(origin=origin)


async def test_a_second_tab_takes_the_running_app_over_and_the_first_is_told(parrot: Path) -> None:
    async with served(parrot) as site:
        await site.enter()
        first = await site.tab()
        pid = await first.pid()
        await first.submit("hello")
        await first.see("<olleh>")
        second = await site.tab()
        assert await first.goodbye() == Close.TAKEN_OVER
        assert await second.pid() == pid
        await second.see("<olleh>")
        await second.submit("again")
        await second.see("<niaga>")


async def test_the_app_outlives_a_lost_connection_for_a_while_and_ends_soon_after_a_closed_one(parrot: Path) -> None:
    async with here([sys.executable, str(parrot)], closed_s=0.1, lost_s=30.0) as site:
        await site.enter()
        tab = await site.tab()
        pid = await tab.pid()
        transport = tab.ws._response.connection.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.abort()
        tab = await site.tab()
        assert await tab.pid() == pid
        await tab.submit("still")
        await tab.see("<llits>")
        await tab.ws.close(code=1001)  # what a browser says when its tab is closed
        await until(lambda: not alive(pid), "the app ends when its tab is closed")
        assert await (await site.tab()).pid() != pid
    async with here([sys.executable, str(parrot)], lost_s=0.1) as site:
        await site.enter()
        tab = await site.tab()
        pid = await tab.pid()
        tab.ws._response.connection.transport.abort()  # type: ignore[union-attr]
        await until(lambda: not alive(pid), "the app ends when nobody comes back")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
async def test_nothing_runs_when_the_server_is_gone(parrot: Path, number: signal.Signals) -> None:
    async with served(parrot) as site:
        await site.enter()
        tab = await site.tab()
        pid = await tab.pid()
        assert site.process is not None
        goodbye = asyncio.create_task(tab.goodbye())  # a browser listens all the time
        site.process.send_signal(number)
        status = await asyncio.wait_for(site.process.wait(), SECONDS)
        if number is signal.SIGKILL:
            await until(lambda: not alive(pid), "the kernel tells the app")
            await goodbye
        else:
            assert status == 0
            assert not alive(pid)
            assert await goodbye == Close.STOPPED


async def test_an_app_that_does_not_listen_any_more_is_killed(parrot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_child, "_QUIT_S", 0.2)
    monkeypatch.setattr(serve_child, "_TERM_S", 0.2)
    async with here([sys.executable, str(parrot)], closed_s=0.0) as site:
        await site.enter()
        tab = await site.tab()
        pid = await tab.pid()
        await tab.submit("hang")
        await until(lambda: bool(int(re.findall(r"SigIgn:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[0], 16)
                                 & 1 << signal.SIGTERM - 1), "it hangs")  # fmt: skip
        await tab.ws.close()
        await until(lambda: not alive(pid), "it is killed")


async def test_the_end_of_the_app_is_told_and_a_new_one_can_be_started(parrot: Path) -> None:
    said: list[str] = []
    async with here([sys.executable, str(parrot)], said) as site:
        await site.enter()
        tab = await site.tab()
        await tab.pid()
        await tab.submit("bye")
        assert await tab.goodbye() == Close.ENDED
        assert said == []
        tab = await site.tab()
        await tab.pid()
        await tab.submit("crash")
        assert await tab.goodbye() == Close.FAILED
        assert said == ["the app ended: the model is gone"]
        await (await site.tab()).pid()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["/nowhere/sprig"], "sprig could not be started: No such file or directory"),
        ([sys.executable, "-c", "import sys; sys.exit('sprig: \x1b[31mno model')"], "the app ended: sprig: no model"),
        ([sys.executable, "-c", "import sys; print('x' * 200000); sys.exit(3)"], "the app ended: it ended with status 3"),
        ([sys.executable, "-c", "print('__GANGLION__\\nxyz abcdef'); exit(4)"], "the app ended: it ended with status 4"),
    ],
)  # fmt: skip
async def test_a_program_that_is_no_app_is_a_message_and_not_a_hanging_page(command: list[str], reason: str) -> None:
    said: list[str] = []
    async with here(command, said) as site:
        await site.enter()
        assert await (await site.tab()).goodbye() == Close.FAILED
        assert said == [reason]


async def test_an_export_is_downloaded_once_and_never_shown_as_a_page_of_ours(parrot: Path) -> None:
    async with served(parrot) as site:
        await site.enter()
        tab = await site.tab()
        await tab.pid()
        await tab.submit("export")
        key = await tab.hear("deliver_file_start")
        async with aiohttp.ClientSession() as stranger, stranger.get(f"{site.origin}/download/{key}") as answer:
            assert answer.status == 403
        async with site.get(f"/download/{key}") as answer:
            assert answer.status == 200
            assert await answer.text() == "# Grüße\n" * 20000
            assert answer.headers["Content-Disposition"].startswith('attachment; filename="_ber_ _uns_.html"; filename*=UTF-8')
            assert "sandbox" in answer.headers["Content-Security-Policy"]
        async with site.get(f"/download/{key}") as answer:
            assert answer.status == 404


async def test_packets_of_two_threads_do_not_run_into_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app draws in one thread and hands out files in another, and a packet is more than the pipe takes in one go."""
    reading, writing = os.pipe()
    with open(writing, "w") as output, open(reading, "rb") as stream:
        monkeypatch.setattr(sys, "__stdout__", output)
        monkeypatch.setattr(sys, "__stdin__", stream)  # a driver must find one that can be waited for
        driver = ServedDriver(App())
        halves = [[letter * 100_000] * 20 for letter in "ab"]
        threads = [threading.Thread(target=lambda half=half: [*map(driver.write, half)]) for half in halves]
        for thread in threads:
            thread.start()
        data = stream.read(2 * 20 * (5 + 100_000))
        for thread in threads:
            thread.join()
    packets = [data[at : at + 100_005] for at in range(0, len(data), 100_005)]
    assert sorted(packets) == [b"D" + (100_000).to_bytes(4, "big") + text.encode() for half in halves for text in half]


async def test_what_is_no_message_is_ignored_and_what_is_no_link_is_not_offered(parrot: Path) -> None:
    async with here([sys.executable, str(parrot)]) as site:
        await site.enter()
        tab = await site.tab()
        await tab.pid()
        for text in ("", "{", "[]", "[1]", '["stdin"]', '["stdin", 7]', '["resize", {}]',
                     '["resize", {"width": "x", "height": 1}]',
                     '["resize", {"width": -5, "height": 1e99}]', '["quit"]', '["exit", null]', "[" * 100_000):  # fmt: skip
            await tab.ws.send_str(text)
        await tab.ws.send_bytes(b"M\0\0\0\x0f" + b'{"type":"quit"}')
        await tab.submit("script")
        await tab.see("<tpircs>")
        await tab.submit("link")
        assert await tab.hear("open_url") == "https://example.org/leaf"
        assert [value for kind, value in tab.told if kind == "open_url"] == ["https://example.org/leaf"]


async def test_it_works_over_ipv6_and_without_a_token_on_loopback(parrot: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with served(parrot, host="::1", token=None) as site:
        assert re.fullmatch(r"http://\[::1\]:\d+/", site.url)
        await site.enter()
        await (await site.tab()).pid()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"token": None, "host": "0.0.0.0"}, "without a token, everyone who reaches 0.0.0.0 could use this machine"),
        ({"token": None, "host": ""}, "without a token, everyone"),
        ({"token": "1234"}, "the token must be 16 to 200"),
        ({"host": "203.0.113.77"}, "'203.0.113.77' is not an address of this machine"),
        ({"host": "no.such.name.invalid"}, "'no.such.name.invalid' is not an address of this machine"),
        ({"port": 70000}, "there is no port 70000"),
    ],
)
def test_what_cannot_be_served_is_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(SprigError) as caught:
        serve(["true"], say=lambda _: None, **{"port": 0, **options})
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_port_in_use_and_a_missing_extra_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SprigError, match=f"^127.0.0.1 port {port} is in use by another program; name another one"):
            serve(["true"], port=port, say=lambda _: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SprigError, match=r"pip install '\.\[serve\]' in the checkout"):
        serve(["true"], port=0, say=lambda _: None)


@pytest.mark.parametrize(
    ("gate", "good", "bad"),
    [
        (TokenGate(TOKEN, "127.0.0.1", 1), ["127.0.0.1:1", "localhost", "LOCALHOST.:9", "[::1]:1"], ["a.example", "10.0.0.1"]),
        (TokenGate(TOKEN, "192.168.1.5", 1), ["192.168.1.5:1"], ["192.168.1.6", "localhost", "a.example:1"]),
        (TokenGate(TOKEN, "fd00::5", 1), ["[fd00::5]:1"], ["[fd00::6]:1", "localhost"]),
        (TokenGate(TOKEN, "0.0.0.0", 1), ["10.0.0.5", "[fd00::5]:8", "localhost", f"{socket.gethostname()}.local"], ["1.2.3.a"]),
    ],
)  # fmt: skip
def test_a_server_answers_to_its_own_names_only(gate: TokenGate, good: list[str], bad: list[str]) -> None:
    assert [name for name in good if not gate.serves(name)] == []
    assert [name for name in [*bad, "", None, "a b", "[", "://", "@127.0.0.1.example"] if gate.serves(name)] == []


def test_a_page_of_another_name_is_not_ours() -> None:
    gate = TokenGate(TOKEN, "127.0.0.1", 8420)
    assert gate.same_origin("http://127.0.0.1:8420", "127.0.0.1:8420")
    assert not gate.same_origin("http://pi.example", "127.0.0.1:8420")
    assert not gate.same_origin("http://127.0.0.1:8420.evil.example", "127.0.0.1:8420")


@given(st.text(), st.text())
def test_no_header_makes_the_gate_fall_over_or_open(first: str, second: str) -> None:
    gate = TokenGate(make_token(), "127.0.0.1", 8420)
    gate.serves(first)
    assert not gate.knows(first)
    assert not gate.admits({gate.cookie: first})
    assert not gate.same_origin(first, second) or first.lower().endswith(f"//{second}".lower())
    assert TokenGate(check_token("0123456789abcdef"), "127.0.0.1", 1).knows("0123456789abcdef")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if find_chromium() is None:
        pytest.skip(MISSING)
    async with Browser() as running:
        yield running


NOTICE = "document.getElementById('notice').hidden ? '' : document.getElementById('notice-text').textContent"


async def shows(page: Page, notice: str) -> None:
    await page.wait_for(f"({NOTICE}).includes({notice!r})", f"the notice {notice!r}")


async def test_a_person_types_in_the_browser_and_reads_the_answer(parrot: Path, browser: Browser) -> None:
    async with served(parrot) as site:
        page = await browser.page()
        await page.open(site.url + "&reader=1")
        await page.wait_for_text("pid ")
        await page.type("hello leaf")
        await page.enter()
        await page.wait_for_text("<fael olleh>")
        assert await page.evaluate("location.href") == site.origin + "/?reader=1"
        assert await page.evaluate("document.title") == "Sprig"
        assert await page.evaluate("document.fonts.check(\"16px 'Roboto Mono'\")")

        await page.call("Page.reload")
        await page.wait_for_text("<fael olleh>")  # the same app, drawn again
        await page.type("export")
        await page.enter()
        await until(lambda: any(browser.downloads.glob("*.html")), "the file is downloaded")

        await page.type("link")
        await page.enter()
        await page.wait_for("!document.getElementById('ask').hidden", "it asks before it opens a link")
        assert "https://example.org/leaf" in await page.evaluate("document.getElementById('ask-text').textContent")
        await page.click("#ask-no")
        await page.type("bye")
        await page.enter()
        await shows(page, "The chat has ended")
        await page.click("#again")
        await page.wait_for_text("pid ")
        assert page.problems == []
        assert {urlsplit(url).netloc for url in page.urls if not url.startswith("data:")} == {urlsplit(site.url).netloc}


async def test_on_a_phone_it_has_forty_columns_and_the_keys_that_its_keyboard_lacks(parrot: Path, browser: Browser) -> None:
    async with served(parrot) as site:
        page = await browser.page()
        await page.phone(360, 640)
        await page.open(site.url + "&reader=1")
        await page.wait_for_text("pid ")
        assert 40 <= max(map(len, (await page.screen()).split("\n"))) <= 60
        assert await page.evaluate("document.documentElement.scrollWidth") == 360
        await page.click("#keys [data-key='\x1b[D']")
        await page.wait_for_text("(left)")
        await page.click("#control")
        await page.type("b")
        await page.wait_for_text("(ctrl+b)")
        await page.type("ab")  # Ctrl held for one letter, and the terminal kept the focus
        await page.enter()
        await page.wait_for_text("<ba>")


async def test_the_page_says_when_the_connection_is_lost_and_comes_back_by_a_button(parrot: Path, browser: Browser) -> None:
    async with served(parrot, token=TOKEN) as site:
        port = urlsplit(site.url).port
        page = await browser.page()
        await page.open(site.url + "&reader=1")
        await page.wait_for_text("pid ")
        old = (await page.screen()).split()[1]  # its number
        assert site.process is not None
        os.kill(site.process.pid, signal.SIGKILL)
        await shows(page, "The connection is lost")
        await site.process.wait()
        await page.click("#again")
        await shows(page, "Sprig does not answer")
        async with served(parrot, token=TOKEN, port=port):
            await page.click("#again")
            await page.wait_for_other_text("pid ", f"pid {old}")
            await page.type("back")
            await page.enter()
            await page.wait_for_text("<kcab>")


async def test_sprig_chat_is_served_with_the_models_that_are_there(tmp_path: Path, browser: Browser) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sprig", "chat", "--serve", "--port", "0", cwd=ROOT,
        env={**os.environ, "SPRIG_HOME": str(tmp_path)}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), SECONDS)).decode()
        page = await browser.page()
        await page.open(line.split()[1] + "&reader=1")
        await page.wait_for_text("Which model?")
        await page.type("no such model")
        await page.wait_for_text("no such model")
        assert page.problems == []
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0
