"""Where objects go: presigned places, asked for in bulk, replaced when they have expired."""

from __future__ import annotations

import threading

from penstock_sdk import protocol as wire
from penstock_sdk.errors import TransientError
from penstock_sdk.runtime.client import GrantExpired, RunClient, Upload
from penstock_sdk.runtime.encode import FinishedObject

GRANTS = 10
GRANT_TRIES = 3


class Places:
    """The places of one stream's objects. Thread-safe."""

    def __init__(self, client: RunClient, stream: str) -> None:
        self._client = client
        self._stream = stream
        self._grants: dict[int, wire.UploadGrant] = {}
        self._lock = threading.Lock()

    def put(self, finished: FinishedObject) -> wire.UploadedObject:
        """Upload an object, to a new place with the same key when the first one has expired."""
        upload = Upload(finished.body)
        for _ in range(GRANT_TRIES):
            grant = self._take(finished.sequence)
            try:
                self._client.upload(grant, upload)
            except GrantExpired:
                self._forget()
                continue
            return wire.UploadedObject(
                key=grant.key,
                sequence=finished.sequence,
                records=finished.records,
                bytes=len(finished.body),
                sha256=finished.sha256,
            )
        message = "the bucket refuses the presigned places; check the clock and the S3 credentials of the server"
        raise TransientError(message)

    def _take(self, sequence: int) -> wire.UploadGrant:
        with self._lock:
            if sequence not in self._grants:
                request = wire.UploadsRequest(stream=self._stream, count=GRANTS, after=sequence - 1)
                self._grants.update((grant.sequence, grant) for grant in self._client.uploads(request).grants)
            return self._grants.pop(sequence)

    def _forget(self) -> None:
        """Drop every grant: what was asked for at the same time has expired too."""
        with self._lock:
            self._grants.clear()
