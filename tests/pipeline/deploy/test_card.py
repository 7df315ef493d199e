"""`sprig deploy --to DIR`: a card that is mounted gets a model whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import OutputError
from agent.progress import Progress
from pipeline.deploy import card
from pipeline.deploy.card import deploy_to_folder
from tests.fixtures.command import one_line, only_json, sprig
from tests.fixtures.disk import small_disk
from tests.fixtures.paths import ROOT

OLD = b"the old one"


def test_a_folder_of_models_or_a_sprig_home(model: Path, tmp_path: Path, home: Path) -> None:
    (tmp_path / "card").mkdir()
    done = sprig("deploy", model, "--to", tmp_path / "card", home=home)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "card" / model.name).read_bytes() == model.read_bytes()
    assert "not tried   this is not the device" in done.stdout
    (tmp_path / "sprig" / "models").mkdir(parents=True)
    told = only_json(sprig("deploy", model, "--to", tmp_path / "sprig", "--json", home=home))
    assert told["path"] == str(tmp_path / "sprig" / "models" / model.name)
    assert told["sent"] == told["size"]
    again = only_json(sprig("deploy", model, "--to", tmp_path / "sprig", "--json", home=home))
    assert (again["sent"], again["replaced"]) == (0, False)
    assert [p.name for p in (tmp_path / "sprig" / "models").iterdir()] == [model.name]


def test_it_needs_none_of_the_pipelines_libraries(model: Path, tmp_path: Path) -> None:
    lost = ("gguf", "huggingface_hub", "sentencepiece", "tokenizers", "yaml", "torch")
    code = f"import sys\nfor name in {lost!r}: sys.modules[name] = None\nimport sprig\nsprig.main()"
    subprocess.run([sys.executable, "-c", code, "deploy", model, "--to", tmp_path], cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / model.name).is_file()


def test_ctrl_c_leaves_a_part_for_the_next_run(model: Path, tmp_path: Path) -> None:
    (tmp_path / model.name).write_bytes(OLD)

    def stop(step: Progress) -> None:
        if step.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="the same command goes on from there"):
        deploy_to_folder(model, tmp_path, on_progress=stop)
    assert (tmp_path / model.name).read_bytes() == OLD
    found = deploy_to_folder(model, tmp_path)
    assert 0 < found.sent < found.size
    assert found.replaced
    assert (tmp_path / model.name).read_bytes() == model.read_bytes()


def test_a_damaged_part_is_written_anew(model: Path, tmp_path: Path) -> None:
    (tmp_path / f".{model.name}.part").write_bytes(b"something else")
    assert deploy_to_folder(model, tmp_path).sent == model.stat().st_size
    assert os.listdir(tmp_path) == [model.name]  # noqa: PTH208


@pytest.mark.parametrize("known", [True, False])
def test_a_full_card_is_one_line(model: Path, tmp_path: Path, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_disk(tmp_path / "card", "900k") as disk:
        (disk / model.name).write_bytes(OLD)
        if not known:
            monkeypatch.setattr(card, "free_disk", lambda path: 1 << 40)
        with pytest.raises(OutputError, match=r"no room in|the disk is full; what is written is kept"):
            deploy_to_folder(model, disk)
        assert (disk / model.name).read_bytes() == OLD


def test_a_card_that_lies_is_found_out(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As cheap cards do that claim more room than they have."""
    (tmp_path / model.name).write_bytes(OLD)
    real = os.fsync

    def lose(fd: int) -> None:
        real(fd)
        os.pwrite(fd, bytes(4096), 500_000)

    monkeypatch.setattr(os, "fsync", lose)
    with pytest.raises(OutputError, match="does not read back as it was written, and was removed"):
        deploy_to_folder(model, tmp_path)
    assert (tmp_path / model.name).read_bytes() == OLD
    assert [p.name for p in tmp_path.iterdir()] == [model.name]


def test_two_at_once_and_wrong_usage(model: Path, tmp_path: Path, home: Path) -> None:
    with card.exclusive(tmp_path / f".{model.name}.part"), pytest.raises(OutputError, match="being written by another run"):
        deploy_to_folder(model, tmp_path)
    assert "is the card mounted?" in one_line(sprig("deploy", model, "--to", tmp_path / "none", home=home))
    with pytest.raises(OutputError, match="is the model itself"):
        deploy_to_folder(model, model.parent)
    for words in ([], ["board", "--to", str(tmp_path)]):
        done = sprig("deploy", model, *words, home=home)
        assert done.returncode == 2
        assert "say where it goes" in done.stderr
