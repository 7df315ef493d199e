"""How large a chat template may be, and what rendering with it may take. A template is untrusted code."""

from __future__ import annotations

MAX_TEMPLATE_BYTES = 256 * 1024
MAX_OUTPUT = 1_000_000  # characters of one rendered conversation
MEMORY_BYTES = 512_000_000
CPU_SECONDS = 2
WALL_SECONDS = 20.0  # far above the processor time: a board under load is no hostile template
SEND_LESS = "send less at once, or let a tool read a long text part by part"  # what to do about a conversation that is too long
