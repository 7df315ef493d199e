"""Talking to the Hub: one pinned listing, ranges that survive what networks do, and one line for what cannot be had."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from agent.errors import SourceError
from agent.hub import client as hub_module
from agent.hub.client import Hub, WeightFile
from tests.fixtures.loopback_hub import LoopbackHub
from tests.fixtures.small_checkpoints import write_checkpoint

REPO = "org/small"
WEIGHTS = "*model.safetensors"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "BACKOFF_SECONDS", 0.001)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LoopbackHub]:
    write_checkpoint(tmp_path / "small", shards=1)
    with LoopbackHub({REPO: tmp_path / "small"}, gated=()) as server:
        yield server


def weights_of(server: LoopbackHub, hub: Hub) -> tuple[str, WeightFile, bytes]:
    """The commit, the weight file as the Hub lists it, and its true content."""
    commit, files = hub.listing(None)
    file = next(f for f in files if f.name == "model.safetensors")
    return commit, file, server.files(REPO, commit)[file.name].path.read_bytes()


def refusal(hub: Hub, revision: str | None = None) -> str:
    with pytest.raises(SourceError) as caught:
        hub.listing(revision)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_branch_is_pinned_to_its_commit_with_sizes_and_hashes(server: LoopbackHub) -> None:
    commit, files = Hub(REPO, server.url).listing("main")
    by_name = {f.name: f for f in files}
    assert commit == server.commit(REPO)
    truth = server.files(REPO, commit)
    assert by_name["model.safetensors"].sha256 == truth["model.safetensors"].sha256
    assert by_name["config.json"].sha256 is None
    assert by_name["config.json"].blob_id == truth["config.json"].git_sha1
    assert {f.name: f.size for f in files} == {name: blob.size for name, blob in truth.items()}


def test_what_is_not_there_or_not_allowed_is_said_in_one_line_with_a_way_out(server: LoopbackHub) -> None:
    assert "no model org/none" in refusal(Hub("org/none", server.url))
    assert "no revision 'v9'" in refusal(Hub(REPO, server.url), "v9")
    assert "does not accept the token" in refusal(Hub(REPO, server.url, "hf_wrong"))
    assert "cannot be a model" in refusal(Hub("org/a--b..c", server.url))


def test_a_gated_model_says_where_to_accept_and_opens_with_a_token(server: LoopbackHub) -> None:
    server.gated.add(REPO)
    commit, file, truth = weights_of(server, Hub(REPO, server.url))
    with pytest.raises(SourceError, match=f"gated: accept the licence at {server.url}/{REPO} and set HF_TOKEN"):
        Hub(REPO, server.url).read(commit, file)
    assert Hub(REPO, server.url, server.token).read(commit, file) == truth


def test_the_token_goes_to_the_hub_and_never_to_its_cdn(server: LoopbackHub) -> None:
    hub = Hub(REPO, server.url, server.token)
    commit, file, truth = weights_of(server, hub)
    assert hub.read(commit, file) == truth
    assert {r.token for r in server.requests if r.origin == "hub"} == {server.token}
    assert {r.token for r in server.requests if r.origin == "cdn"} == {None}
    assert server.token not in repr(hub)


def test_a_model_that_was_renamed_is_followed_with_the_token(server: LoopbackHub) -> None:
    """The Hub answers the old name with a redirect on itself; to another host the token does not go, whatever its name."""
    for elsewhere in ("", server.cdn_url):
        server.fail("/api/models/org/old", status=307, headers={"Location": f"{elsewhere}/api/models/{REPO}?blobs=true"})
        assert Hub("org/old", server.url, server.token).listing(None)[0] == server.commit(REPO)
        assert [r.token for r in server.requests[-2:]] == [server.token, None if elsewhere else server.token]


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher:x"])
def test_a_redirect_to_what_is_no_web_address_is_refused(server: LoopbackHub, where: str) -> None:
    server.fail("*", status=302, headers={"Location": where})
    assert "check HF_ENDPOINT" in refusal(Hub(REPO, server.url))


def test_a_certificate_that_cannot_be_proved_is_not_tried_again(server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "certificate is not yet valid"
    asked = []

    def get(*args: object) -> None:
        asked.append(args)
        raise URLError(error)

    monkeypatch.setattr(hub_module, "get", get)
    message = refusal(Hub(REPO, server.url))
    assert "cannot prove who it is (certificate is not yet valid); look at this machine's clock" in message
    assert len(asked) == 1


@pytest.mark.parametrize("sibling", [
    {"rfilename": "a.gguf", "size": 1, "lfs": {"size": 1, "sha256": "../../x"}}, {"rfilename": "a.gguf", "blobId": "../x"},
    {"rfilename": "a", "size": -1}, {"size": 1}, "a.gguf", {"rfilename": "a", "lfs": 3}, {"rfilename": "a", "size": {"a": 1}},
    {"rfilename": "a", "size": float("inf")}, {"rfilename": "a", "size": 10**4000},
])  # fmt: skip
def test_a_listing_that_no_hub_would_give_is_refused(server: LoopbackHub, sibling: Any) -> None:
    server.extra_files[REPO] = [sibling]
    assert "does not answer like a Hub" in refusal(Hub(REPO, server.url))


def test_the_stored_environment_token_is_used_when_none_is_given(server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", server.token)
    Hub(REPO, server.url).listing(None)
    assert server.requests[-1].token == server.token


def test_a_token_that_cannot_be_one_is_refused_and_never_quoted(server: LoopbackHub) -> None:
    for token in ("hf_sécret", "hf_secret\n", "hf_sec\tret"):
        message = refusal(Hub(REPO, server.url, token))
        assert "characters that no token has" in message
        assert "cret" not in message
    assert server.requests == []


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_hub_that_keeps_answering_with_an_error_is_given_up_after_a_few_tries(server: LoopbackHub, status: int) -> None:
    server.fail("*", status=status, times=1000)
    message = refusal(Hub(REPO, server.url))
    assert str(status) in message
    assert len(server.requests) == (1 if status == 403 else hub_module.RETRIES + 1)


@pytest.mark.parametrize("headers", [{"Retry-After": "0"}, {"RateLimit": '"api";r=0;t=0'}, {}])
def test_a_hub_that_is_busy_for_a_moment_is_waited_for(server: LoopbackHub, headers: dict[str, str]) -> None:
    server.fail("*", status=429, times=2, headers=headers)
    assert Hub(REPO, server.url).listing(None)[0] == server.commit(REPO)


def test_a_wait_of_an_hour_is_told_and_not_slept(server: LoopbackHub) -> None:
    server.fail("*", status=429, times=1, headers={"Retry-After": "3600"})
    begin = time.monotonic()
    assert "wait 3600 seconds" in refusal(Hub(REPO, server.url))
    assert time.monotonic() - begin < 60


def test_something_that_is_no_hub_is_recognised(server: LoopbackHub) -> None:
    server.fail("*", status=200, times=1, body=b'{"id": "org/small"}')
    assert "names no commit" in refusal(Hub(REPO, server.url))
    server.fail("*", status=200, times=1, body=b"<html>Please log in to this network</html>")
    assert "does not answer like a Hub" in refusal(Hub(REPO, server.url))


def test_nobody_listening_is_one_line() -> None:
    assert "cannot look up org/small on http://127.0.0.1:9" in refusal(Hub(REPO, "http://127.0.0.1:9"))
    for endpoint in ("ftp://example", "example"):
        assert "check HF_ENDPOINT" in refusal(Hub(REPO, endpoint))


@pytest.mark.parametrize(
    "fault",
    [
        {"cut_after": 100_000, "times": 3},
        {"cut_after": 0, "times": 2},
        {"extra_length": 10, "times": 1},
        {"shift_range": -7, "times": 1, "skip": 1},
        {"encoding": "gzip", "times": 2},
        {"status": 500, "times": 2},
        {"status": 429, "times": 2, "headers": {"Retry-After": "0"}},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_a_transfer_goes_on_at_the_byte_where_it_was_cut(server: LoopbackHub, fault: dict[str, object]) -> None:
    hub = Hub(REPO, server.url)
    commit, file, truth = weights_of(server, hub)
    server.fail("*/resolve/*" if "status" in fault else WEIGHTS, **fault)
    if "shift_range" in fault:
        server.fail(WEIGHTS, cut_after=100_000)
    assert hub.read(commit, file) == truth
    if set(fault) & {"cut_after", "status"}:
        assert server.sent("/cdn/*") == file.size


def test_a_server_that_ignores_ranges_still_gives_the_right_bytes(server: LoopbackHub) -> None:
    hub = Hub(REPO, server.url)
    commit, file, truth = weights_of(server, hub)
    server.fail(WEIGHTS, ignore_range=True, times=100)
    assert hub.read(commit, file, 1000, 1500) == truth[1000:1500]
    server.fail(WEIGHTS, cut_after=200_000)
    assert hub.read(commit, file) == truth


@pytest.mark.parametrize(
    "fault",
    [{"cut_after": 100}, {"shift_range": 5}, {"encoding": "gzip"}, {"status": 500}],
    ids=["cut", "shifted", "compressed", "500"],
)
def test_a_transfer_that_never_gets_on_ends_in_one_line(server: LoopbackHub, fault: dict[str, object]) -> None:
    hub = Hub(REPO, server.url)
    commit, file, _ = weights_of(server, hub)
    pattern = "*/resolve/*" if "status" in fault else WEIGHTS
    server.fail(pattern, times=1000, **fault)
    with pytest.raises(SourceError, match=r"^cannot read model\.safetensors of org/small.*\(5 times\)") as caught:
        hub.read(commit, file, 100, 5000)
    assert "\n" not in str(caught.value)


def test_a_redirect_that_leads_nowhere_is_not_tried_again(server: LoopbackHub) -> None:
    hub = Hub(REPO, server.url)
    commit, file, _ = weights_of(server, hub)
    server.fail("*", status=302, times=1000, headers={"Location": f"{server.url}/{REPO}/resolve/{commit}/{file.name}"})
    with pytest.raises(SourceError, match="check HF_ENDPOINT"):
        hub.read(commit, file)
    assert "check HF_ENDPOINT" in refusal(hub)


def test_a_trickle_is_a_cut(server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "STALL_SECONDS", 0.2)
    hub = Hub(REPO, server.url)
    commit, file, truth = weights_of(server, hub)
    server.fail(WEIGHTS, bytes_per_second=20_000)
    assert hub.read(commit, file) == truth
    ranges = [r.range for r in server.requests if r.origin == "cdn"]
    assert len(ranges) == 2
    assert ranges[1] is not None


def test_a_trickle_of_a_listing_is_a_cut(server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "STALL_SECONDS", 0.0)
    server.fail("*/api/*", times=1000, status=200, body=b" " * 10)
    assert "less than 65536 bytes in 0 seconds (5 times)" in refusal(Hub(REPO, server.url))


def test_silence_is_a_cut(server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "READ_SECONDS", 0.2)
    hub = Hub(REPO, server.url)
    commit, file, truth = weights_of(server, hub)
    server.fail(WEIGHTS, bytes_per_second=1000)
    assert hub.read(commit, file) == truth


def test_a_file_that_is_missing_or_too_short_is_named(server: LoopbackHub) -> None:
    hub = Hub(REPO, server.url)
    commit, file, _ = weights_of(server, hub)
    with pytest.raises(SourceError, match=r"no file 'gone\.safetensors'"):
        hub.read(commit, WeightFile("gone.safetensors", 10, None, None))
    longer = WeightFile(file.name, file.size + 1000, file.sha256, file.blob_id)
    with pytest.raises(SourceError, match=r"should have \d+ bytes, the server sends"):
        hub.read(commit, longer)
    with pytest.raises(SourceError, match="416"):
        hub.read(commit, longer, file.size, file.size + 10)


def test_offline_no_request_is_made(server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "unset HF_HUB_OFFLINE" in refusal(Hub(REPO, server.url))
    with pytest.raises(SourceError, match="unset HF_HUB_OFFLINE"):
        Hub(REPO, server.url).read("0" * 40, WeightFile("model.safetensors", 10, None, None))
    assert server.requests == []
