"""Credentials that a source replaces, such as rotated refresh tokens: stored encrypted."""
