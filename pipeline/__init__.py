"""The workstation side of Sprig: a checkpoint becomes a GGUF."""
