"""Bronze: the names of objects, presigned places for them, and the commit manifests beside them."""
