"""Granite Speech, a wrapper for text and sound. If config.json names no type for its text part, that is Granite."""

from pipeline.architectures.granite import Granite


class GraniteSpeech(Granite):
    pass
