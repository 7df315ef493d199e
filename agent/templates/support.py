"""A model's own chat template: untrusted code in a small language, so it is rendered in a child process with little of anything.

How templates are set up, and what they may expect, follows transformers (``apply_chat_template``); the sandbox is jinja2's.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass

from agent.children.child import Ended, run_module
from agent.errors import VocabError
from agent.text import display

MAX_TEMPLATE_BYTES = 256 * 1024
CPU_SECONDS = 1
MEMORY_BYTES = 512_000_000
MAX_OUTPUT = 1_000_000  # characters of one rendered conversation


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
        VocabError: the template does not parse, does not end, takes too much memory, writes without end, or tries to
            leave the sandbox.
    """
    size = len(template.encode("utf-8", "surrogatepass"))
    if size > MAX_TEMPLATE_BYTES:
        raise VocabError(f"the chat template has {size} bytes; more than {MAX_TEMPLATE_BYTES} are not accepted")
    job = json.dumps({
        "template": template, "bos": bos, "eos": eos,
        "cpu_seconds": CPU_SECONDS, "memory_bytes": MEMORY_BYTES, "max_output": MAX_OUTPUT,
    })  # fmt: skip
    ended = run_module("agent.templates.support_child", [], job.encode(), timeout)
    answer = _answer(ended)
    if "broken" in answer:
        raise VocabError(f"the chat template {one_line(answer['broken'])}")
    error = answer["error"]
    return TemplateReport(
        renders=error is None,
        supports_system=bool(answer["system"]),
        supports_tools=bool(answer["tools"]),
        error=None if error is None else one_line(error),
    )


def _answer(ended: Ended) -> dict[str, str | bool | None]:
    if ended.timed_out or -ended.status in (signal.SIGKILL, signal.SIGXCPU):
        raise VocabError(f"the chat template did not end within {CPU_SECONDS} s of processor time; use another one")
    if ended.cause:
        raise VocabError(f"the chat template broke the process that rendered it ({ended.cause}); use another one")
    try:
        answer: dict[str, str | bool | None] = json.loads(ended.output)
    except ValueError:
        last = ended.log.strip().rsplit("\n", 1)[-1]
        raise VocabError(f"the chat template could not be checked: {one_line(last)}") from None
    return answer


def one_line(text: object) -> str:
    """What a template says, in one line that is safe to show, of 300 characters at most."""
    shown = display(" ".join(str(text).split()))
    return shown if len(shown) <= 300 else shown[:299] + "\u2026"
