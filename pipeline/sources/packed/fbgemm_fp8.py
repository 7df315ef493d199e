"""FP8 as FBGEMM has it (Llama 3.1 405B): one 8-bit float a weight, a scale for each row."""

from __future__ import annotations

from pipeline.sources.packed import fp8

read = fp8.read
