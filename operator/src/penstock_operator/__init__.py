"""Penstock's control plane; docs/design describes its layers, each of which is a package here."""
