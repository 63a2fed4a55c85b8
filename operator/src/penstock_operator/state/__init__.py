"""State: its history, and the changes that a person asks for: reset, rewind, import."""
