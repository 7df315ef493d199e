"""What other programs have on this machine is found where it lies, and nothing that they do not keep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.models.elsewhere import elsewhere, find_elsewhere, foreign_models, in_hub_cache
from agent.models.reference import HubReference

DIGEST = "ab" * 32


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def put(path: Path, content: str = "GGUF") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def cached(machine: Path, commit: str, name: str, repo: str = "models--org--basil-GGUF") -> Path:
    """A file of a commit, a link to its blob as the Hub's tools make it."""
    folder = machine / ".cache/huggingface/hub" / repo
    blob = put(folder / "blobs" / f"{commit}{name.replace('/', '-')}")
    path = folder / "snapshots" / commit / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(blob)
    return path


def manifest(machine: Path, where: str, digest: str = f"sha256:{DIGEST}", kind: str = "model") -> None:
    layer = {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest, "size": 4}
    put(machine / ".ollama/models/manifests" / where, json.dumps({"layers": [layer]}))


def test_a_machine_without_them_has_none() -> None:
    assert foreign_models() == []
    assert find_elsewhere("ollama:basil") is None


def test_the_hubs_cache_is_found_by_repository_and_file(machine: Path) -> None:
    old = cached(machine, "a" * 40, "basil-Q4_K_M.gguf")
    cached(machine, "b" * 40, "basil-Q4_K_M.gguf")
    large = cached(machine, "b" * 40, "large/basil-Q8_0-00001-of-00002.gguf")
    cached(machine, "b" * 40, "large/basil-Q8_0-00002-of-00002.gguf")
    cached(machine, "b" * 40, "mmproj-basil.gguf")
    cached(machine, "b" * 40, "set.gguf", repo="datasets--org--set")
    put(machine / ".cache/huggingface/hub/models--org--basil-GGUF/refs/main", "a" * 40)
    assert elsewhere() == {
        "org/basil-GGUF:basil-Q4_K_M.gguf": old, "org/basil-GGUF:large/basil-Q8_0-00001-of-00002.gguf": large,
    }  # fmt: skip
    assert find_elsewhere("Org/basil-gguf:basil-q4_k_m") == old
    assert in_hub_cache(HubReference("org/Basil-GGUF", None, "Q4_K_M")) == [old]
    assert in_hub_cache(HubReference("org/basil-GGUF", "a" * 40)) == in_hub_cache(HubReference("org/basil-GGUF", "main"))
    assert in_hub_cache(HubReference("org/basil-GGUF", "../../x")) == in_hub_cache(HubReference("org/mint")) == []


def test_ollamas_manifests_lead_to_its_blobs(machine: Path) -> None:
    blob = put(machine / f".ollama/models/blobs/sha256-{DIGEST}")
    manifest(machine, "registry.ollama.ai/library/qwen3/0.6b")
    manifest(machine, "registry.ollama.ai/library/qwen3/latest")
    manifest(machine, "registry.ollama.ai/me/basil/v1")
    manifest(machine, "hf.co/org/basil-GGUF/Q4_K_M")
    assert elsewhere() == dict.fromkeys(
        ("ollama:hf.co/org/basil-GGUF:Q4_K_M", "ollama:qwen3:0.6b", "ollama:qwen3:latest", "ollama:me/basil:v1"), blob
    )
    assert find_elsewhere("ollama:Qwen3") == blob
    assert {model.place for model in foreign_models()} == {"Ollama"}


def test_a_manifest_that_lies_is_left_out(machine: Path) -> None:
    put(machine / "secret")
    for i, digest in enumerate(("sha256:../../../secret", "sha256:" + "cd" * 32, "", "/etc/passwd")):
        manifest(machine, f"registry.ollama.ai/library/basil/{i}", digest)
    put(machine / f".ollama/models/blobs/sha256-{DIGEST}")
    manifest(machine, "registry.ollama.ai/library/basil/template", kind="template")
    for i, text in enumerate(("", "[]", "null", '{"layers": 3}', '{"layers": [[]]}', "[" * 100_000)):
        put(machine / f".ollama/models/manifests/registry.ollama.ai/library/mint/{i}", text)
    (machine / ".ollama/models/manifests/registry.ollama.ai/library/mint/folder").mkdir()
    assert foreign_models() == []


def test_ollama_and_the_cache_may_lie_elsewhere(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(machine / f".ollama/models/blobs/sha256-{DIGEST}")
    manifest(machine, "registry.ollama.ai/library/qwen3/latest")
    (machine / ".ollama/models").rename(machine / "disk")
    monkeypatch.setenv("OLLAMA_MODELS", str(machine / "disk"))
    cached(machine, "a" * 40, "basil.gguf")
    (machine / ".cache/huggingface").rename(machine / "hf")
    monkeypatch.setenv("HF_HOME", str(machine / "hf"))
    assert len(elsewhere()) == 1, "the link of the cache is absolute here, and broken now"
    assert find_elsewhere("ollama:qwen3") == machine / f"disk/blobs/sha256-{DIGEST}"


def test_lm_studios_folder_is_found(machine: Path) -> None:
    path = put(machine / ".lmstudio/models/lmstudio-community/Basil-GGUF/Basil-Q4_K_M.gguf")
    put(machine / ".lmstudio/models/lmstudio-community/Basil-GGUF/mmproj-Basil.gguf")
    older = put(machine / ".cache/lm-studio/models/me/Mint/mint.gguf")
    assert elsewhere() == {
        "lmstudio:lmstudio-community/Basil-GGUF/Basil-Q4_K_M.gguf": path, "lmstudio:me/Mint/mint.gguf": older,
    }  # fmt: skip
    assert find_elsewhere("lmstudio:me/Mint/mint") == older
