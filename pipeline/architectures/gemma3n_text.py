"""Gemma 3n without parts for images and sound: what the wrapper gemma3n has inside."""

from pipeline.architectures.gemma3n import Gemma3n


class Gemma3nText(Gemma3n):
    pass
