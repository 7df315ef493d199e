"""The terminal UI of Sprig. It talks to the agent and never to llama.cpp."""
