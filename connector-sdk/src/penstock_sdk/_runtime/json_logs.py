"""The log of a connector's process: one JSON object per line."""

from __future__ import annotations

import atexit
import json
import logging
import sys

from penstock_sdk._runtime.masking import Mask, MaskedStream

LogContext = dict[str, str | int]
"""Fields that each line of the log has: the run, the attempt, the tenant, the connection and the stream."""


class JsonLogFormatter(logging.Formatter):
    """Formats a line as JSON, with the run, attempt, tenant, connection and stream, and without secrets.

    The attempt shares `context` and adds these fields when it knows them.
    """

    def __init__(self, context: LogContext, mask: Mask) -> None:
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
        return json.dumps({**line, **self._context})  # masked before it is encoded: JSON escapes characters of a secret


def log_to_stderr(context: LogContext, mask: Mask) -> None:
    """Write all log records of all libraries in this format."""
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(JsonLogFormatter(context, mask))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def mask_printed_output(mask: Mask) -> None:
    """Mask the printed output of a connector too, and a final traceback."""
    assert sys.__stderr__  # noqa: S101 - the process of a pod has one
    printed = MaskedStream(sys.__stderr__, mask)
    atexit.register(printed.close)
    sys.stdout = sys.stderr = printed
