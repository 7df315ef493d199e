"""LFM2-VL, a wrapper for text and images. If config.json names no type for its text part, that is LFM2."""

from pipeline.architectures.lfm2 import Lfm2


class Lfm2Vl(Lfm2):
    pass
