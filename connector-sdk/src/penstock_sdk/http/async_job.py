"""Asynchronous jobs: an export that the source prepares, and that is downloaded when it is ready."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from penstock_sdk.errors import SourceContractError, TransientError
from penstock_sdk.http.client import Client, url_path
from penstock_sdk.http.response import Response
from penstock_sdk.json_types import JsonObject

JobId = NewType("JobId", str)
"""The identifier that the source gave a job."""


class JobFailedError(TransientError):
    """The source's job has failed; another one may succeed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncJob:
    """How a source's jobs are created and polled.

    - `create`: the path of the POST request that creates a job.
    - `status`: the path of a job's status, with `{id}` for its identifier.
    - `id_field`, `state_field`, `result_field`: paths in the bodies: the identifier of a new job, the state of a job, and the
      URLs (a text or a list) of its result. Without `result_field`, `result` is the path of the result, with `{id}`.
    - `succeeded`, `failed`: the states in which a job has ended. In any other state, it is polled again.
    - `interval`: seconds between two polls. `longest`: seconds that a job may take.
    """

    create: str
    status: str
    succeeded: tuple[str, ...]
    failed: tuple[str, ...]
    id_field: str = "id"
    state_field: str = "status"
    result_field: str | None = None
    result: str | None = None
    interval: float = 5.0
    longest: float = 3600.0

    def __post_init__(self) -> None:
        if (self.result_field is None) == (self.result is None):
            raise ValueError("AsyncJob: give either result_field or result")

    def start(self, client: Client, json: JsonObject | None = None) -> JobId:
        """Create a job, and return its identifier. Put it into a cursor to find the job again after a failed attempt."""
        response = client.post(self.create, json=dict(json or {}))
        found = response.field(self.id_field)
        if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
            raise SourceContractError(f"{response.place} has no identifier of the job in field {self.id_field!r}")
        return JobId(str(found))

    def finish(self, client: Client, job: JobId) -> list[str]:
        """Poll a job until it has succeeded, and return the URLs or paths of its result.

        Raises JobFailedError if the job fails or takes too long, and NotFoundError if the source no longer knows it: drop its
        identifier from the cursor then, or the next attempt asks for the same job.
        """
        path = self.status.replace("{id}", url_path(job))
        waited = 0.0
        while True:
            response = client.get(path)
            state = response.field(self.state_field)
            if state in self.succeeded:
                return self._results(response, job)
            if state in self.failed:
                raise JobFailedError(f"the source's job {job} ended as {state!r}")
            if not isinstance(state, str):
                raise SourceContractError(f"{response.place} has no state of the job in field {self.state_field!r}")
            if waited >= self.longest:
                raise JobFailedError(f"the source's job {job} was still {state!r} after {waited:g} seconds")
            client.wait(self.interval)
            waited += self.interval

    def _results(self, response: Response, job: JobId) -> list[str]:
        if self.result_field is None:
            return [(self.result or "").replace("{id}", url_path(job))]
        found = response.field(self.result_field)
        urls = found if isinstance(found, list) else [found]
        if not all(isinstance(url, str) and url for url in urls):
            raise SourceContractError(f"{response.place} has no URL of the result in field {self.result_field!r}")
        return [str(url) for url in urls]
