"""How people write down a model of the Hub: what they copy from a browser, a card or another program means one thing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.models.reference import HubReference, cached_snapshot, hub_reference

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "text",
    [
        "Qwen/Qwen3-0.6B",
        " Qwen/Qwen3-0.6B/ ",
        "https://huggingface.co/Qwen/Qwen3-0.6B",
        "HTTPS://HuggingFace.co/Qwen/Qwen3-0.6B/",
        "https://huggingface.co/Qwen/Qwen3-0.6B?library=transformers#use",
        "huggingface.co/Qwen/Qwen3-0.6B",
        "hf.co/Qwen/Qwen3-0.6B",
        "hf:Qwen/Qwen3-0.6B",
        "hf://Qwen/Qwen3-0.6B",
        "hf://models/Qwen/Qwen3-0.6B",
    ],
)
def test_one_model_in_many_spellings(text: str) -> None:
    assert hub_reference(text) == HubReference("Qwen/Qwen3-0.6B")


@pytest.mark.parametrize(
    ("text", "revision", "selector"),
    [
        ("org/name@v1.0", "v1.0", None),
        ("org/name@refs/pr/3", "refs/pr/3", None),
        ("https://huggingface.co/org/name/tree/main", "main", None),
        ("https://huggingface.co/org/name/tree/refs%2Fpr%2F3", "refs/pr/3", None),
        ("https://huggingface.co/org/name/commit/" + COMMIT, COMMIT, None),
        ("https://huggingface.co/org/name/blob/main/name-Q4_K_M.gguf", "main", "name-Q4_K_M.gguf"),
        ("https://huggingface.co/org/name/resolve/main/Q8/name.gguf?download=true", "main", "Q8/name.gguf"),
        ("org/name:Q4_K_M", None, "Q4_K_M"),
        ("hf.co/org/name:q8_0", None, "q8_0"),
        ("org/name@dev:name-Q4_0.gguf", "dev", "name-Q4_0.gguf"),
    ],
)
def test_a_revision_and_a_part_of_a_model_can_be_named(text: str, revision: str | None, selector: str | None) -> None:
    assert hub_reference(text) == HubReference("org/name", revision, selector)


@pytest.mark.parametrize(
    "text",
    [
        "", "name", "name.gguf", "./org/name", "../name", "/org/name", "~/name", "a/b/c", "models/name.gguf", "org/name.git",
        "-x/name", "org/-x", "org/a--b", "org/..", "https://example.com/org/name", "https://huggingface.co/org", "C:\\org\\name",
        "https://huggingface.co.example.com/org/name", "org/na me", "http://[", "https://[::1/org/name",
        "models/name.GGUF",
    ],
)  # fmt: skip
def test_what_is_no_model_of_the_hub_is_none(text: str) -> None:
    assert hub_reference(text) is None


def test_a_mirror_that_is_the_endpoint_is_a_host_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub_reference("http://127.0.0.1:9/org/name") is None
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub_reference("http://127.0.0.1:9/org/name/tree/main") == HubReference("org/name", "main")


def test_an_endpoint_that_is_no_address_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://[")
    assert hub_reference("org/name") == HubReference("org/name")


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_none(text: str) -> None:
    found = hub_reference(text)
    if found is not None:
        assert hub_reference(found.repo_id) == HubReference(found.repo_id)


def test_a_folder_of_the_hubs_cache_is_named_after_its_model(tmp_path: Path) -> None:
    root = tmp_path / "models--acme--tiny-chat"
    old, new = root / "snapshots" / ("a" * 40), root / "snapshots" / ("b" * 40)
    old.mkdir(parents=True)
    found = cached_snapshot(root)
    assert found is not None
    assert (found.repo_id, found.commit, found.path) == ("acme/tiny-chat", "a" * 40, old)
    new.mkdir()
    assert cached_snapshot(root) is None, "two commits, and none is main"
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("b" * 40)
    found = cached_snapshot(root)
    assert found is not None
    assert found.path == new
    one = cached_snapshot(old)
    assert one is not None
    assert (one.repo_id, one.commit) == ("acme/tiny-chat", "a" * 40)
    assert cached_snapshot(tmp_path) is None
    assert cached_snapshot(root / "snapshots" / "main") is None
