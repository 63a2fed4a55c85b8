"""Retention: deletes, by policy, objects and rows that are no longer needed."""
