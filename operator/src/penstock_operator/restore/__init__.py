"""Restore: brings a registry that was restored from a backup forward, from the commit manifests in the bucket."""
