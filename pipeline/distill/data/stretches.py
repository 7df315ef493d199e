"""A conversation through the model's chat template, cut where the assistant begins and ends to speak.

The assistant's part of a turn is what the template writes with its message and does not write without it: thought, words, calls,
and the mark that ends the turn, which it must learn to say too. All before is context.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from agent.dialects.families import THINK
from agent.errors import TemplateError
from agent.messages import Message, Segment
from agent.templates.chat_template import ChatTemplate
from agent.templates.probe import inside
from agent.templates.shadow import segments, shadow, woven
from pipeline.distill.data.content import ChatTranscript, LineError

log = logging.getLogger(__name__)

_UNTRUSTED = re.compile(r"[\U000f0000-\U000fffff]")  # a shadowed character
_NOW = datetime(2026, 1, 1)  # what a template that writes the date is told, so that a file always gives the same tokens


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part of a sequence: its text, and whether the assistant says it, in one breath, and the loss counts it."""

    segments: tuple[Segment, ...]
    scored: bool


def stretches_of(template: ChatTemplate, talk: ChatTranscript) -> list[list[Stretch]]:
    """The sequences that a conversation becomes.

    One, in which every turn of the assistant counts; another begins where the template writes the past otherwise than it was
    said (many leave old thoughts out), so that each turn counts in exactly one of them and stands there behind what a model is
    given in use.

    Raises:
        LineError: the template does not write this conversation.
    """
    sequences: list[list[Stretch]] = []
    done = ""  # of the last sequence, as the template has written it
    for i, message in enumerate(talk.messages):
        if message.role != "assistant" or not any(m.role == "user" for m in talk.messages[:i]):
            continue
        if len(message.calls) > 1 and template.profile.calls and not template.profile.parallel:
            raise LineError(f"message {i + 1} has {len(message.calls)} calls, and the chat template writes one in a message")
        try:
            before, said = _turn(template, talk, i)
        except TemplateError as e:
            raise LineError(str(e)) from None
        if not sequences or not before.startswith(done):
            sequences.append([])
            done = ""
        sequences[-1] += [
            Stretch(tuple(segments(before[len(done) :])), False),
            Stretch(tuple(segments(said)), True),
        ]
        done = before + said
    return sequences


def _turn(template: ChatTemplate, talk: ChatTranscript, i: int) -> tuple[str, str]:
    """What stands before the assistant's message, and its part; texts of others, and its own, shadowed."""
    prompt = woven(template.head(talk.messages[:i], talk.tools, now=_NOW))
    whole = woven(template.whole(talk.messages[: i + 1], talk.tools, now=_NOW))
    before, said = prompt, whole.removeprefix(prompt)
    if said == whole:
        before, said = _parted(template, talk, i, prompt, whole)
    if not said.strip():
        raise TemplateError(f"the chat template does not show what the assistant says in message {i + 1}")
    before, said = _with_thought(template, talk.messages[i], prompt, before, said)
    return before, said.rstrip()


def _parted(template: ChatTemplate, talk: ChatTranscript, i: int, prompt: str, whole: str) -> tuple[str, str]:
    """The same where the template writes the past, or the beginning of a turn, otherwise once the turn is over.

    What another answer would share with the conversation is not the assistant's. Where the generation prompt ends there, the
    prompt itself is what the part stands behind.
    """
    other = [*talk.messages[:i], Message("assistant", "Zfq")]
    start = len(_common(whole, woven(template.whole(other, talk.tools, now=_NOW))))
    past = woven(template.whole(talk.messages[:i], talk.tools, now=_NOW))
    asked = prompt.removeprefix(past) if prompt.startswith(past) else ""
    end = whole.rfind(asked) + len(asked)
    if asked and end >= len(asked) and not _UNTRUSTED.search(whole[end:start]):
        return prompt, whole[end:]
    return whole[:start], whole[start:]


def _common(a: str, b: str) -> str:
    """The beginning that two texts share."""
    return a[: next((i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))]


def _with_thought(template: ChatTemplate, message: Message, prompt: str, before: str, said: str) -> tuple[str, str]:
    """The turn with its thought, where the template leaves thoughts out of what was said."""
    thought = shadow(message.thinking.strip())
    if not thought or thought in said:
        return before, said
    if template.profile.thinking != THINK:
        _say_once("the chat template has no place for the thoughts of the assistant; they are left out")
        return before, said
    rest = f"{thought}\n{THINK.close}\n\n{said.lstrip()}"
    return (prompt, rest) if inside(THINK, prompt) else (before, f"{THINK.open}\n{rest}")


@cache
def _say_once(words: str) -> None:
    log.warning(words)


def passage_stretches(prompt: str, text: str) -> list[Stretch]:
    """A plain text, of which what stands behind the prompt counts."""
    parts: Sequence[tuple[str, bool]] = ((prompt, False), (text, True))
    return [Stretch((Segment(part, False),), scored) for part, scored in parts if part]
