"""The heartbeat: a thread that says that the attempt lives, and hears when it should stop."""

from __future__ import annotations

import threading

import httpx

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.client import RunClient
from penstock_sdk._runtime.metrics import Metrics
from penstock_sdk.errors import AttemptCancelled, AttemptEnded, AttemptInterrupted, AttemptRefused, ConnectorError


class Heartbeat:
    """Runs from `start` to `stop`. `check` raises, at a batch border, what ended the attempt."""

    def __init__(self, client: RunClient, metrics: Metrics, seconds: float) -> None:
        self._client = client
        self._metrics = metrics
        self._seconds = seconds
        self._stopped = threading.Event()
        self._ended: AttemptEnded | None = None
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the thread."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def interrupt(self) -> None:
        """Ask for the end at the next batch border: the pod was told to stop."""
        self._ended = self._ended or AttemptInterrupted("the pod was told to stop")

    def check(self) -> None:
        """Raise what ended the attempt, if anything did."""
        if self._ended:
            raise self._ended

    def _beat(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                request = wire.HeartbeatRequest(metrics=self._metrics.snapshot(), stream=self._metrics.stream)
                answer = self._client.heartbeat(request)
                if answer.cancel:
                    self._ended = self._ended or AttemptCancelled("the run was cancelled")
            except AttemptRefused as ended:
                self._ended = ended
            except (httpx.HTTPError, ConnectorError, ValueError):  # ValueError: a proxy's page instead of an answer
                continue
