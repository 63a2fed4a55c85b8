"""The platform on one machine: real Postgres, real S3 signatures, processes in place of Jobs, a folder in place of an API server."""

from __future__ import annotations


class EmbeddedError(Exception):
    """A part of the embedded platform cannot start; the message says what to do."""
