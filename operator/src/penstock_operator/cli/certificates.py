"""`penstock certificates`: makes and renews the release's own certificates. The chart runs it as a Job and every day."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from penstock_operator.certificates.issuing import CertificatesError, ServiceNames
from penstock_operator.certificates.renewal import Lifetimes, StoredCertificates, renewed, summary
from penstock_operator.certificates.stores import Renew, renew_folder, renew_secret
from penstock_operator.cli.exit_codes import CommandError
from penstock_operator.cli.output import say
from penstock_operator.ids import Namespace


def certificates(
    services: Annotated[
        list[str], typer.Option("--service", help="A Service that the certificate is for; more than once for several.")
    ],
    namespace: Annotated[
        str, typer.Option(help="The namespace of the Services and of the Secret.", envvar="PENSTOCK_NAMESPACE")
    ] = "default",
    secret: Annotated[str, typer.Option(help="The Secret to keep them in; it must exist.")] = "",
    folder: Annotated[Path | None, typer.Option(help="The folder to keep them in, instead of a Secret.")] = None,
    cluster_domain: Annotated[str, typer.Option(help="The domain of the cluster's Services.")] = "cluster.local",
    rotate: Annotated[bool, typer.Option("--rotate", help="Make a new CA now, beside the one that signs.")] = False,
    overlap_days: Annotated[
        float, typer.Option(min=0, max=90, help="How long clients trust a new CA before it signs.")
    ] = 30,
) -> None:
    """Make a CA and a serving certificate, or renew those that are due; without one that is due, change nothing.

    Example: penstock certificates --service penstock --namespace penstock-system --folder certificates
    """
    if bool(secret) == bool(folder):
        raise CommandError("name either --secret or --folder")
    names = ServiceNames(Namespace(namespace), tuple(dict.fromkeys(services)), cluster_domain)
    lifetimes, now = Lifetimes(overlap=timedelta(days=overlap_days)), datetime.now(UTC)

    def renew(stored: StoredCertificates | None) -> StoredCertificates:
        return renewed(stored, names, now, lifetimes, rotate=rotate)

    try:
        kept = (
            renew_folder(folder, renew) if folder else asyncio.run(_renew_secret(Namespace(namespace), secret, renew))
        )
    except CertificatesError as error:
        raise CommandError(str(error)) from None
    say(summary(kept))


async def _renew_secret(namespace: Namespace, secret: str, renew: Renew) -> StoredCertificates:
    from kubernetes.aio import client, config

    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        config.load_incluster_config()
    else:
        await config.load_kube_config()
    async with client.ApiClient() as api:
        return await renew_secret(client.CoreV1Api(api), namespace, secret, renew)
