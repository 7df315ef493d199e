"""Mistral 3, a wrapper for text and images. If config.json names no type for its text part, that is Mistral."""

from pipeline.architectures.mistral import Mistral


class Mistral3(Mistral):
    pass
