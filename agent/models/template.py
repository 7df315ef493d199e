"""A model's own chat template, or what stands in for it, and what a person should know about it."""

from __future__ import annotations

from agent.errors import TemplateError
from agent.home import home
from agent.models.file import ModelFile
from agent.templates.chat_template import CHATML_FALLBACK, ChatTemplate


def open_template(file: ModelFile, *, with_tools: bool) -> tuple[ChatTemplate, list[str]]:
    """The template of a model, to be closed, and notes. ``with_tools`` says whether tools will be used."""
    bos, eos = file.bos, file.eos
    cache = home() / "cache" / "templates"
    note = "the model has no chat template; ChatML stands in for it, and the answers may be poor"
    if file.template:
        try:
            template = ChatTemplate(file.template, bos=bos, eos=eos, cache=cache)
            profile = template.profile
            if profile.error is None:
                return template, [note for note in (with_tools and profile.note, profile.forgeable) if note]
            template.close()
            why = profile.error
        except TemplateError as e:
            why = str(e)
        note = f"the model's chat template cannot be used ({why}); ChatML stands in for it"
    return ChatTemplate(CHATML_FALLBACK, bos=bos, eos=eos, cache=cache), [note]
