"""Connections: their rows, when they are due, and which connection continues the state of a deleted one."""
