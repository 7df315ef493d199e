"""What is chosen, by figures alone: a difference must be larger than chance explains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from agent.errors import SprigError
from pipeline.compress.choose import choose_way
from pipeline.compress.plan import WayDown
from pipeline.compress.stage import StageAnswer
from pipeline.compress.stages import WayStages


def way(name: str, *, cut: bool = False) -> WayStages:
    prune = {"vocab_size": 9} if cut else {"ffn": 9}
    stages = (f"{name}.quantize", f"{name}.evaluate", f"{name}.bits")
    made = WayDown(name, None if name == "whole" else prune)
    return WayStages(made, stages[:1] + stages[2:] if cut else stages, stages[0], None if cut else stages[1], stages[2])


def answers(name: str, klds: Sequence[float], bits: Sequence[float]) -> dict[str, StageAnswer]:
    windows = [{"domain": "en", "tokens": 10, "kld": one, "nll": 1.0} for one in klds]
    pieces = [{"domain": "en", "bytes": 40, "bits": one} for one in bits]
    told: dict[str, dict[str, Any]] = {
        "quantize": {}, "evaluate": {"candidates": [{"per_window": windows}]}, "bits": {"per_piece": pieces},
    }  # fmt: skip
    return {f"{name}.{kind}": StageAnswer(f"{name}.{kind}", result, size=50) for kind, result in told.items()}


HARD = (0.1, 0.5, 0.9)  # windows differ more among one another than two files do on one


def less(by: float, spread: float = 0.0) -> tuple[float, ...]:
    return tuple(one - by + more for one, more in zip(HARD, (-spread, 0.0, spread), strict=True))


def test_pairs_show_a_small_difference_among_hard_windows() -> None:
    found = choose_way([way("whole"), way("ffn")], answers("whole", HARD, HARD) | answers("ffn", less(0.01, 0.001), HARD))
    assert found.chosen == "ffn"
    whole, ffn = found.ways
    assert whole.beats is None
    assert whole.kld is not None
    assert whole.kld[1] is not None
    assert whole.kld[1] > 0.1
    assert ffn.kld_over == (pytest.approx(-0.01), pytest.approx(0.001 / 3**0.5))


def test_what_chance_explains_is_no_difference() -> None:
    found = choose_way([way("whole"), way("ffn")], answers("whole", HARD, HARD) | answers("ffn", less(0.01, 0.05), HARD))
    assert found.chosen == "whole"
    assert found.why.startswith("whole: nothing that was cut beats the whole model in the same bytes (ffn -0.0100 ± 0.0289 nats")


def test_one_window_says_nothing() -> None:
    found = choose_way([way("whole"), way("ffn")], answers("whole", [0.5], [1.0]) | answers("ffn", [0.1], [1.0]))
    assert found.chosen == "whole"


def test_a_cut_vocabulary_is_judged_by_bytes_and_then_all_are() -> None:
    told = answers("whole", HARD, HARD) | answers("ffn", less(0.05), less(0.01)) | answers("vocab", HARD, less(0.02))
    found = choose_way([way("whole"), way("ffn"), way("vocab", cut=True)], told)
    assert [one.beats for one in found.ways] == [None, True, True]
    assert found.ways[2].kld is None
    assert found.chosen == "vocab", "the fewest bits per byte"
    told |= answers("vocab", HARD, [one + 0.02 for one in HARD])
    assert choose_way([way("whole"), way("ffn"), way("vocab", cut=True)], told).chosen == "ffn"


def test_without_a_whole_model_that_is_so_small_the_best_is_taken() -> None:
    found = choose_way([way("ffn"), way("more")], answers("ffn", HARD, HARD) | answers("more", less(0.01, 0.05), HARD))
    assert found.chosen == "more"
    assert found.why == "more: the whole model cannot be so small, and it is the best of 2"


def test_when_nothing_was_made_every_reason_is_said() -> None:
    told = {f"{name}.quantize": StageAnswer(f"{name}.quantize", {}, error="no room") for name in ("a", "b")}
    with pytest.raises(SprigError, match=r"no candidate could be made: a: a\.quantize: no room; b: b\.quantize: no room"):
        choose_way([way("a"), way("b")], told)
