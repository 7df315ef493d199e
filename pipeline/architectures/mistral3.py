"""Mistral 3, a wrapper for text and images. Its text part may be of another type; where config.json is silent it is Mistral."""

from pipeline.architectures.mistral import Mistral


class Mistral3(Mistral):
    pass
