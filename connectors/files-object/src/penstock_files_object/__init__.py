"""Files in S3 or behind HTTP(S): CSV, JSON Lines and Parquet, followed by what is new or changed, every value kept."""

from __future__ import annotations

from penstock_files_object.connector import FilesObject

__all__ = ["FilesObject"]
