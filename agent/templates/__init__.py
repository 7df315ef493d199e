"""The parts of agent.chat_template: the sandbox, its process, trusted and untrusted text, what a template can do."""
