"""A model's own chat template, put to use: a conversation becomes trusted and untrusted segments, and grows by its end only.

Templates are untrusted code, so they run in a process of their own (agent.templates.process). Texts of users, tools, files and
models pass through them in a disguise (agent.templates.shadow), so that they can neither be taken for the template's logic nor
afterwards for its control marks. What a template can do is probed once and kept (agent.templates.probe).
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.dialects.probe import difference
from agent.errors import OutputError, TemplateError
from agent.files import atomic_write
from agent.messages import Message, Segment, ToolSpec
from agent.templates.messages import Prepared, after_words, marked, prepared
from agent.templates.probe import inside, probe
from agent.templates.process import RenderJob, TemplateProcess
from agent.templates.profile import Profile
from agent.templates.shadow import segments

log = logging.getLogger(__name__)

# For files without a template, or with a broken one: the format that most small models have seen.
CHATML_FALLBACK = """{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}
"""

_PROFILE_VERSION = 5  # raise it when probing finds out more, or other things
_RESERVED = frozenset({"messages", "tools", "bos_token", "eos_token", "add_generation_prompt"})
_PRIVATE = re.compile(r"[\U000f0000-\U0010ffff]|\\U00(0f|10)", re.IGNORECASE)
_NO_OPTIONS: Mapping[str, Any] = {}


def forgeable(templates: Mapping[str, str]) -> tuple[str, ...]:
    """Notes on a model whose templates (by name, as in a GGUF) let a text of others pass for another role; usually none."""
    source = templates.get("tool_use") or templates.get("default") or ""
    if not source:
        return ()
    try:
        with closing(ChatTemplate(source)) as template:
            return tuple(filter(None, [template.profile.forgeable]))
    except TemplateError:
        return ()  # another template stands in for it


class ChatTemplate:
    """One chat template in one child process, which starts at once and works beside the loading of the model.

    The rendered text may begin with the text of the token that begins a sequence: the caller must not add that token again.
    Options are variables for the template, like ``enable_thinking``; they come from a script, not from a text, and are trusted.
    All methods may be called from several threads.

    Args:
        source: the template's text.
        bos: text of the token that begins a sequence.
        eos: text of the token that ends one.
        cache: folder in which profiles are kept; None to probe every time.

    Raises:
        TemplateError: here, and from all methods: the template is too large, hostile or broken, or refuses this conversation.
    """

    def __init__(self, source: str, *, bos: str = "", eos: str = "", cache: Path | None = None) -> None:
        if _PRIVATE.search(source):
            raise TemplateError(
                "the chat template writes characters for private use (planes 15 and 16), which hide text; use another one"
            )
        self._source = source
        key = json.dumps([_PROFILE_VERSION, source, bos, eos]).encode()
        self._kept = None if cache is None else cache / f"{hashlib.sha256(key).hexdigest()}.json"
        self._process = TemplateProcess(source, bos, eos)
        self._profile: Profile | None = None
        self._starts: dict[str, bool] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the child process."""
        self._process.close()

    @property
    def profile(self) -> Profile:
        """What the template can do: probed at first use, or read where it was kept."""
        with self._lock:
            if self._profile is None:
                kept = self._load()
                self._profile = found = kept or self._probe()
                log.info("chat template %s: dialect %s", "known" if kept else "probed", found.dialect and found.dialect.name)
            return self._profile

    def _load(self) -> Profile | None:
        if self._kept is None:
            return None
        try:
            return Profile.from_dict(json.loads(self._kept.read_text("utf-8")))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None  # absent, or not what was written: probing tells

    def _probe(self) -> Profile:
        found = probe(self._process, self._source)
        if self._kept is not None:
            try:
                self._kept.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(self._kept, json.dumps(asdict(found)))
            except (OSError, OutputError):
                pass  # a read-only disk costs a probe at every start, nothing else
        return found

    def head(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), options: Mapping[str, Any] = _NO_OPTIONS, *,
        now: datetime | None = None,
    ) -> list[Segment]:  # fmt: skip
        """The whole prompt of a conversation, up to and including the generation prompt.

        Args:
            messages: from the first on; the last is a user's or a tool's.
            tools: that the model may call.
            options: for the template.
            now: the date and time, where the template writes them; by default, now.
        """
        return segments(self._conversation(messages, tools, options, now, prompt=True))

    def whole(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), options: Mapping[str, Any] = _NO_OPTIONS, *,
        now: datetime | None = None,
    ) -> list[Segment]:  # fmt: skip
        """A conversation as it stands behind its last message, without a generation prompt; the arguments are those of head."""
        return segments(self._conversation(messages, tools, options, now, prompt=False))

    def _conversation(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], options: Mapping[str, Any], now: datetime | None, *,
        prompt: bool,
    ) -> str:  # fmt: skip
        profile = self._usable()
        try:
            return self._render(prepared(messages, tools, profile), options, prompt=prompt, now=now)
        except TemplateError:
            if not any(message.thinking for message in messages):
                raise
            # Some refuse a thought beside words or calls; a past thought is what a conversation can do without.
            spoken = [replace(message, thinking="") for message in messages]
            return self._render(prepared(spoken, tools, profile), options, prompt=prompt, now=now)

    def continuation(
        self, previous: Message, new: Sequence[Message], tools: Sequence[ToolSpec] = (),
        options: Mapping[str, Any] = _NO_OPTIONS, *, now: datetime | None = None,
    ) -> list[Segment]:  # fmt: skip
        """What follows the words of an assistant (without the token with which it ended them), so that it may speak again.

        Args:
            previous: the assistant's message; of its calls, only names and ids are read.
            new: results of tools, users' messages.
            tools: as for head; they are not described again.
            options: for the template.
            now: as for head.
        """
        profile = self._usable()
        ways = [True, False] if profile.calls and previous.calls and new and new[0].role == "tool" else [False]
        reason = ""
        for with_calls in ways:
            ready = marked(previous, new, tools, profile, with_calls=with_calls)
            try:
                text = self._render(ready, options, now=now)
            except TemplateError as e:
                reason = str(e)
                continue
            rest = after_words(text, profile, with_calls=with_calls)
            if rest is not None:
                return segments(rest)
            reason = "the chat template does not show what an assistant said"
        raise TemplateError(reason)

    def started(self, options: Mapping[str, Any] = _NO_OPTIONS) -> bool:
        """Whether the generation prompt leaves the model inside a thought."""
        profile = self._usable()
        if profile.thinking is None:
            return False
        key = json.dumps(options, sort_keys=True, default=str)
        if key not in self._starts:
            ready = prepared([Message("user", "x")], (), profile)
            plain, prompt = (self._render(ready, options, prompt=ask) for ask in (False, True))
            self._starts[key] = inside(profile.thinking, difference(plain, prompt)[0])
        return self._starts[key]

    def _usable(self) -> Profile:
        profile = self.profile
        if profile.error is not None:
            raise TemplateError(f"the chat template does not render a conversation: {profile.error}")
        return profile

    def _render(self, ready: Prepared, options: Mapping[str, Any], *, prompt: bool = True, now: datetime | None = None) -> str:
        if wrong := _RESERVED & set(options):
            raise TemplateError(f"the option {min(wrong)!r} is not for the template to be given so; leave it out")
        job = RenderJob(ready.messages, ready.tools, prompt, {**options, **ready.options}, now or datetime.now())
        done = self._process.render([job])[0]
        if done.error is not None:
            raise TemplateError(f"the chat template refuses this conversation: {done.error}")
        return done.text
