"""The pod's log: one JSON object a line."""

from __future__ import annotations

import atexit
import json
import logging
import sys
from typing import Any

from penstock_sdk._runtime.masking import Mask, MaskedStream


class JsonLogFormatter(logging.Formatter):
    """One JSON object a line, with what it belongs to (run, attempt, tenant, connection, stream) and no secret in it.

    `context` is shared with the attempt, which adds to it what it comes to know.
    """

    def __init__(self, context: dict[str, Any], mask: Mask) -> None:
        super().__init__()
        self._context = context
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        text = (
            record.getMessage()
            if not record.exc_info
            else f"{record.getMessage()}: {self.formatException(record.exc_info)}"
        )
        line = {"ts": self.formatTime(record), "level": record.levelname.lower(), "message": self._mask(text)}
        return json.dumps({**line, **self._context})  # masked before: JSON escapes what a secret may contain


def log_to_stderr(context: dict[str, Any], mask: Mask) -> None:
    """Have everything that is logged, by any library, written in this form."""
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(JsonLogFormatter(context, mask))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def mask_printed_output(mask: Mask) -> None:
    """Have what a connector prints, and a last traceback, masked too."""
    assert sys.__stderr__  # noqa: S101 - a pod's process has one
    printed = MaskedStream(sys.__stderr__, mask)
    atexit.register(printed.close)
    sys.stdout = sys.stderr = printed
