"""Mistral 3, a wrapper for text and images. Its text part may be of another type; where config.json is silent it is Mistral."""

from __future__ import annotations

from pipeline.architectures.mistral import Mistral


class Mistral3(Mistral):
    pass
