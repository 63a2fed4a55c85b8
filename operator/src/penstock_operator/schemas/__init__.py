"""Schemas of streams: how two of them differ, and what a connection's policy allows."""
