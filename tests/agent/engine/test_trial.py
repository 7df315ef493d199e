"""Trial runs: what comes back from a model that runs, and what is left of one that does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from agent.engine.llama_import import import_llama
from agent.engine.trial import trial
from agent.errors import GGUFError, SprigError
from tests.fixtures import tiny
from tests.fixtures.paths import ROOT

pytestmark = pytest.mark.usefixtures("started")
# The vocabulary of a model of one encoder block, as llama.cpp's "bert" wants it.
BERT_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"▁{c}" for c in "abcdefgh"), "hello", "▁hello", "▁world", "▁,"]


def bert(path: Path) -> Path:
    width, ffn, n = 32, 64, len(BERT_TOKENS)
    rng = np.random.default_rng(1)
    shapes = {
        "token_embd.weight": (n, width), "token_types.weight": (2, width), "position_embd.weight": (64, width),
        "token_embd_norm.weight": (width,), "token_embd_norm.bias": (width,),
        **{f"blk.0.attn_{x}.weight": (width, width) for x in ("q", "k", "v", "output")},
        **{f"blk.0.attn_{x}.bias": (width,) for x in ("q", "k", "v", "output")},
        "blk.0.attn_output_norm.weight": (width,), "blk.0.attn_output_norm.bias": (width,),
        "blk.0.ffn_up.weight": (ffn, width), "blk.0.ffn_up.bias": (ffn,),
        "blk.0.ffn_down.weight": (width, ffn), "blk.0.ffn_down.bias": (width,),
        "blk.0.layer_output_norm.weight": (width,), "blk.0.layer_output_norm.bias": (width,),
    }  # fmt: skip
    keys = {
        "general.architecture": "bert", "bert.block_count": 1, "bert.context_length": 64, "bert.embedding_length": width,
        "bert.feed_forward_length": ffn, "bert.attention.head_count": 2, "bert.attention.layer_norm_epsilon": 1e-12,
        "bert.attention.causal": False, "bert.pooling_type": 1, "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.token_type_count": 2, "tokenizer.ggml.tokens": BERT_TOKENS,
        "tokenizer.ggml.token_type": [3, 3, 3, 3, 3] + [1] * (n - 5), "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.seperator_token_id": 3, "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.eos_token_id": 3, "tokenizer.ggml.mask_token_id": 4,
    }  # fmt: skip
    return tiny.write(path, keys, {k: rng.normal(0, 0.1, s).astype(np.float32) for k, s in shapes.items()})


def test_a_model_says_two_tokens_and_splits_the_probes(tmp_path: Path) -> None:
    result = trial(tiny.llama(tmp_path / "x.gguf"), probes=["ab", "</s>", "é", "\udcff"], threads=1)
    assert result.finite
    assert len(result.ids) == 2
    assert result.n_vocab == len(tiny.TOKENS)
    assert result.description.startswith("llama")
    space, a, b = (tiny.TOKENS.index(t) for t in ("▁", "a", "b"))
    first = tiny.TOKENS.index("<0x00>")
    assert result.probe_ids == [[space, a, b], [2], [space, first + 0xC3, first + 0xA9], [space, first + 0xFF]]


@pytest.mark.slow
def test_the_prompt_decides_what_follows_and_the_same_prompt_always_the_same(tmp_path: Path) -> None:
    path = tiny.llama(tmp_path / "x.gguf")
    said = [trial(path, prompt, threads=1).ids for prompt in ([1, 260], [1, 261], [1, 262], [1, 260])]
    assert said[0] == said[3]
    assert len({tuple(ids) for ids in said}) > 1


def test_an_embedding_model_gives_a_vector_and_no_words(tmp_path: Path) -> None:
    result = trial(bert(tmp_path / "bert.gguf"), probes=["hello world"], threads=1)
    assert (result.ids, result.text, result.finite) == ([], "", True)
    assert result.probe_ids == [[BERT_TOKENS.index("▁hello"), BERT_TOKENS.index("▁world")]]


@pytest.mark.slow
def test_weights_and_logits_that_are_no_numbers_are_noticed(tmp_path: Path) -> None:
    weights = tiny.llama_weights()
    weights["output_norm.weight"][:] = 3e38  # numbers, but a product with them overflows
    assert not trial(tiny.write(tmp_path / "x.gguf", tiny.llama_keys(), weights), threads=1).finite
    weights["blk.0.ffn_up.weight"][0, 0] = np.nan
    with pytest.raises(GGUFError, match=r"does not run in llama\.cpp: tensor 'blk\.0\.ffn_up\.weight' holds NaN or infinity"):
        trial(tiny.write(tmp_path / "x.gguf", tiny.llama_keys(), weights), threads=1)


def test_a_missing_tensor_is_named_in_llama_cpps_words(tmp_path: Path) -> None:
    weights = tiny.llama_weights()
    del weights["blk.0.ffn_down.weight"]
    with pytest.raises(GGUFError, match=r"does not run in llama\.cpp: .*tensor 'blk\.0\.ffn_down\.weight' not found"):
        trial(tiny.write(tmp_path / "x.gguf", tiny.llama_keys(), weights), threads=1)


def test_a_token_that_does_not_exist_is_an_error_and_no_crash(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match=r"does not run in llama\.cpp"):
        trial(tiny.llama(tmp_path / "x.gguf"), [1, 10_000_000], threads=1)


def test_names_in_a_file_cannot_reach_the_terminal(tmp_path: Path) -> None:
    keys = tiny.llama_keys() | {"general.architecture": "a\x1b]0;owned\x07"}
    with pytest.raises(GGUFError, match=r"unknown model architecture: 'a␛\]0;owned␇'"):
        trial(tiny.write(tmp_path / "x.gguf", keys, tiny.llama_weights()), threads=1)


def test_a_file_that_is_cut_while_it_is_mapped_kills_the_child_alone(tmp_path: Path) -> None:
    """The first child loads a whole file. Here the file is cut behind its header, so the mapped pages are not there."""
    path = tiny.llama(tmp_path / "x.gguf")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(GGUFError, match="not within the file bounds"):
        trial(path, threads=1)


@pytest.mark.slow
def test_a_child_that_hangs_is_killed_in_time(tmp_path: Path) -> None:
    """A FIFO in place of the file: llama.cpp waits for its first byte for ever."""
    fifo = tmp_path / "x.gguf"
    os.mkfifo(fifo)
    started = time.monotonic()
    with pytest.raises(GGUFError, match="did not load and decode within 1 s"):
        trial(fifo, timeout=1)
    assert time.monotonic() - started < 60


def test_a_child_that_the_kernel_kills_is_reported(tmp_path: Path) -> None:
    """What the out-of-memory killer does, done by hand: SIGKILL to the child while it waits on a FIFO."""
    fifo = tmp_path / "x.gguf"
    os.mkfifo(fifo)

    def shoot() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for entry in Path("/proc").glob("[0-9]*"):
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if b"agent.engine.trial_child" in command and os.fsencode(fifo) in command:
                    os.kill(int(entry.name), signal.SIGKILL)
                    return
            time.sleep(0.05)

    if not Path("/proc/self/cmdline").exists():
        pytest.skip("this system has no /proc")
    hunter = threading.Thread(target=shoot)
    hunter.start()
    with pytest.raises(GGUFError, match="the kernel killed it, probably for want of memory"):
        trial(fifo, timeout=120)
    hunter.join()


@pytest.mark.slow
def test_the_child_takes_little_memory_beside_the_mapped_file(tmp_path: Path) -> None:
    """Measured inside it, on a vocabulary of 50,000: the peak counts Python, NumPy, llama.cpp and the small file itself."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system has no /proc")
    tokens = [*tiny.TOKENS, *(f"[{i}]" for i in range(50_000))]
    kinds = tiny.TYPES + [1] * 50_000
    path = tiny.llama(
        tmp_path / "x.gguf",
        tokenizer__ggml__tokens=tokens, tokenizer__ggml__token_type=kinds, tokenizer__ggml__scores=[0.0] * len(tokens),
    )  # fmt: skip
    program = (
        "import sys\nfrom agent.engine.trial_child import _answer\n"
        "_answer(sys.argv[1], {'prompt': None, 'probes': [], 'threads': 1})\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    assert int(ended.stdout) * 1024 < 150_000_000


def test_a_folder_called_agent_in_the_working_directory_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "__init__.py").write_text("raise SystemExit('hijacked')")
    path = tiny.llama(tmp_path / "x.gguf")
    monkeypatch.chdir(tmp_path)
    assert trial(Path("x.gguf"), threads=1).finite
    assert path.exists()


def test_on_android_the_bindings_are_told_linux_and_the_rest_of_python_is_not() -> None:
    program = (
        "import sys; sys.platform = 'android'\n"
        "from agent.engine.llama_import import import_llama\n"
        "assert import_llama().llama_max_devices() >= 0 and sys.platform == 'android'\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert ended.returncode == 0, ended.stderr


def test_without_llama_cpp_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("llama_cpp", "llama_cpp.llama_cpp"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SprigError, match="pip install --force-reinstall llama-cpp-python"):
        import_llama()
