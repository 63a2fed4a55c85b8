"""Rate limits of sources: one budget for all connections that share a limit."""
