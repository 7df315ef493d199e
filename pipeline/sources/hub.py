"""HTTP with the Hugging Face Hub: one pinned listing, byte ranges that survive a cut, and errors in one line.

huggingface_hub builds the requests (session, token, user agent, URLs). What it does not promise, Sprig does itself: a
transfer goes on at the byte where it was cut, every wait is bounded, a Range answer is checked before it is believed.
HTTP API: https://huggingface.co/docs/hub/api; ranges: RFC 9110, section 14.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, constants, get_session, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import build_hf_headers, parse_ratelimit_headers  # type: ignore[attr-defined]

from agent.errors import BrokenOffError, SourceError
from agent.text.secrets import keep_secret

log = logging.getLogger(__name__)

RETRIES = 4  # failures in a row, without progress between them, before a transfer is given up
BACKOFF_SECONDS = 0.5  # first pause; it doubles each time
LONGEST_WAIT_SECONDS = 90.0  # a server that asks for more is not waited for
PROGRESS_BYTES = 64 * 1024  # an attempt that brought this much was not a failure
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
STALL_SECONDS, STALL_BYTES = 60.0, 64 * 1024  # slower than this is a cut, so that a trickle cannot hold a run for ever

_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_HOPELESS = (httpx2.TooManyRedirects, httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_ONE_LINE = 300
T = TypeVar("T")
Chunks = Generator[bytes, None, None]


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file as the Hub lists it.

    Attributes:
        name: path within the repository.
        size: bytes.
        sha256: of the content, for a file in Git LFS or Xet.
        blob_id: git's SHA-1 of the blob, for a small file that is in git itself.
    """

    name: str
    size: int
    sha256: str | None
    blob_id: str | None

    @property
    def etag(self) -> str | None:
        """The name of its blob in Hugging Face's cache."""
        return self.sha256 or self.blob_id


def current_endpoint() -> str:
    """Where the Hub is: HF_ENDPOINT as it is now, or huggingface_hub's default."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set now."""
    asked = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return asked.upper() in _TRUE or constants.is_offline_mode()


def one_line(text: object) -> str:
    """Somebody else's message as one short printable line."""
    words = " ".join(str(text).split())
    return "".join(c if c.isprintable() else "?" for c in words)[:_ONE_LINE]


class Patience:
    """How often one transfer may fail, and how long it may be waited for."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._failures = 0
        self._waited = 0.0
        self._gained = 0
        self._since, self._gained_since = time.monotonic(), 0

    def progress(self, nbytes: int) -> None:
        """Count what came. Raises httpx2.ReadTimeout when it comes too slowly."""
        self._gained += nbytes
        if self._gained >= PROGRESS_BYTES:
            self._failures, self._waited = 0, 0.0
        self._gained_since += nbytes
        now = time.monotonic()
        if now - self._since >= STALL_SECONDS:
            slow = self._gained_since < STALL_BYTES
            self._since, self._gained_since = now, 0
            if slow:
                raise httpx2.ReadTimeout(f"less than {STALL_BYTES} bytes in {STALL_SECONDS:.0f} seconds")

    def wait(self, reason: str, asked: float | None = None) -> None:
        """Pause before the next attempt, as long as the server ``asked``; SourceError when enough was tried."""
        self._failures += 1
        self._gained = 0
        pause = asked if asked is not None else BACKOFF_SECONDS * 2 ** (self._failures - 1)
        if self._failures > RETRIES:
            raise BrokenOffError(f"{self._what}: {reason} ({self._failures} times); try again later")
        if self._waited + pause > LONGEST_WAIT_SECONDS:
            raise BrokenOffError(f"{self._what}: {reason}; the server asks to wait {pause:.0f} seconds; try again then")
        self._waited += pause
        log.warning("Hub: %s; try %d begins in %.1f s", reason, self._failures + 1, pause)
        time.sleep(pause)
        self._since, self._gained_since = time.monotonic(), 0


@dataclass(frozen=True, slots=True)
class Hub:
    """One model repository on one Hub. Holds no connection of its own: huggingface_hub's session pools them."""

    repo_id: str
    endpoint: str
    token: str | None = field(default=None, repr=False)

    def listing(self, revision: str | None) -> tuple[str, list[WeightFile]]:
        """The commit that ``revision`` (branch, tag or commit; None for the default branch) is now, and its files.

        Raises:
            SourceError: no such repository or revision, no access, or the Hub cannot be reached.
        """
        api = HfApi(endpoint=self.endpoint, token=self.token)

        def ask() -> tuple[str, list[WeightFile]]:
            info = api.model_info(self.repo_id, revision=revision, files_metadata=True, timeout=READ_SECONDS)
            files = [
                WeightFile(
                    name=s.rfilename,
                    size=s.lfs.size if s.lfs else s.size or 0,
                    sha256=s.lfs.sha256 if s.lfs else None,
                    blob_id=s.blob_id,
                )
                for s in info.siblings or []
            ]
            return info.sha or "", files

        commit, files = self._patiently(ask, revision)
        if not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise SourceError(f"{self.endpoint} names no commit for {self.repo_id}, as a Hub would; check HF_ENDPOINT")
        log.info("Hub: %s at %s has %d files", self.repo_id, commit, len(files))
        return commit, files

    def chunks(self, commit: str, file: WeightFile, start: int = 0, stop: int | None = None) -> Chunks:
        """Bytes [start, stop) of a file, in pieces as they come. A cut connection is taken up again at the next byte.

        Raises:
            SourceError: refused, or failed too often. What was yielded before is good.
        """
        stop = file.size if stop is None else stop
        url = hf_hub_url(self.repo_id, file.name, revision=commit, endpoint=self.endpoint)
        patience = Patience(f"cannot read {file.name} of {self.repo_id} from {self.endpoint}")
        position = start
        while position < stop:
            try:
                headers = self._headers(position, stop, file.size)
                timeout = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
                with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
                    asked = f"{self.repo_id}/{file.name}"
                    log.info("Hub: GET %s from byte %d to %d: %d", asked, position, stop, response.status_code)
                    if response.status_code in _RETRIED:
                        patience.wait(f"the Hub answers {response.status_code}", _asked_wait(response.headers))
                        continue
                    if response.status_code not in (200, 206):
                        raise self._refused(response.status_code, response.headers, commit, file.name)
                    for chunk in _body(response, position, stop, file.size):
                        position += len(chunk)
                        yield chunk
                        patience.progress(len(chunk))
                if position < stop:
                    patience.wait(f"the connection was cut at byte {position} of {file.size}")
            except OfflineModeIsEnabled:
                raise SourceError(f"{file.name} of {self.repo_id} lies on the Hub; unset HF_HUB_OFFLINE") from None
            except _HOPELESS as e:
                raise SourceError(f"cannot read {file.name} of {self.repo_id}: {one_line(e)}; check HF_ENDPOINT") from None
            except (httpx2.TransportError, httpx2.StreamError) as e:
                patience.wait(one_line(e) or type(e).__name__)

    def read(self, commit: str, file: WeightFile, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes [start, stop) of a file. Raises SourceError."""
        return b"".join(self.chunks(commit, file, start, stop))

    def _headers(self, start: int, stop: int, size: int) -> dict[str, str]:
        headers = {**self._own_headers(), "Accept-Encoding": "identity"}
        if start or stop < size:
            headers["Range"] = f"bytes={start}-{stop - 1}"
        return headers

    def _own_headers(self) -> dict[str, str]:
        headers: dict[str, str] = build_hf_headers(token=self.token, library_name="sprig")
        said = headers.get("authorization", "")
        keep_secret(said.removeprefix("Bearer "))
        if not (said.isascii() and said.isprintable() and said == said.strip()):  # httpx would quote it in its error
            raise SourceError("the token for the Hub holds characters that no token has; set HF_TOKEN anew")
        return headers

    def _patiently(self, ask: Callable[[], T], revision: str | None) -> T:
        patience = Patience(f"cannot look up {self.repo_id} on {self.endpoint}")
        self._own_headers()
        while True:
            try:
                return ask()
            except HFValidationError as e:
                raise SourceError(f"{self.repo_id!r} cannot be a model on the Hub: {one_line(e)}") from None
            except OfflineModeIsEnabled:
                raise SourceError(f"{self.repo_id} must be looked up on the Hub; unset HF_HUB_OFFLINE") from None
            except HfHubHTTPError as e:
                status = e.response.status_code
                if status not in _RETRIED:
                    raise self._refused(status, e.response.headers, revision, None) from None
                patience.wait(f"the Hub answers {status}", _asked_wait(e.response.headers))
            except _HOPELESS as e:
                raise SourceError(f"cannot look up {self.repo_id}: {one_line(e)}; check HF_ENDPOINT") from None
            except httpx2.HTTPError as e:
                patience.wait(one_line(e) or type(e).__name__)
            except (ValueError, KeyError, TypeError, AttributeError) as e:
                what = f"{self.endpoint} does not answer like a Hub when asked for {self.repo_id}"
                raise SourceError(f"{what} ({one_line(e)}); check HF_ENDPOINT") from None

    def _refused(self, status: int, headers: Mapping[str, str], revision: str | None, file: str | None) -> SourceError:
        """What an answer that no retry will change means for a person."""
        repo, page = self.repo_id, f"{self.endpoint}/{self.repo_id}"
        code, words = headers.get("X-Error-Code"), one_line(headers.get("X-Error-Message") or "")
        if code == "GatedRepo":
            why = f"{repo} is gated: accept the licence at {page} and set HF_TOKEN to a token of that account"
        elif status == 401 and words.startswith("Invalid credentials"):
            why = f"the Hub does not accept the token: set HF_TOKEN to a valid one from {self.endpoint}/settings/tokens"
        elif code == "RevisionNotFound":
            why = f"{repo} has no revision {revision or 'main'!r}: see its branches and tags at {page}"
        elif code == "EntryNotFound":
            why = f"{repo} has no file {file!r} at revision {revision!r}: see {page}/tree/{revision}"
        elif status in (401, 404) or code == "RepoNotFound":
            why = f"there is no model {repo} at {self.endpoint}, or it is private: check the name, or set HF_TOKEN"
        elif status == 403:
            why = f"the Hub forbids access to {repo} (403): accept its terms at {page}, or use another HF_TOKEN"
        else:
            why = f"the Hub answers {status} for {file or repo} ({words or 'it says no more'}): see {page}"
        return SourceError(why)


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: Retry-After, or the Hub's own RateLimit header."""
    value = (headers.get("Retry-After") or "").strip()
    if value.isdigit():
        return float(value)
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None


def _body(response: httpx2.Response, start: int, stop: int, size: int) -> Iterator[bytes]:
    """Bytes [start, stop) out of an answer that may hold just them (206) or the whole file (200).

    Raises httpx2.RemoteProtocolError for an answer that is about other bytes than were asked for.
    """
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise httpx2.RemoteProtocolError("the server compressed what was asked for as it is")
    position = 0
    if response.status_code == 206:
        given = response.headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(given)
        if match is None or int(match[1]) != start or match[3] not in ("*", str(size)):
            sent = one_line(given) or "no Content-Range"
            raise httpx2.RemoteProtocolError(f"asked for bytes from {start} of {size}, the server sends {sent}")
        position = start
    elif (length := response.headers.get("Content-Length")) is not None and length != str(size):
        raise httpx2.RemoteProtocolError(f"the file should have {size} bytes, the server sends {one_line(length)}")
    for chunk in response.iter_raw():
        begin = max(start - position, 0)
        end = stop - position
        position += len(chunk)
        if wanted := chunk[begin:end]:
            yield wanted
        if position >= stop:
            return
