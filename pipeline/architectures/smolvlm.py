"""SmolVLM, a wrapper for text and images. If config.json names no type for its text part, that is Llama."""

from pipeline.architectures.llama import Llama


class SmolVlm(Llama):
    pass
