"""HTTP with the Hugging Face Hub: one pinned listing, byte ranges that survive a cut, and errors in one line.

It is the standard library's HTTP, so that it is there on every device, and one client serves the device and the pipeline. A
transfer goes on at the byte where it was cut, every wait is bounded, a Range answer is checked before it is believed.
HTTP API: https://huggingface.co/docs/hub/api; ranges: RFC 9110, section 14.
"""

from __future__ import annotations

import json
import logging
import re
import ssl
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPException, HTTPResponse, InvalidURL
from typing import Any
from urllib.error import URLError
from urllib.parse import quote

from agent.errors import BrokenOffError, SourceError
from agent.hub.environment import is_offline, saved_token
from agent.hub.request import WrongAddressError, get
from agent.text import one_line
from agent.text.secrets import keep_secret

log = logging.getLogger(__name__)

RETRIES = 4  # failures in a row, without progress between them, before a transfer is given up
BACKOFF_SECONDS = 0.5  # first pause; it doubles each time
LONGEST_WAIT_SECONDS = 90.0  # a server that asks for more is not waited for
PROGRESS_BYTES = 64 * 1024  # an attempt that brought this much was not a failure
READ_SECONDS = 20.0
STALL_SECONDS, STALL_BYTES = 60.0, 64 * 1024  # slower than this is a cut, so that a trickle cannot hold a run for ever
MOST_LISTING_BYTES = 64_000_000  # the largest repositories are listed in a few

_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_HOPELESS = (WrongAddressError, InvalidURL, ValueError)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_REPO_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]{1,96}", re.ASCII)
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
_AGENT = "sprig"
_PIECE = 1 << 16
Chunks = Generator[bytes, None, None]


class _TransferError(Exception):
    """An answer about other bytes than were asked for, or one that comes too slowly: worth another attempt."""


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


class Patience:
    """How often one transfer may fail, and how long it may be waited for."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._failures = 0
        self._waited = 0.0
        self._gained = 0
        self._since, self._gained_since = time.monotonic(), 0

    def progress(self, nbytes: int) -> None:
        """Count what came. Raises _TransferError when it comes too slowly."""
        self._gained += nbytes
        if self._gained >= PROGRESS_BYTES:
            self._failures, self._waited = 0, 0.0
        self._gained_since += nbytes
        now = time.monotonic()
        if now - self._since >= STALL_SECONDS:
            slow = self._gained_since < STALL_BYTES
            self._since, self._gained_since = now, 0
            if slow:
                raise _TransferError(f"less than {STALL_BYTES} bytes in {STALL_SECONDS:.0f} seconds")

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
    """One model repository on one Hub.

    Attributes:
        repo_id: "org/name".
        endpoint: the address of the Hub.
        token: by default the person's own, from HF_TOKEN or a saved login.
    """

    repo_id: str
    endpoint: str
    token: str | None = field(default=None, repr=False)

    def listing(self, revision: str | None) -> tuple[str, list[WeightFile]]:
        """The commit that ``revision`` (branch, tag or commit; None for the default branch) is now, and its files.

        Raises:
            SourceError: no such repository or revision, no access, or the Hub cannot be reached.
        """
        if not _REPO_ID.fullmatch(self.repo_id) or "--" in self.repo_id or ".." in self.repo_id:
            raise SourceError(f"{one_line(repr(self.repo_id))} cannot be a model on the Hub; its name is like org/name")
        there = f"/revision/{quote(revision, safe='')}" if revision else ""
        url = f"{self.endpoint}/api/models/{self.repo_id}{there}?blobs=true"
        raw = self._whole(url, revision)
        try:
            info = json.loads(raw)
            files = [_listed(sibling) for sibling in info["siblings"]] if "siblings" in info else []
            commit = str(info.get("sha") or "")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
            what = f"{self.endpoint} does not answer like a Hub when asked for {self.repo_id}"
            raise SourceError(f"{what} ({one_line(e)}); check HF_ENDPOINT") from None
        if not _SHA1.fullmatch(commit):
            raise SourceError(f"{self.endpoint} names no commit for {self.repo_id}, as a Hub would; check HF_ENDPOINT")
        log.info("Hub: %s at %s has %d files", self.repo_id, commit, len(files))
        return commit, files

    def chunks(self, commit: str, file: WeightFile, start: int = 0, stop: int | None = None) -> Chunks:
        """Bytes [start, stop) of a file, in pieces as they come. A cut connection is taken up again at the next byte.

        Raises:
            SourceError: refused, or failed too often. What was yielded before is good.
        """
        stop = file.size if stop is None else stop
        url = f"{self.endpoint}/{self.repo_id}/resolve/{quote(commit, safe='')}/{quote(file.name)}"
        what = f"cannot read {one_line(file.name)} of {self.repo_id}"
        patience = Patience(f"{what} from {self.endpoint}")
        if is_offline():
            raise SourceError(f"{one_line(file.name)} of {self.repo_id} lies on the Hub; unset HF_HUB_OFFLINE")
        token, position = self._token(), start
        while position < stop:
            headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
            if position or stop < file.size:
                headers["Range"] = f"bytes={position}-{stop - 1}"
            with self._attempt(what, patience), get(url, headers, token, READ_SECONDS) as response:
                asked = f"{self.repo_id}/{file.name}"
                log.info("Hub: GET %s from byte %d to %d: %d", asked, position, stop, response.status)
                if response.status in _RETRIED:
                    patience.wait(f"the Hub answers {response.status}", _asked_wait(response.headers))
                    continue
                if response.status not in (200, 206):
                    raise self._refused(response.status, response.headers, commit, file.name)
                for chunk in _body(response, position, stop, file.size):
                    position += len(chunk)
                    yield chunk
                    patience.progress(len(chunk))
                if position < stop:
                    raise _TransferError(f"the connection was cut at byte {position} of {file.size}")

    def read(self, commit: str, file: WeightFile, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes [start, stop) of a file. Raises SourceError."""
        return b"".join(self.chunks(commit, file, start, stop))

    def _whole(self, url: str, revision: str | None) -> bytes:
        """The answer of the Hub's API at ``url``."""
        what = f"cannot look up {self.repo_id}"
        patience = Patience(f"{what} on {self.endpoint}")
        if is_offline():
            raise SourceError(f"{self.repo_id} must be looked up on the Hub; unset HF_HUB_OFFLINE")
        token = self._token()
        while True:
            headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
            with self._attempt(what, patience), get(url, headers, token, READ_SECONDS) as response:
                if response.status in _RETRIED:
                    patience.wait(f"the Hub answers {response.status}", _asked_wait(response.headers))
                    continue
                if response.status != 200:
                    raise self._refused(response.status, response.headers, revision, None)
                raw = bytearray()
                while chunk := response.read1(_PIECE):
                    raw += chunk
                    if len(raw) > MOST_LISTING_BYTES:
                        raise SourceError(f"{what}: its list of files is larger than {MOST_LISTING_BYTES // 1_000_000} MB")
                    patience.progress(len(chunk))
                if response.length:  # what was announced and did not come
                    raise _TransferError("the connection was cut")
                return bytes(raw)

    def _token(self) -> str | None:
        token = self.token if self.token is not None else saved_token()
        if token is not None:
            keep_secret(token)
            if not (token.isascii() and token.isprintable() and token == token.strip()):  # an error would quote it
                raise SourceError("the token for the Hub holds characters that no token has; set HF_TOKEN anew")
        return token

    @contextmanager
    def _attempt(self, what: str, patience: Patience) -> Iterator[None]:
        """A failure inside is waited out, or becomes one line where no other attempt would help."""
        try:
            yield
        except _HOPELESS as e:
            raise SourceError(f"{what} from {self.endpoint}: {one_line(e)}; check HF_ENDPOINT") from None
        except (_TransferError, HTTPException, OSError) as e:
            reason = e.reason if isinstance(e, URLError) else e
            if isinstance(reason, ssl.SSLCertVerificationError):
                why = one_line(reason.verify_message)
                then = "look at this machine's clock, or set SSL_CERT_FILE to the certificates to trust"
                raise SourceError(f"{what}: {self.endpoint} cannot prove who it is ({why}); {then}") from None
            patience.wait(one_line(getattr(reason, "strerror", None) or reason) or type(reason).__name__)

    def _refused(self, status: int, headers: Message, revision: str | None, file: str | None) -> SourceError:
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


def _listed(sibling: Mapping[str, Any]) -> WeightFile:
    """A file of the Hub's answer. KeyError, TypeError or ValueError when it is not told as the Hub does."""
    lfs, blob = sibling.get("lfs") or {}, sibling.get("blobId")
    size, sha = int(lfs["size"] if lfs else sibling.get("size") or 0), lfs.get("sha256")
    for value, pattern in ((sha, _SHA256), (blob, _SHA1)):  # caches name files by them
        if value and not pattern.fullmatch(str(value)):
            raise ValueError(f"{value!r} is no hash")
    if not 0 <= size < 1 << 63:
        raise ValueError("a file of a size that no file has")
    return WeightFile(str(sibling["rfilename"]), size, str(sha) if sha else None, str(blob) if blob else None)


def _asked_wait(headers: Message) -> float | None:
    """Seconds that the server asks to wait: Retry-After, or the Hub's own RateLimit header ("api";r=0;t=55)."""
    value = (headers.get("Retry-After") or "").strip()
    if re.fullmatch("[0-9]{1,9}", value):
        return float(value)
    limit = dict(re.findall(r";\s*([rt])=(\d{1,9})", headers.get("RateLimit") or ""))
    return float(limit["t"]) if limit.get("r") == "0" and "t" in limit else None


def _body(response: HTTPResponse, start: int, stop: int, size: int) -> Iterator[bytes]:
    """Bytes [start, stop) out of an answer that may hold just them (206) or the whole file (200).

    Raises _TransferError for an answer that is about other bytes than were asked for.
    """
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _TransferError("the server compressed what was asked for as it is")
    position = 0
    if response.status == 206:
        given = response.headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(given)
        if match is None or int(match[1]) != start or match[3] not in ("*", str(size)):
            sent = one_line(given) or "no Content-Range"
            raise _TransferError(f"asked for bytes from {start} of {size}, the server sends {sent}")
        position = start
    elif (length := response.headers.get("Content-Length")) is not None and length != str(size):
        raise _TransferError(f"the file should have {size} bytes, the server sends {one_line(length)}")
    while chunk := response.read1(_PIECE):
        begin = max(start - position, 0)
        end = stop - position
        position += len(chunk)
        if wanted := chunk[begin:end]:
            yield wanted
        if position >= stop:
            return
