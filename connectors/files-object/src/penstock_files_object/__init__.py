"""Reads CSV, JSON Lines and Parquet files from S3 or over HTTP(S), in full or incrementally. Values are kept exactly."""

from __future__ import annotations

from penstock_files_object.connector import FilesObject

__all__ = ["FilesObject"]
