"""Amounts of memory, as Kubernetes writes them."""

from __future__ import annotations

UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "": 1}
MEBIBYTE = 2**20


def memory_bytes(text: str) -> int:
    """Return the bytes in an amount such as '512Mi'. The CRD has checked the form."""
    number = text.rstrip("KMGTki")
    return int(float(number) * UNITS[text[len(number) :]])


def memory_text(size: int) -> str:
    """Return an amount that is exactly so many bytes."""
    return str(size) if size % MEBIBYTE else f"{size // MEBIBYTE}Mi"


def about(size: float) -> str:
    """Return an amount for people to read, in whole Mi."""
    return f"{size / MEBIBYTE:.0f}Mi"
