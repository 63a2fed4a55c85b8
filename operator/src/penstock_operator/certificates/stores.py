"""Where the certificates are kept: in one Secret, or in a folder. Two writers at once end with the certificates of one."""

from __future__ import annotations

import base64
import fcntl
import os
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from kubernetes.aio.client.exceptions import ApiException

from penstock_operator.certificates.issuing import CertificatesError
from penstock_operator.certificates.renewal import CA_BUNDLE, CERTIFICATE, FILES, StoredCertificates
from penstock_operator.ids import Namespace

if TYPE_CHECKING:
    from kubernetes.aio import client

MOST_CONFLICTS = 5
PRIVATE, PUBLIC = 0o600, 0o644
Renew = Callable[[StoredCertificates | None], StoredCertificates]


async def renew_secret(core: client.CoreV1Api, namespace: Namespace, name: str, renew: Renew) -> StoredCertificates:
    """Renew the certificates of a Secret that exists, and return them. Raises CertificatesError.

    The update names the version that was read, so another writer's certificates are never overwritten: they are read, and
    nothing is due any more.
    """
    for _ in range(MOST_CONFLICTS):
        try:
            secret = await core.read_namespaced_secret(name, namespace)
        except ApiException as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            raise CertificatesError(f"the Secret {namespace}/{name} does not exist; the chart makes it") from None
        found = {key: base64.b64decode(value).decode("utf-8", "replace") for key, value in (secret.data or {}).items()}
        stored = StoredCertificates.of_files(found)
        wanted = renew(stored)
        if wanted == stored:
            return wanted
        data = {key: base64.b64encode(text.encode()).decode() for key, text in wanted.files().items()}
        secret.data = {**(secret.data or {}), **data}
        try:
            await core.replace_namespaced_secret(name, namespace, secret)
        except ApiException as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
        else:
            return wanted
    raise CertificatesError(f"the Secret {namespace}/{name} is written by others all the time")


def renew_folder(folder: Path, renew: Renew) -> StoredCertificates:
    """Renew the certificates of a folder, which is made if it is missing, and return them. Raises CertificatesError."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = {name: (folder / name).read_text() for name in FILES if (folder / name).is_file()}
        stored = StoredCertificates.of_files(found)
        wanted = renew(stored)
        if wanted != stored:
            for name, text in wanted.files().items():
                if found.get(name) == text:
                    continue
                _write(folder / name, text, PUBLIC if name in (CA_BUNDLE, CERTIFICATE) else PRIVATE)
        return wanted
    finally:
        os.close(lock)


def _write(path: Path, text: str, mode: int) -> None:
    """Replace a file as a whole."""
    scratch = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
    scratch.replace(path)
