"""The launcher of one machine: one child process per attempt, with the environment that a pod would have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from penstock_sdk.errors import ERROR_CLASS_BY_EXIT_CODE, AttemptUnauthenticated
from penstock_sdk.protocol import (
    API_URL_VARIABLE,
    ATTEMPT_VARIABLE,
    CONNECTOR_VARIABLE,
    CREDENTIALS_DIRECTORY_VARIABLE,
    EGRESS_CHECK_VARIABLE,
    RUN_ID_VARIABLE,
    SOURCE_CA_VARIABLE,
    TOKEN_FILE_VARIABLE,
)

from penstock_operator.launchers import AttemptLaunch, AttemptObservation, LaunchedAttempt, LaunchRefused, LeftoverJob
from penstock_operator.launchers.jobs import INTERRUPTED_EXIT, token_refused
from penstock_operator.launchers.lifeline import Lifeline, kill_group
from penstock_operator.launchers.logs import FileLogs

SecretReader = Callable[[str, str], dict[str, str] | None]
TokenMinter = Callable[[str], str]
INHERITED = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "HOME",
    "TMPDIR",
)
STOP_SECONDS, CLOSE_SECONDS = 10.0, 2.0
"""Between SIGTERM and SIGKILL, for one attempt and when `penstock up` ends: it ends within five seconds, with its servers."""


@dataclass(frozen=True)
class RunningProcess:
    """The process of an attempt, the leader of its group."""

    job_uid: str
    process: asyncio.subprocess.Process
    cleared: asyncio.Task[None]
    """Done when the process has ended and every process that it started is killed."""


class ProcessLauncher:
    """Runs attempts as child processes, each with a file for its output."""

    def __init__(self, api_url: Callable[[], str], directory: Path, secrets: SecretReader, mint: TokenMinter) -> None:
        self._api_url = api_url
        self._directory = directory
        self.logs = FileLogs(directory / "logs")
        self._secrets = secrets
        self._mint = mint
        self._children: dict[str, RunningProcess] = {}
        shutil.rmtree(directory / "credentials", ignore_errors=True)  # of a platform that was killed
        self.on_exit: Callable[[AttemptLaunch], Awaitable[None]] | None = None

    async def launch(self, launch: AttemptLaunch) -> str:
        """Start the attempt's process; one that is running already is adopted."""
        if launch.job_name in self._children:
            return self._children[launch.job_name].job_uid
        artifact = _installed(launch)
        environment = self._environment(launch, artifact)
        job_uid = launch.job_uid or uuid.uuid4().hex
        token_file = self._directory / "tokens" / launch.job_name
        _write_private(token_file, self._mint(job_uid))
        environment[TOKEN_FILE_VARIABLE] = str(token_file)
        with self.logs.open_for_writing(launch.job_name) as log, Lifeline() as lifeline:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # no file of the working directory is imported in place of a module
                "-m",
                "penstock_sdk",
                env={**environment, **lifeline.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lifeline.child_end,),
            )
            lifeline.tie_group(process.pid)
        cleared = asyncio.create_task(_clear_group(process, lifeline), name=f"end of {launch.job_name}")
        self._children[launch.job_name] = RunningProcess(job_uid, process, cleared)
        return job_uid

    def _environment(self, launch: AttemptLaunch, artifact: str) -> dict[str, str]:
        inherited = {key: os.environ[key] for key in INHERITED if key in os.environ}
        return {
            **inherited,
            **self._write_credentials(launch),
            API_URL_VARIABLE: self._api_url(),
            RUN_ID_VARIABLE: launch.run_id,
            ATTEMPT_VARIABLE: str(launch.attempt),
            CONNECTOR_VARIABLE: artifact,
            EGRESS_CHECK_VARIABLE: "1",
            **({SOURCE_CA_VARIABLE: launch.spec.tls.ca_certificates} if launch.spec.tls else {}),
        }

    def _credentials(self, launch: AttemptLaunch) -> dict[str, str]:
        if launch.spec.secret_ref is None:
            return {}
        name = launch.spec.secret_ref.name
        found = self._secrets(launch.namespace, name)
        if found is None:
            message = f'spec.secretRef: secret "{name}" not found in namespace {launch.namespace}; add it to the folder'
            raise LaunchRefused("SecretNotFound", message)
        declared = launch.manifest.credentials()
        missing = [key for key, required in declared.items() if required and key not in found]
        if missing:
            message = f"spec.secretRef: couldn't find key {missing[0]} in Secret {launch.namespace}/{name}; add it"
            raise LaunchRefused("SecretNotFound", message)
        return {key: found[key] for key in declared if key in found}

    def _write_credentials(self, launch: AttemptLaunch) -> dict[str, str]:
        """Write a file for each credential, and return the variable that names their directory."""
        credentials = self._credentials(launch)
        if not credentials:
            return {}
        directory = self._credentials_directory(launch.job_name)
        for name, value in credentials.items():
            _write_private(directory / name, value)
        return {CREDENTIALS_DIRECTORY_VARIABLE: str(directory)}

    def _credentials_directory(self, job_name: str) -> Path:
        return self._directory / "credentials" / job_name

    async def observe(self, launch: LaunchedAttempt) -> AttemptObservation:
        """Return the state of the process. A process that an earlier platform started ended with that platform."""
        child = self._children.get(launch.job_name)
        if child is None:
            return AttemptObservation(
                "gone", "AttemptLost", "the attempt ended with the platform that ran it", disrupted=True
            )
        code = child.process.returncode
        if code is None:
            return AttemptObservation("active")
        if code == 0:
            return AttemptObservation("succeeded")
        if code in (-signal.SIGTERM, -signal.SIGKILL, INTERRUPTED_EXIT):
            return AttemptObservation(
                "failed", "AttemptLost", "the attempt's process was killed", exit_code=code, disrupted=True
            )
        if code == AttemptUnauthenticated.exit_code:
            return token_refused()
        error_class = ERROR_CLASS_BY_EXIT_CODE.get(code, "DefectError")
        message = f"the connector ended with exit code {code} and did not say why; see its log"
        return AttemptObservation("failed", error_class, message, error_class, code)

    async def observe_many(self, attempts: list[LaunchedAttempt]) -> dict[str, AttemptObservation]:
        """Return the state of each process."""
        return {attempt.job_name: await self.observe(attempt) for attempt in attempts}

    async def stop(self, launch: LaunchedAttempt) -> None:
        """Ask the process to end; after the grace period, kill it and every process that it started."""
        await self._end(launch.job_name, STOP_SECONDS)

    async def _end(self, job_name: str, grace: float) -> None:
        child = self._children.get(job_name)
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.process.terminate()
        done, _ = await asyncio.wait({child.cleared}, timeout=grace)
        if not done:
            kill_group(child.process.pid)
            await asyncio.wait({child.cleared})

    async def retire(self, launch: LaunchedAttempt) -> None:
        """End the process and forget its token: the attempt's outcome is recorded."""
        await self._end(launch.job_name, CLOSE_SECONDS)
        self._children.pop(launch.job_name, None)
        (self._directory / "tokens" / launch.job_name).unlink(missing_ok=True)
        shutil.rmtree(self._credentials_directory(launch.job_name), ignore_errors=True)

    async def leftovers(self) -> AsyncIterator[list[LeftoverJob]]:
        """Yield nothing: a process that has ended leaves no Job."""
        nothing: list[list[LeftoverJob]] = []
        for page in nothing:
            yield page

    async def discard(self, leftover: LeftoverJob) -> None:
        """Do nothing: there are no leftover Jobs."""

    @property
    def processes(self) -> list[asyncio.subprocess.Process]:
        """The processes of the attempts that are not retired, ended or not."""
        return [child.process for child in self._children.values()]

    async def close(self) -> None:
        """End every process that is still running."""
        await asyncio.gather(*(self._end(name, CLOSE_SECONDS) for name in list(self._children)))


async def _clear_group(process: asyncio.subprocess.Process, lifeline: Lifeline) -> None:
    """Wait until a connector ends, then kill the processes that it started."""
    await process.wait()
    kill_group(process.pid)
    lifeline.close()


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def _installed(launch: AttemptLaunch) -> str:
    """Return the name of the installed connector's entry point. Raises LaunchRefused unless it has the manifest's version."""
    artifact = launch.manifest.artifact
    found = next(iter(metadata.entry_points(group="penstock.connectors", name=artifact)), None)
    wanted = launch.manifest.version
    if found is None or found.dist is None:
        message = (
            f"no installed package offers the connector {artifact}; pip install penstock-connector-{artifact}=={wanted}"
        )
        raise LaunchRefused("LaunchRefused", message)
    if found.dist.version != wanted:
        message = (
            f"definition {launch.definition} wants {artifact} {wanted}, installed is {found.dist.version};"
            f" pip install {found.dist.name}=={wanted}"
        )
        raise LaunchRefused("LaunchRefused", message)
    return artifact
