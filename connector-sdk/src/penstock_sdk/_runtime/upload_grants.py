"""The grants to upload the objects of one stream: requested when an object is complete, and replaced when they expire.

A grant names the object's size and checksum, so it cannot be requested before the object is complete. One request asks for
the grants of all objects that are complete by then.
"""

from __future__ import annotations

import threading
from itertools import islice

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.client import GrantExpired, RunClient, Upload
from penstock_sdk._runtime.encode import FinishedObject
from penstock_sdk.errors import TransientError

GRANT_TRIES = 3


class UploadGrants:
    """Uploads the objects of one stream with presigned grants. Thread-safe."""

    def __init__(self, client: RunClient, stream: str, kind: wire.ObjectKind = "data") -> None:
        self._client = client
        self._stream = stream
        self._kind: wire.ObjectKind = kind
        self._complete: dict[int, wire.ObjectToUpload] = {}
        """Complete objects that are not uploaded yet, by sequence number."""
        self._grants: dict[int, wire.UploadGrant] = {}
        self._lock = threading.Lock()
        self._requesting = threading.Lock()

    def announce(self, finished: FinishedObject) -> None:
        """Add a complete object to the next request for grants."""
        described = wire.ObjectToUpload(sequence=finished.sequence, bytes=len(finished.body), sha256=finished.sha256)
        with self._lock:
            self._complete[finished.sequence] = described

    def upload(self, finished: FinishedObject) -> wire.UploadedObject:
        """Upload an announced object. If its grant has expired, request a new grant for the same key."""
        upload = Upload(finished.body)
        for _ in range(GRANT_TRIES):
            grant = self._granted(finished.sequence)
            try:
                self._client.upload(grant, upload)
            except GrantExpired:
                self._forget()
                continue
            self._uploaded(finished.sequence)
            return wire.UploadedObject(
                key=grant.key,
                sequence=finished.sequence,
                records=sum(finished.by_op.values()),
                bytes=len(finished.body),
                sha256=finished.sha256,
                kind=self._kind,
                by_op=dict(finished.by_op),
            )
        message = "the bucket refuses the presigned grants; check the clock and the S3 credentials of the server"
        raise TransientError(message)

    def _granted(self, sequence: int) -> wire.UploadGrant:
        with self._requesting:
            with self._lock:
                if sequence in self._grants:
                    return self._grants[sequence]
                others = (
                    known
                    for number, known in self._complete.items()
                    if number != sequence and number not in self._grants
                )
                wanted = [self._complete[sequence], *islice(others, wire.MAX_OBJECTS_PER_UPLOADS - 1)]
            request = wire.UploadsRequest(stream=self._stream, kind=self._kind, objects=wanted)
            grants = self._client.uploads(request).grants
            with self._lock:
                self._grants.update((grant.sequence, grant) for grant in grants)
                return self._grants[sequence]

    def _uploaded(self, sequence: int) -> None:
        with self._lock:
            del self._complete[sequence]
            self._grants.pop(sequence, None)

    def _forget(self) -> None:
        """Drop all grants: they were requested within a short time, so they have expired too."""
        with self._lock:
            self._grants.clear()
