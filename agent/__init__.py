"""The device side of Sprig: what checks, loads and runs a GGUF. Needs nothing of the pipeline."""

from agent.errors import SprigError

__all__ = ["SprigError"]
