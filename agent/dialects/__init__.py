"""How each model family writes a tool call, and how what it writes is read."""
