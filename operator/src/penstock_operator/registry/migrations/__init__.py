"""Forward-only migrations, applied in order of their number."""
