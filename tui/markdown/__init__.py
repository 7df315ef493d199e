"""Markdown as it streams in: lines become leaves, leaves become rows of styled text. Knows nothing of the screen."""
