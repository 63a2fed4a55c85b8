"""The grants to upload the objects of one stream: requested in bulk, and replaced when they expire."""

from __future__ import annotations

import threading

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.client import GrantExpired, RunClient, Upload
from penstock_sdk._runtime.encode import FinishedObject
from penstock_sdk.errors import TransientError

GRANTS = 10
GRANT_TRIES = 3


class UploadGrants:
    """Uploads the objects of one stream with presigned grants. Thread-safe."""

    def __init__(self, client: RunClient, stream: str, kind: wire.ObjectKind = "data") -> None:
        self._client = client
        self._stream = stream
        self._kind: wire.ObjectKind = kind
        self._grants: dict[int, wire.UploadGrant] = {}
        self._lock = threading.Lock()

    def upload(self, finished: FinishedObject) -> wire.UploadedObject:
        """Upload an object. If its grant has expired, request a new grant for the same key."""
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
                records=sum(finished.by_op.values()),
                bytes=len(finished.body),
                sha256=finished.sha256,
                kind=self._kind,
                by_op=dict(finished.by_op),
            )
        message = "the bucket refuses the presigned grants; check the clock and the S3 credentials of the server"
        raise TransientError(message)

    def _take(self, sequence: int) -> wire.UploadGrant:
        with self._lock:
            if sequence not in self._grants:
                request = wire.UploadsRequest(stream=self._stream, kind=self._kind, count=GRANTS, after=sequence - 1)
                grants = self._client.uploads(request).grants
                if any(grant.kind != self._kind for grant in grants):
                    message = "the run API is older than this SDK: it has no grants for rejected records"
                    raise TransientError(message)
                self._grants.update((grant.sequence, grant) for grant in grants)
            return self._grants.pop(sequence)

    def _forget(self) -> None:
        """Drop all grants: they were requested at the same time, so they have expired too."""
        with self._lock:
            self._grants.clear()
