"""What looks like a secret, or is known to be one, is not written down; what only resembles one is."""

from __future__ import annotations

import pytest

from agent.text import secrets


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer SECRET",
        "{'authorization': 'Basic SECRET'}",
        "Proxy-Authorization=SECRET more SECRET",
        "cookie: session=SECRET; other=SECRET",
        "HF_TOKEN=SECRET",
        '"api_key": "SECRET"',
        "x-api-key: SECRET",
        "my-client-secret = SECRET, and more",
        "password:SECRET",
        "https://ada:SECRET@host/path",
        "https://SECRET@host/path",
        "GET https://host/file?X-Amz-Signature=SECRET&Expires=SECRET",
        "wss://host/socket?key=SECRET#there",
        "bearer SECRET",
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    told = secrets.mask(text.replace("SECRET", "q7Rx-09zzA"))
    assert "q7Rx" not in told
    assert "***" in told


@pytest.mark.parametrize("token", ["hf_abcdefghijklmnop", "sk-abcdefghijklmnop", "ghp_abcdefghijklmnop", "xoxb-1234567890-abc"])
def test_a_token_that_is_known_by_its_beginning_is_masked(token: str) -> None:
    assert secrets.mask(f"the server said: {token} is bad") == "the server said: *** is bad"


@pytest.mark.parametrize(
    "text",
    [
        "prefill 392 tokens, 21.3 t/s", "tokens: 512", "https://host/path and /org/model/model.safetensors",
        "tool secretary: done", "task-force", "first token 2.86 s", "tokenizer.json",
    ],
)  # fmt: skip
def test_what_only_resembles_a_secret_stays(text: str) -> None:
    assert secrets.mask(text) == text


def test_the_environments_secrets_and_those_that_are_told_are_known_by_their_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", set())
    monkeypatch.setenv("HUB_TOKEN_2", "plain words")
    monkeypatch.setenv("PLACE", "in the garden")
    secrets.keep_secret("beetroot-soup", "ab", "")
    assert secrets.mask("plain words, beetroot-soup, in the garden, ab") == "***, ***, in the garden, ab"


def test_of_secrets_that_begin_alike_the_whole_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", set())
    monkeypatch.setenv("SOME_password", "beetroot-soup-for-two")
    secrets.keep_secret("beetroot", "beetroot-soup")
    assert secrets.mask("beetroot-soup-for-two, beetroot-soup, beetroot") == "***, ***, ***"


def test_what_is_too_short_to_be_a_secret_stands_in_other_words_too(monkeypatch: pytest.MonkeyPatch) -> None:
    least = secrets._LEAST
    monkeypatch.setattr(secrets, "_known", set())
    for length in (least - 1, least, least + 1):
        monkeypatch.setenv(f"KEY_{length}_TOKEN", "e" * length)
        secrets.keep_secret("k" * length)
    assert secrets.mask(" ".join("e" * n for n in (least - 1, least, least + 1))) == f"{'e' * (least - 1)} *** ***"
    assert secrets.mask(" ".join("k" * n for n in (least - 1, least, least + 1))) == f"{'k' * (least - 1)} *** ***"
