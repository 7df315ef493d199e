"""Idefics 3, a wrapper for text and images. If config.json names no type for its text part, that is Llama."""

from pipeline.architectures.llama import Llama


class Idefics3(Llama):
    pass
