"""Runs: what may be done on behalf of an attempt, what its end means, and when the next one comes."""
