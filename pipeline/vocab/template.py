"""The chat template that a file carries: the checkpoint's own, if it renders, or another that a person gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import Keys

from agent.errors import TemplateError, VocabError
from agent.templates.probe import TemplateReport, check_template
from pipeline.format.gguf_file import Value
from pipeline.vocab.special import template_keys, template_text


@dataclass(frozen=True, slots=True)
class ChosenTemplate:
    """The template of the output.

    Attributes:
        keys: the ``tokenizer.chat_template`` keys.
        words: what it can do, in one phrase.
        notes: what a person should know, a line each.
    """

    keys: dict[str, Value]
    words: str
    notes: tuple[str, ...] = ()


def choose_template(templates: Mapping[str, str], tokenizer: Mapping[str, Any], given: Path | None = None) -> ChosenTemplate:
    """The template to write.

    Args:
        templates: the checkpoint's, by name.
        tokenizer: the keys of the vocabulary.
        given: a file whose template takes the place of all of them.

    Raises:
        VocabError: the file cannot be read, or its template does not render.
    """
    if given is not None:
        return _given(given, tokenizer)
    template = templates.get("default")
    if template is None:
        return ChosenTemplate(template_keys(templates), "none")
    try:
        report = _report(template, tokenizer)
    except TemplateError as e:
        why = f"the chat template is left out, since it {_fault(e)}; --chat-template FILE gives another"
        others = {name: text for name, text in templates.items() if name != "default"}
        return ChosenTemplate(template_keys(others), "none: the checkpoint's does not render", (why,))
    return ChosenTemplate(template_keys(templates), _words(report))


def _given(path: Path, tokenizer: Mapping[str, Any]) -> ChosenTemplate:
    try:
        text = template_text(path.read_bytes(), str(path))
        return ChosenTemplate(template_keys({"default": text}), f"{_words(_report(text, tokenizer))}, from {path.name}")
    except OSError as e:
        raise VocabError(f"--chat-template: {path} cannot be read: {e.strerror or e}") from None
    except VocabError as e:
        raise VocabError(f"--chat-template: {path} {_fault(e)}") from None


def _fault(error: Exception) -> str:
    """What a template does wrong, as the end of a sentence about it."""
    named = "the chat template "
    return str(error).removeprefix(named) if str(error).startswith(named) else f"does not render: {error}"


def _report(template: str, tokenizer: Mapping[str, Any]) -> TemplateReport:
    """What the template can do. Raises TemplateError if it does not render."""
    ids = (tokenizer.get(key) for key in (Keys.Tokenizer.BOS_ID, Keys.Tokenizer.EOS_ID))
    bos, eos = ("" if number is None else tokenizer[Keys.Tokenizer.LIST][number] for number in ids)
    report = check_template(template, bos=bos, eos=eos)
    if not report.renders:
        raise TemplateError(str(report.error))
    return report


def _words(report: TemplateReport) -> str:
    can = [word for word, yes in (("system", report.supports_system), ("tools", report.supports_tools)) if yes]
    return f"renders ({', '.join(can) or 'no system, no tools'})"
