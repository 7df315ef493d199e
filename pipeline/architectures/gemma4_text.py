"""Gemma 4 without parts for images and sound: what the wrapper gemma4 has inside."""

from pipeline.architectures.gemma4 import Gemma4


class Gemma4Text(Gemma4):
    pass
