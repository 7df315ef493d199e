"""Gemma 3 without a part for images: what the wrapper gemma3 has inside."""

from pipeline.architectures.gemma3 import Gemma3


class Gemma3Text(Gemma3):
    pass
