"""Resync: compares listed resources with the registry and queues those that differ."""
