"""What a call would change, for the question whether it may."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preview:
    """What a person sees before the yes.

    Attributes:
        change: in a few words: "replaces 3 lines with 4".
        diff: the change of a text, whole, as a unified diff; untrusted, and empty where there is none to show.
        state: what the change was worked out from, for the tool alone: a call that was approved is refused when this is no longer
            how things are.
    """

    change: str
    diff: str = ""
    state: str = ""
