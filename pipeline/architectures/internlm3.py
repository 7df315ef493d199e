"""InternLM3 (8B): Llama."""

from pipeline.architectures.llama import Llama
from pipeline.architectures.shared.decoder import sizes


class InternLM3(Llama):
    defaults = sizes(4096, 10240, 48, 32, 2, 32768, rms_norm_eps=1e-5, head_dim=128)
