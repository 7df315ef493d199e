"""The HTTP side of the served app: four paths, each behind the gate, and the headers that a browser needs to protect it.

Of textual-serve this uses the browser half (xterm.js in one file, its style, a font). Its server is not used: it splices the
command into a shell line, lets everyone in, lists its folder, and its page loads a font from another host.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote, urlencode

from aiohttp import WSMsgType, web
from aiohttp.typedefs import Handler, Middleware

from tui.serve.door import Door
from tui.serve.gate import TokenGate
from tui.serve.place import Download, Place, Viewer, cells

_HEARTBEAT_S = 15.0  # a page that has not answered for half as long again is lost
_MESSAGE_BYTES = 1 << 22  # a paste, at most
_HERE = Path(__file__).parent
_HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # An app may write to the clipboard. Whatever else a terminal can ask for is denied.
    "Permissions-Policy": "clipboard-read=(), camera=(), microphone=(), geolocation=()",
}
# xterm.js writes style elements of its own; scripts are ours alone. 'self' does not cover sockets in older Safaris.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; img-src 'self' data:; "
    "connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_CLOSED_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
_MIME = re.compile(r"[a-z]+/[A-Za-z0-9.+-]+")


def make_app(place: Place, gate: TokenGate, door: Door) -> web.Application:
    """The web application that shows ``place`` to those whom ``gate`` admits; ``door`` is told of them."""
    statics = _statics()
    page = (_HERE / "page.html").read_text(encoding="utf-8")

    async def index(request: web.Request) -> web.Response:
        policy = _POLICY.format(host=request.host)  # the gate has let this name through
        return web.Response(text=page, content_type="text/html", headers={"Content-Security-Policy": policy})

    async def static(request: web.Request) -> web.StreamResponse:
        path = statics.get(request.match_info["name"])
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path, headers={"Cache-Control": "private, no-cache"})

    async def download(request: web.Request) -> web.StreamResponse:
        wanted = place.take_download(request.match_info["key"])
        if wanted is None:
            raise web.HTTPNotFound(text="404: this file was handed out already, or its chat has ended")
        return await _hand_out(request, wanted, place.read(wanted))

    async def socket(request: web.Request) -> web.StreamResponse:
        if not gate.same_origin(request.headers.get("Origin"), request.host):
            return _refuse("403: another page may not open this socket")
        return await _watch(request, place)

    app = web.Application(middlewares=[_guard(gate, door)])
    app.on_response_prepare.append(_add_headers)
    app.router.add_get("/", index)
    app.router.add_get("/static/{name}", static)
    app.router.add_get("/download/{key}", download)
    app.router.add_get("/ws", socket)
    return app


def _statics() -> dict[str, Path]:
    theirs = Path(str(files("textual_serve"))) / "static"
    return {
        "page.js": _HERE / "page.js",
        "page.css": _HERE / "page.css",
        "terminal.js": theirs / "js" / "textual.js",
        "terminal.css": theirs / "css" / "xterm.css",
        "font.ttf": theirs / "fonts" / "RobotoMono-VariableFont_wght.ttf",
        "font-italic.ttf": theirs / "fonts" / "RobotoMono-Italic-VariableFont_wght.ttf",
    }


def _guard(gate: TokenGate, door: Door) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not gate.serves(request.headers.get("Host")):
            return _refuse("403: this server is not known under that name")
        entering = request.path == "/" and "token" in request.query
        if entering and gate.token is not None and gate.knows(request.query["token"]):
            return _enter(request, gate)
        if not gate.admits(request.cookies):
            return _refuse("403: open the address that sprig printed when it started; it ends in ?token=...")
        if not door.admit(request.transport):
            return _refuse("503: too many connections are open", 503)
        return _without_token(request) if entering else await handler(request)

    return guard


def _enter(request: web.Request, gate: TokenGate) -> web.Response:
    """Trade the token for a cookie, and get it out of the address, which is shown, kept and shared."""
    response = _without_token(request)
    assert gate.token is not None
    response.set_cookie(gate.cookie, gate.token, path="/", httponly=True, samesite="Strict")
    return response


def _without_token(request: web.Request) -> web.Response:
    rest = urlencode([(name, value) for name, value in request.query.items() if name != "token"])
    return web.Response(status=303, headers={"Location": f"./?{rest}" if rest else "./"})


def _refuse(line: str, status: int = 403) -> web.Response:
    return web.Response(status=status, text=f"{line}\n")


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("Content-Security-Policy", _CLOSED_POLICY)


async def _watch(request: web.Request, place: Place) -> web.StreamResponse:
    """Serve one page's socket until it goes, or is sent away."""
    socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, max_msg_size=_MESSAGE_BYTES)
    await socket.prepare(request)
    transport = request.transport
    viewer = Viewer(socket, transport.abort if transport is not None else lambda: None)
    try:
        await place.attach(viewer, _size(request, "width", 80), _size(request, "height", 24))
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await place.receive(viewer, message.data)
    finally:
        place.detach(viewer, closed=socket.close_code in (1000, 1001))
    return socket


def _size(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    return cells(int(text)) if re.fullmatch(r"[0-9]{1,5}", text) else default


async def _hand_out(request: web.Request, download: Download, chunks: AsyncIterator[bytes]) -> web.StreamResponse:
    """Send a file of the app. Always as a file to keep: shown inline, it would act in this page's name."""
    response = web.StreamResponse()
    known = _MIME.fullmatch(download.mime_type) is not None
    response.headers["Content-Type"] = download.mime_type if known else "application/octet-stream"
    name = download.file_name or "sprig"
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", name)
    response.headers["Content-Disposition"] = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
    await response.prepare(request)
    try:
        async for chunk in chunks:
            await response.write(chunk)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()  # so that the browser knows that this is not the whole file
        return response
    with contextlib.suppress(ConnectionError):
        await response.write_eof()
    return response
