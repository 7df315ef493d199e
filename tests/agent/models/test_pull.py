"""A ready GGUF comes from the Hub into the store: whole, proved and checked, or not at all; and a cut one goes on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import BrokenOffError, GGUFError, OutputError, SourceError, SprigError
from agent.gguf.check import check
from agent.gguf.reader import read_header
from agent.hub import client
from agent.models import remote
from agent.models.find import find_model
from agent.models.memory import MemoryBudget
from agent.models.origin import by_origin, read_origin
from agent.models.pull import Pulled, pull
from agent.models.reference import HubReference, hub_reference
from agent.models.remote import Offer, open_repository
from agent.models.store import StoreError, remove_model, stored_model, stored_models
from agent.progress import Progress
from tests.fixtures.disk import small_disk
from tests.fixtures.loopback_hub import LoopbackHub
from tests.fixtures.tiny import llama_keys, llama_weights, write

REPO = "org/basil-GGUF"
Q4, Q8 = "basil-Q4_K_M.gguf", "basil-Q8_0.gguf"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(client, "BACKOFF_SECONDS", 0.001)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path / "home"))
    remote.forget_headers()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with one model in two sizes, and what lies beside models."""
    folder = tmp_path / "repo"
    folder.mkdir()
    write(folder / Q4, llama_keys(general__name="basil"), llama_weights())
    weights = llama_weights() | {"blk.0.ffn_extra.weight": np.ones((64, 512), np.float32)}
    write(folder / Q8, llama_keys(general__name="basil"), weights)
    (folder / "mmproj-basil-F16.gguf").write_bytes(b"GGUF of something else")
    (folder / "README.md").write_text("basil")
    return folder


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub({REPO: folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def get(text: str, **options: Any) -> Pulled:
    reference = hub_reference(text)
    assert reference is not None
    repository = open_repository(reference)
    (model,) = repository.meant(reference.selector)
    return pull(repository, model, **options)


def refusal(text: str, kind: type[SprigError] = SourceError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        get(text, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def kept(tmp_path: Path) -> set[str]:
    place = tmp_path / "home" / "models"
    return {path.name for path in place.iterdir()} if place.exists() else set()


def test_a_model_is_pulled_under_its_own_name_and_says_where_it_comes_from(hub: LoopbackHub, folder: Path) -> None:
    steps: list[Progress] = []
    done = get(f"{REPO}:q4_k_m", on_progress=steps.append)
    assert done.path.read_bytes() == (folder / Q4).read_bytes()
    assert find_model("basil-Q4_K_M") == done.path
    origin = read_origin(done.path)
    assert origin is not None
    assert (origin.repo_id, origin.revision, origin.commit) == (REPO, "main", hub.commit(REPO))
    assert (origin.files, origin.sha256) == ((Q4,), (hub.files(REPO, origin.commit)[Q4].sha256,))
    assert steps[-1] == Progress("download", done.size, done.size, "bytes")
    assert [model.name for model in stored_models()] == ["basil-Q4_K_M"]


def test_it_is_found_again_by_what_it_was_pulled_with(hub: LoopbackHub) -> None:
    done = get(f"{REPO}:{Q4}")
    other = get(f"{REPO}:Q8_0")
    assert by_origin(HubReference(REPO, None, "Q4_K_M")) == [done.path]
    assert by_origin(HubReference("ORG/Basil-gguf", "main", Q8)) == [other.path]
    assert by_origin(HubReference(REPO)) == [done.path, other.path]
    assert by_origin(HubReference(REPO, "v2")) == by_origin(HubReference("org/mint")) == []
    other.path.write_bytes(b"made anew, by somebody else")
    assert by_origin(HubReference(REPO, None, "Q8_0")) == []
    remove_model(stored_model("basil-Q4_K_M"))
    assert by_origin(HubReference(REPO, None, "Q4_K_M")) == []


def test_what_is_there_already_is_not_downloaded_again_and_a_new_version_takes_its_place(hub: LoopbackHub, folder: Path) -> None:
    get(f"{REPO}:Q4_K_M")
    sent = hub.sent("/cdn/*")
    assert not get(f"{REPO}:Q4_K_M").new
    assert hub.sent("/cdn/*") == sent
    write(folder / Q4, llama_keys(general__name="basil 2"), llama_weights())
    hub.publish(REPO, folder)
    done = get(f"{REPO}:Q4_K_M")
    assert done.new
    assert read_header(done.path).keys["general.name"] == "basil 2"


def test_the_model_that_one_means(hub: LoopbackHub) -> None:
    repository = open_repository(HubReference(REPO))
    assert [model.selector for model in repository.meant(None)] == [Q4, Q8], "the projector is no model"
    for selector in (Q8, "basil-Q8_0", "q8_0", "Q8_0.gguf", "Q8"):
        assert [model.selector for model in repository.meant(selector)] == [Q8]
    assert repository.meant("Q4_K_M")[0].type == "Q4_K_M"
    assert "org/basil-GGUF has no GGUF 'Q5_K_M': it has Q4_K_M, Q8_0" in refusal(f"{REPO}:Q5_K_M")
    assert "has no GGUF 'K_M.gguf.'" in refusal(f"{REPO}:K_M.gguf.")


def test_what_fits_is_told_from_one_header(hub: LoopbackHub, folder: Path) -> None:
    repository = open_repository(HubReference(REPO))
    small, large = repository.offers(repository.models)
    assert small.fits
    assert small.context == 256
    more = (folder / Q8).stat().st_size - (folder / Q4).stat().st_size
    assert large.need - small.need == more

    def offers(size: int) -> list[Offer]:
        return repository.offers(repository.models, MemoryBudget(size, "so much may be taken"))

    least = offers(small.need)[0].need  # with a cache of one byte for each number
    assert [offer.fits for offer in offers((least + least + more) * 105 // 200)] == [True, False]
    assert {r.path.rpartition("/")[2] for r in hub.requests if r.origin == "cdn"} == {Q4}


def test_a_file_that_tells_nothing_is_offered_by_its_size(hub: LoopbackHub, folder: Path) -> None:
    (folder / "aaa.gguf").write_bytes(b"GGUF" + bytes(40))
    hub.publish(REPO, folder)
    repository = open_repository(HubReference(REPO))
    assert [offer.fits for offer in repository.offers(repository.models)] == [None] * 3


@pytest.mark.parametrize("key", ["block_count", "nextn_predict_layers"])
def test_a_file_of_endless_layers_costs_no_memory(hub: LoopbackHub, folder: Path, key: str) -> None:
    write(
        folder / "aaa.gguf",
        llama_keys(**{f"llama__{key}": np.uint32(2**32 - 1)}),
        {"output_norm.weight": np.ones(32, np.float32)},
    )
    hub.publish(REPO, folder)
    repository = open_repository(HubReference(REPO))
    assert [offer.fits for offer in repository.offers(repository.models)] == [None] * 3


def test_headers_larger_than_a_models_are_refused(hub: LoopbackHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split(folder, "oak-Q6_K", 3)
    hub.publish(REPO, folder)
    monkeypatch.setattr("agent.models.pull.MAX_HEADER_BYTES", 100)
    assert "larger than any model's" in refusal(f"{REPO}:Q6_K", GGUFError)


def test_a_command_in_a_message_can_be_copied_as_it_stands(hub: LoopbackHub, folder: Path) -> None:
    (folder / Q4).rename(folder / "a; b.gguf")
    hub.publish(REPO, folder)
    get(REPO + ":a; b.gguf")
    hub.publish("org/other", folder)
    assert "`sprig models remove 'a; b'`" in refusal("org/other:a; b.gguf", StoreError)


def test_a_download_that_was_cut_goes_on_where_it_was(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    size = (folder / Q8).stat().st_size
    hub.fail(f"*{Q8}", cut_after=100_000, skip=1)
    hub.fail("*/resolve/*", status=503, times=1000, skip=2)
    with pytest.raises(BrokenOffError):
        get(f"{REPO}:Q8_0")
    assert kept(tmp_path) == {f"{Q8}.part", f"{Q8}.part.origin"}
    (unfinished,) = stored_models()
    assert not unfinished.finished
    assert unfinished.size == 100_000
    hub.heal()
    remote.forget_headers()
    sent = hub.sent("/cdn/*")
    assert get(f"{REPO}:Q8_0").path.read_bytes() == (folder / Q8).read_bytes()
    assert hub.sent("/cdn/*") - sent == size + (size - 100_000), "the header, and the rest"
    assert kept(tmp_path) == {Q8, f"{Q8}.origin"}


def test_what_was_left_of_another_version_or_was_spoiled_is_not_gone_on_with(
    hub: LoopbackHub, folder: Path, tmp_path: Path
) -> None:
    def stop(step: Progress) -> None:
        if step.done:
            raise KeyboardInterrupt

    for spoil in (True, False):
        with pytest.raises(KeyboardInterrupt):
            get(f"{REPO}:Q4_K_M", on_progress=stop, name=f"spoil-{spoil}")
        part = tmp_path / "home" / "models" / f"spoil-{spoil}.gguf.part"
        if spoil:
            part.write_bytes(bytes(1000))
        else:
            write(folder / Q4, llama_keys(general__name="new"), llama_weights())
            hub.publish(REPO, folder)
        done = get(f"{REPO}:Q4_K_M", name=f"spoil-{spoil}")
        assert done.path.read_bytes() == (folder / Q4).read_bytes()


def test_what_is_not_what_the_hub_lists_is_thrown_away(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.fail(f"*{Q4}", corrupt_at=30_000, times=100, skip=1)
    message = refusal(f"{REPO}:Q4_K_M")
    assert "is not what the Hub lists: expected SHA-256" in message
    assert kept(tmp_path) == set()


def test_a_file_that_llama_cpp_must_not_be_given_is_refused_before_it_is_downloaded(
    hub: LoopbackHub, folder: Path, tmp_path: Path
) -> None:
    write(folder / Q8, llama_keys(llama__block_count=100_000), llama_weights())
    hub.publish(REPO, folder)
    assert "must not be loaded: llama.block_count" in refusal(f"{REPO}:Q8_0", GGUFError)
    assert kept(tmp_path) == set()


def test_a_repository_without_ggufs_says_how_to_make_one(hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "model.safetensors").write_bytes(b"weights")
    hub.publish("org/plain", tmp_path / "plain")
    assert "org/plain has no GGUF: `sprig quantize org/plain` makes one" in refusal("org/plain")


def test_what_cannot_be_had_is_one_line_with_a_way_out(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no model org/none" in refusal("org/none")
    assert "has no revision 'v9'" in refusal(f"{REPO}@v9:Q8_0")
    hub.gated.add(REPO)
    assert f"gated: accept the licence at {hub.url}/{REPO} and set HF_TOKEN" in refusal(f"{REPO}:Q4_K_M")
    hub.fail("*", status=429, headers={"Retry-After": "3600"})
    assert "the server asks to wait 3600 seconds" in refusal(f"{REPO}:Q4_K_M")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "unset HF_HUB_OFFLINE" in refusal(f"{REPO}:Q4_K_M")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "Connection refused (5 times); try again later" in refusal(f"{REPO}:Q4_K_M")


def test_a_gated_model_opens_with_a_saved_login_that_only_the_hub_sees(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.gated.add(REPO)
    (tmp_path / "no-token").write_text(f"{hub.token}\n")
    assert get(f"{REPO}:Q4_K_M").new
    assert {r.token for r in hub.requests if r.origin == "hub"} == {hub.token}
    assert {r.token for r in hub.requests if r.origin == "cdn"} == {None}


@pytest.mark.parametrize("name", ["../../escape.gguf", "/etc/escape.gguf", "a\\..\\escape.gguf", "a\n.gguf"])
def test_a_name_that_leads_out_is_refused(hub: LoopbackHub, tmp_path: Path, name: str) -> None:
    hub.extra_files[REPO] = [{"rfilename": name, "size": 100, "lfs": {"size": 100, "sha256": "0" * 64}}]
    assert "which no honest model does" in refusal(f"{REPO}:Q4_K_M")
    assert kept(tmp_path) == set()


def test_a_name_that_the_store_cannot_have_needs_another_one(hub: LoopbackHub) -> None:
    for name in ("../basil", ".basil", "a/b"):
        assert "cannot be the name of a stored model" in refusal(f"{REPO}:Q4_K_M", StoreError, name=name)
    assert "File name too long" in refusal(f"{REPO}:Q4_K_M", OutputError, name="b" * 250)
    assert get(f"{REPO}:Q4_K_M", name="mine.gguf").path.name == "mine.gguf"


def test_a_model_of_another_origin_is_never_written_over(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    hub.publish("other/basil-GGUF", folder)
    first = get(f"{REPO}:Q4_K_M")
    message = refusal("other/basil-GGUF:Q4_K_M", StoreError)
    assert f"was pulled from {REPO}:{Q4}: `sprig pull other/basil-GGUF --name NAME` gives this one another name" in message
    assert get("other/basil-GGUF:Q4_K_M", name="mint").path != first.path
    (tmp_path / "home" / "models" / Q8).write_bytes(b"mine")
    assert "did not come from there" in refusal(f"{REPO}:Q8_0", StoreError)


def test_a_disk_that_is_too_small_is_told_before_the_download(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "small", "64k") as place:
        monkeypatch.setenv("SPRIG_HOME", str(place))
        message = refusal(f"{REPO}:Q4_K_M", OutputError)
        assert re.search(r"basil-Q4_K_M\.gguf needs \d+ kB more, \d+ kB free on .*: make room", message)
        assert list((place / "models").iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_leaves_what_came_to_be_gone_on_with(
    hub: LoopbackHub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "small", "512k") as place:
        monkeypatch.setenv("SPRIG_HOME", str(place))
        filler = place / "filler"

        def fill(step: Progress) -> None:
            if not filler.exists():
                filler.write_bytes(bytes(os.statvfs(place).f_bavail * 4096 - 65536))

        assert "the disk is full while writing" in refusal(f"{REPO}:Q8_0", OutputError, on_progress=fill)
        filler.unlink()
        assert get(f"{REPO}:Q8_0").path.read_bytes() == (folder / Q8).read_bytes()


def split(folder: Path, name: str, parts: int) -> Path:
    """A model in several files, as llama-gguf-split writes it; the whole lies beside the folder."""
    keys, weights = llama_keys(general__name="split"), llama_weights()
    whole = write(folder.parent / f"{name}.gguf", keys, weights)
    names = list(weights)
    for i in range(parts):
        mine = {n: weights[n] for n in names[i * len(names) // parts : (i + 1) * len(names) // parts]}
        own = {"general.architecture": "llama"} if i else keys
        numbers = {"split.no": np.uint16(i), "split.count": np.uint16(parts), "split.tensors.count": np.int32(len(names))}
        write(folder / f"{name}-{i + 1:05}-of-{parts:05}.gguf", {**own, **numbers}, mine)
    return whole


def test_a_model_in_parts_becomes_one_file(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    whole = split(folder, "oak-Q6_K", 3)
    hub.publish(REPO, folder)
    done = get(f"{REPO}:Q6_K")
    assert done.name == "oak-Q6_K"
    assert done.path.read_bytes() == whole.read_bytes()
    assert len(done.origin.files) == 3
    assert by_origin(HubReference(REPO, None, "q6_k")) == [done.path]
    check(done.path, data=True)
    assert kept(tmp_path) == {"oak-Q6_K.gguf", "oak-Q6_K.gguf.origin"}


def test_a_model_in_parts_goes_on_where_it_was_cut(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    whole = split(folder, "oak-Q6_K", 3)
    hub.publish(REPO, folder)

    def stop(step: Progress) -> None:
        if step.done > step.total * 2 // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(f"{REPO}:Q6_K", on_progress=stop)
    assert 0 < (tmp_path / "home" / "models" / "oak-Q6_K.gguf.part").stat().st_size < whole.stat().st_size
    before = len(hub.requests)
    assert get(f"{REPO}:Q6_K").path.read_bytes() == whole.read_bytes()
    asked = [r.path for r in hub.requests[before:] if r.origin == "cdn"]
    assert sum("00001-of" in path for path in asked) == 1, "its header, to know where its weights lie"


def test_a_model_whose_part_is_missing_is_refused(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    split(folder, "oak-Q6_K", 3)
    (folder / "oak-Q6_K-00002-of-00003.gguf").unlink()
    hub.publish(REPO, folder)
    assert "its 2 files are not all the parts of one model" in refusal(f"{REPO}:Q6_K", GGUFError)
    assert kept(tmp_path) == set()


def test_a_part_that_is_not_what_the_hub_lists_is_thrown_away_and_the_others_stay(hub: LoopbackHub, folder: Path) -> None:
    whole = split(folder, "oak-Q6_K", 2)
    hub.publish(REPO, folder)
    last = "oak-Q6_K-00002-of-00002.gguf"
    size = (folder / last).stat().st_size
    hub.fail(f"*{last}", corrupt_at=size - 10, times=1, skip=1)
    assert f"{last} from {hub.url}" in refusal(f"{REPO}:Q6_K")
    headers = (folder / "oak-Q6_K-00001-of-00002.gguf").stat().st_size  # it is so small that it is read whole for its header
    sent = hub.sent("*-00001-of-00002.gguf")
    assert get(f"{REPO}:Q6_K").path.read_bytes() == whole.read_bytes()
    assert hub.sent("*-00001-of-00002.gguf") - sent == headers, "its header, to know where its weights lie"
