"""What a chat template supports: system messages, tools, or nothing at all."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from agent.templates.probe import TOOL, TOOL_NAME
from agent.templates.process import RenderJob, TemplateProcess

_CPU_SECONDS = 1
_SYSTEM_WORD = "Zfqxsystem"  # which no template contains by itself
CHAT = [
    {"role": "user", "content": "Hello, who are you?"},
    {"role": "assistant", "content": "A small model."},
    {"role": "user", "content": "What is the weather?"},
]
_SYSTEM = {"role": "system", "content": f"You are {_SYSTEM_WORD}."}


@dataclass(frozen=True, slots=True)
class TemplateReport:
    """What a template can do.

    Attributes:
        renders: a conversation of user, assistant and user.
        supports_system: a system message's text is in what it renders.
        supports_tools: a tool's name is in what it renders.
        error: why it does not render that conversation, in one line; None when it does.
    """

    renders: bool
    supports_system: bool
    supports_tools: bool
    error: str | None


def check_template(template: str, *, bos: str = "", eos: str = "", timeout: float = 5.0) -> TemplateReport:
    """Render small conversations with a chat template, and say what it supports.

    Args:
        template: its text.
        bos: text of the token that begins a sequence, for ``bos_token``.
        eos: text of the token that ends one, for ``eos_token``.
        timeout: seconds for everything; the processor time has a limit of its own.

    Raises:
        TemplateError: the template is too large, does not parse, does not end, takes too much memory, writes without end, or
            tries to leave the sandbox.
    """
    with closing(TemplateProcess(template, bos, eos, cpu_seconds=_CPU_SECONDS, seconds=timeout)) as process:
        plain, system, tools = process.render([RenderJob(CHAT), RenderJob([_SYSTEM, *CHAT]), RenderJob(CHAT, [TOOL])])
    return TemplateReport(plain.error is None, _SYSTEM_WORD in system.text, TOOL_NAME in tools.text, plain.error)
