"""Which models write text: not those that give vectors or scores."""

from __future__ import annotations

from typing import Any

import pytest

from agent.models.file import writes_text


@pytest.mark.parametrize(
    ("keys", "writes"),
    [
        ({"general.architecture": "qwen3"}, True),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 0}, True),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 3}, False),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 4}, False),
        ({"general.architecture": "bert", "bert.attention.causal": False}, False),
        ({"general.architecture": "gemma-embedding"}, False),
    ],
)
def test_a_model_that_pools_or_sees_a_text_as_a_whole_writes_none(keys: dict[str, Any], writes: bool) -> None:
    assert writes_text(keys) is writes
