"""Of which kind the value of each key is that llama.cpp or Sprig reads. An odd one is refused where the file is checked, so
that nobody who reads a key must look what it is.

A key that stands in no list is read by nobody here. Source: llama-arch.cpp (names) and llama-model.cpp (kinds) of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from agent.gguf.reader import Header
from agent.text import brief

INTEGERS = frozenset({"u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"})
FLOATS = frozenset({"f32", "f64"})
_LARGEST = float(np.finfo(np.float32).max)
_MOST = (1 << 31) - 1  # llama.cpp keeps them in 32 bits with a sign

# Under the architecture's own prefix.
_WHOLE = """
    altup.active_idx altup.num_inputs attention.group_norm_groups attention.indexer.head_count attention.indexer.key_length
    attention.indexer.top_k attention.key_length attention.key_length_mla attention.key_length_swa attention.kv_lora_rank
    attention.q_lora_rank attention.relative_buckets_count attention.shared_kv_layers attention.sliding_window
    attention.temperature_length attention.value_length attention.value_length_mla attention.value_length_swa block_count
    context_length decoder_block_count decoder_start_token_id embedding_length embedding_length_out
    embedding_length_per_layer_input expert_chunk_feed_forward_length expert_count expert_feed_forward_length expert_gating_func
    expert_group_count expert_group_used_count expert_shared_count expert_shared_feed_forward_length experts_per_group
    full_attention_interval interleave_moe_layer_step leading_dense_block_count moe_every_n_layers n_deepstack_layers
    nextn_predict_layers pooling_type rescale_every_n_layers rope.dimension_count rope.dimension_count_swa
    rope.scaling.original_context_length shortconv.l_cache ssm.conv_kernel ssm.group_count ssm.inner_size ssm.state_size
    ssm.time_step_rank token_shift_count vocab_size wkv.head_size
"""
_WHOLE_BY_LAYER = "attention.head_count attention.head_count_kv expert_used_count feed_forward_length rope.dimension_sections"
_NUMBER = """
    attention.clamp_kqv attention.group_norm_epsilon attention.layer_norm_epsilon attention.layer_norm_rms_epsilon
    attention.max_alibi_bias attention.output_scale attention.scale attention.temperature_scale attn_logit_softcapping
    embedding_scale expert_group_scale expert_weights_scale final_logit_softcapping logit_scale residual_scale rope.freq_base
    rope.freq_base_swa rope.scale_linear rope.scaling.attn_factor rope.scaling.factor rope.scaling.yarn_attn_factor
    rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow rope.scaling.yarn_ext_factor rope.scaling.yarn_log_multiplier
    router_logit_softcapping
"""
_FLAG = "attention.causal expert_weights_norm rope.scaling.finetuned ssm.dt_b_c_rms swin_norm use_parallel_residual"
_TEXT = "rope.scaling.type tensor_data_layout"

# With their whole names.
_WHOLE_ELSEWHERE = """
    general.file_type general.quantization_version split.count split.no split.tensors.count tokenizer.ggml.token_type_count
    general.base_model.count general.dataset.count quantize.imatrix.chunks_count quantize.imatrix.entries_count
"""
_SAMPLING = """
    general.sampling.min_p general.sampling.penalty_repeat general.sampling.temp general.sampling.top_k general.sampling.top_p
"""
_FLAG_ELSEWHERE = """
    tokenizer.ggml.add_bos_token tokenizer.ggml.add_eos_token tokenizer.ggml.add_sep_token tokenizer.ggml.add_space_prefix
    tokenizer.ggml.remove_extra_whitespaces
"""
_TEXT_ELSEWHERE = """
    general.architecture general.name general.type quantize.imatrix.file sprig.recipe sprig.version sprig.source.commit
    sprig.source.name tokenizer.ggml.model tokenizer.ggml.pre tokenizer.huggingface.json
"""
_PROMPT = "sprig.prompt."  # what is put before a text, by the kind of text


def _whole(kind: str, value: Any) -> bool:
    return kind in INTEGERS and 0 <= value <= _MOST


def _whole_by_layer(kind: str, value: Any) -> bool:
    if kind.removeprefix("arr[").removesuffix("]") not in INTEGERS:
        return False
    numbers = np.atleast_1d(value)
    return bool(numbers.size and numbers.min() >= 0 and numbers.max() <= _MOST)


def _pattern(kind: str, value: Any) -> bool:
    return kind == "arr[bool]" or _whole_by_layer(kind, value)


def _number(kind: str, value: Any) -> bool:
    return kind in FLOATS and abs(value) <= _LARGEST


_Kind = tuple[str, Callable[[str, Any], bool]]
_A_WHOLE: _Kind = (f"a whole number from 0 to {_MOST}", _whole)
_A_NUMBER: _Kind = ("a number in floating point", _number)
_A_FLAG: _Kind = ("true or false", lambda kind, value: kind == "bool")
_A_TEXT: _Kind = ("a text", lambda kind, value: kind == "str")


def _table(*rows: tuple[str, _Kind]) -> Mapping[str, _Kind]:
    return {name: kind for names, kind in rows for name in names.split()}


# name -> what its value must be, in words and as a question: below an architecture's prefix, and with the whole name.
OF_ARCHITECTURE = _table(
    (_WHOLE, _A_WHOLE), (_NUMBER, _A_NUMBER), (_FLAG, _A_FLAG), (_TEXT, _A_TEXT),
    (_WHOLE_BY_LAYER, (f"{_A_WHOLE[0]}, or one for each layer", _whole_by_layer)),
    ("attention.sliding_window_pattern", ("a whole number, or one flag for each layer", _pattern)),
)  # fmt: skip
KNOWN = _table(
    (_WHOLE_ELSEWHERE, _A_WHOLE), (_FLAG_ELSEWHERE, _A_FLAG), (_TEXT_ELSEWHERE, _A_TEXT),
    (_SAMPLING, ("a number", lambda kind, value: kind in INTEGERS or _number(kind, value))),
    ("tokenizer.ggml.precompiled_charsmap", ("an array of bytes", lambda kind, value: kind in ("arr[u8]", "arr[i8]"))),
)  # fmt: skip


def odd_kinds(header: Header) -> Iterator[str]:
    """A line for each key whose value is not what it must be."""
    arch = f"{header.keys.get('general.architecture')}."
    for key, value in header.keys.items():
        known = KNOWN.get(key) or (OF_ARCHITECTURE.get(key.removeprefix(arch)) if key.startswith(arch) else None)
        if key.startswith(_PROMPT):
            known = _A_TEXT
        if known is not None and not known[1](header.types[key], value):
            yield f"{brief(key)[1:-1]} is {brief(value)} and must be {known[0]}"
