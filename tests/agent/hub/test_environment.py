"""Where the Hub, its cache and a person's token are: as Hugging Face's own tools find them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.hub.environment import cache_root, current_endpoint, is_offline, saved_token


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith(("HF_", "HUGGING", "TRANSFORMERS_", "XDG_CACHE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_the_endpoint_is_the_public_one_or_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert current_endpoint() == "https://huggingface.co"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:8000/")
    assert current_endpoint() == "http://127.0.0.1:8000"


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("yes", True), ("on", True), ("0", False), ("", False)])
def test_offline_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch, value: str, offline: bool) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert is_offline() is offline
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", value)
    assert is_offline() is offline


def test_the_token_is_that_of_the_environment_or_of_the_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert saved_token() is None
    file = tmp_path / ".cache/huggingface/token"
    file.parent.mkdir(parents=True)
    file.write_text("hf_login\n")
    assert saved_token() == "hf_login"
    monkeypatch.setenv("HF_TOKEN", " hf_env ")
    assert saved_token() == "hf_env"
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert saved_token() is None
    monkeypatch.delenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")
    monkeypatch.delenv("HF_TOKEN")
    file.write_bytes(b"\xff\xfe")
    assert saved_token() is None


@pytest.mark.parametrize(
    "env", [{}, {"XDG_CACHE_HOME": "/x"}, {"HF_HOME": "~/hf"}, {"HF_HUB_CACHE": "$HOME/hub"}, {"HUGGINGFACE_HUB_CACHE": "/old"}]
)
def test_the_cache_is_where_huggingface_hub_has_it(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> None:
    pytest.importorskip("huggingface_hub")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    code = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    theirs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert str(cache_root()) == theirs
