"""Atom feeds."""

from __future__ import annotations

from penstock_feed_rest.connector import FeedRest

__all__ = ["FeedRest"]
