"""The heartbeat: a thread that reports that the attempt is alive, and learns when the attempt has to stop."""

from __future__ import annotations

import threading
import time

import httpx

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.client import RunClient
from penstock_sdk._runtime.metrics import Metrics
from penstock_sdk.errors import AttemptCancelled, AttemptEnded, AttemptInterrupted, AttemptRefused, ConnectorError

CHECK_SECONDS = 0.2
"""How often a wait checks whether the attempt has to end. An event is not used: a signal handler must not take its lock."""


class Heartbeat:
    """Runs from `start` to `stop`. `check`, called between two batches, raises the reason why the attempt has to end."""

    def __init__(self, client: RunClient, metrics: Metrics, seconds: float) -> None:
        self._client = client
        self._metrics = metrics
        self._seconds = seconds
        self._stopped = threading.Event()
        self._ended: AttemptEnded | None = None
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and wait for its end."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def interrupt(self) -> None:
        """Let the attempt end after the current batch: the pod got a SIGTERM."""
        self._ended = self._ended or AttemptInterrupted("the pod got a SIGTERM")

    def check(self) -> None:
        """Raise AttemptEnded if the attempt has to end."""
        if self._ended:
            raise self._ended

    def wait(self, seconds: float) -> None:
        """Wait, and raise AttemptEnded as soon as the attempt has to end."""
        until = time.monotonic() + seconds
        self.check()
        while (remaining := until - time.monotonic()) > 0:
            time.sleep(min(remaining, CHECK_SECONDS))
            self.check()

    def _beat(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                request = wire.HeartbeatRequest(metrics=self._metrics.snapshot(), stream=self._metrics.stream)
                answer = self._client.heartbeat(request)
                if answer.cancel:
                    self._ended = self._ended or AttemptCancelled("the run was cancelled")
            except AttemptRefused as ended:
                self._ended = ended
            except (
                httpx.HTTPError,
                ConnectorError,
                ValueError,
            ):  # ValueError: a proxy sent a page instead of a response
                continue
