"""From one rendered call, or two, to the dialect in which it is written; no list of models, only the text.

The idea to render small conversations that differ in one thing is that of llama.cpp's template analysis (docs/autoparser.md).
"""

from __future__ import annotations

from dataclasses import replace

from agent.dialects import families
from agent.dialects.base import Dialect
from agent.dialects.check import fault
from agent.dialects.seen import FIRST, Seen, common_end, common_start
from agent.dialects.table import STYLES
from agent.dialects.write import write_calls
from agent.messages import ToolCall

# What a template says of a format whose calls it does not write. The first that is found counts.
_FINGERPRINTS: dict[str, Dialect] = {
    **dict.fromkeys(("<|tool_call_start|>", "<|tool_list_start|>", "List of tools: ["), families.LFM2),
    "<start_function_call>": families.FUNCTION_GEMMA, "<｜tool▁calls▁begin｜>": families.DEEPSEEK, "<|/tool|>": families.PHI4,
    "<|tool_call>call:": families.GEMMA4, "<|tool_call|>": families.GRANITE3, "[CALL_ID]": families.MISTRAL_SMALL,
    "[ARGS]": families.MINISTRAL, "[TOOL_CALLS]": families.MISTRAL_NEMO, "<tool_call>\\n<function=": families.QWEN_CODER,
    "<tool_call>": families.HERMES,
}  # fmt: skip


def by_fingerprint(source: str, tools_shown: bool) -> Dialect:
    """The dialect that a template's text speaks of; the generic one where it speaks of none."""
    for mark, dialect in _FINGERPRINTS.items():
        if mark in source:
            return dialect
    return families.HERMES if tools_shown else families.GENERIC


def difference(word: str, other: str) -> tuple[str, str]:
    """What stands in ``other`` in place of a word, and what stands before it in both; no mark is cut in two."""
    before = common_start(word, other)
    if (opened := before.rfind("<")) > before.rfind(">"):
        before = before[:opened]
    rest = other[len(before) :]
    after = common_end(word[len(before) :], rest)
    if (closed := after.find(">")) >= 0 and "<" not in after[:closed]:
        after = after[closed + 1 :]
    return rest.removesuffix(after), before


def from_calls(one: str, two: str | None, opened: str = "") -> tuple[Dialect | None, str]:
    """The dialect of rendered calls.

    Args:
        one: what was rendered for the call FIRST; what stands around the calls may be in it.
        two: what was rendered for FIRST and SECOND; None when several calls are refused.
        opened: what was rendered before, which a turn without calls has as well.

    Returns:
        A family's dialect where the marks are a family's, otherwise one made of what was seen; None when no style fits, or what
        fits cannot be read back. And then why, in a few words.
    """
    for thought in families.THOUGHTS:  # an empty one before the calls is none of their marks
        one, two = one.removeprefix(thought.open + thought.close), two and two.removeprefix(thought.open + thought.close)
    why = "its form is of no known style"
    for style in STYLES.values():
        found = style.probe(Seen(one, two))
        if found is None:
            continue
        mark = found.separator.strip()
        # A turn without calls begins with the mark of a call, too, when it names "all" as who is called.
        if not found.section_open + found.call_open and mark and opened.endswith(mark):
            found = replace(found, call_open=mark, separator="", trigger=mark, only_at_start=False)
        found = _family(found)
        # Where what stands before the name changes with the call, no dialect can say so.
        wrong = "a call's name or id is within its marks" if _speaks_of(found) else fault(found)
        if not wrong:
            return found, ""
        why = wrong
    return None, why


def _speaks_of(dialect: Dialect) -> bool:
    marks = (dialect.section_open, dialect.call_open, dialect.separator, dialect.parameter_open, dialect.before_name)
    return any(word in mark for word in (FIRST.id, FIRST.name, "{name}") for mark in marks) or FIRST.id in str(dialect.to_dict())


def _family(seen: Dialect) -> Dialect:
    """The family that writes calls so; its white space as it was seen."""
    known = [d for d in families.DIALECTS.values() if d is not families.GENERIC and d.style == seen.style]
    shape = _shape(seen)
    found = next((family for family in known if _shape(family) == shape), None)
    if found is not None:
        return replace(
            found, parallel=seen.parallel and found.parallel, call_open=seen.call_open, call_close=seen.call_close,
            section_open=seen.section_open, section_close=seen.section_close,
            separator=seen.separator if seen.parallel else found.separator,
            after_name=seen.after_name, parameter_middle=seen.parameter_middle, parameter_close=seen.parameter_close,
        )  # fmt: skip
    # What is seen may end before the last mark, where the turn ends with the same one.
    if shape.endswith(">") and (found := next((family for family in known if _shape(family).startswith(shape)), None)):
        return found
    return replace(seen, name=f"{seen.style} {seen.trigger}" if not seen.only_at_start else seen.style)


def _shape(dialect: Dialect) -> str:
    """A call in a dialect, without white space."""
    call = ToolCall(FIRST.name, FIRST.arguments, FIRST.id)
    return "".join("".join(segment.text for segment in write_calls(dialect, [call], {})).split())
