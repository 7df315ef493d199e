"""The errors that Sprig raises: a small tree under one root.

Every message is one line for a person. It says what happened, to which file or tensor, and what to do about it.
"""

from __future__ import annotations


class SprigError(Exception):
    """Something could not be done. ``str(error)`` is one clear line; the command exits with status 1."""


class SourceError(SprigError):
    """The model could not be found, reached, downloaded or proved to be the one that was asked for."""


class BrokenOffError(SourceError):
    """The source stopped answering; what was read until then is good, and a later run may go on from it."""


class CheckpointError(SprigError):
    """A checkpoint's files are broken: a truncated or lying header, a missing shard, a wrong shape, a NaN weight."""


class UnsupportedError(SprigError):
    """The model is whole, but Sprig does not know how to convert it (architecture, tokenizer, data type)."""


class VocabError(SprigError):
    """A tokenizer or chat template is broken."""


class TemplateError(VocabError):
    """A chat template could not be rendered, or must not be."""


class RecipeError(SprigError):
    """A quantization type, a pattern or an importance matrix does not fit the model."""


class OutputError(SprigError):
    """The result could not be written, or what was written did not pass its check."""


class GGUFError(SprigError):
    """A GGUF file is broken or must not be loaded."""


class SchemaError(SprigError):
    """A JSON Schema contradicts itself, asks for what cannot be written, or is too large to be used."""


class EngineError(SprigError):
    """The model could not be loaded, or its process died. The engine starts it again when it is next needed."""


class ContextFull(SprigError):
    """What is to be asked does not fit the context, whatever else of the conversation is given up."""


class Unanswered(EngineError):
    """Nobody waited for the model's process any longer: ``reason`` is "cancelled" or "time"."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
