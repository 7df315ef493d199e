"""Voxtral, a wrapper for text and sound. If config.json names no type for its text part, that is Llama."""

from pipeline.architectures.llama import Llama


class Voxtral(Llama):
    pass
