"""What a connector must not do: write files, contact other hosts, reveal secrets, or hold the source in memory."""

from __future__ import annotations

import base64
import json
import socket
from itertools import permutations
from pathlib import Path
from urllib.parse import quote

from pydantic import ValidationError

from penstock_sdk.errors import LocalPersistenceError
from penstock_sdk.manifest import EgressRule, Manifest, egress_rules, is_address, normal_host
from penstock_sdk.testing.attempt_process import Observation
from penstock_sdk.testing.checks.faults import refused_target
from penstock_sdk.testing.checks.model import Check
from penstock_sdk.testing.harness import NEEDS_MANIFEST, Failed, Harness, NotApplicable, NotRun, Trial
from penstock_sdk.testing.run_api import COARSE

SHORTEST_SECRET = 6
MEGABYTE = 1024 * 1024
DNS_PORT = 53


def local_writes(harness: Harness) -> str:
    """Look for files that a run has written."""
    first = harness.first_run()
    if first.last.exit_code == LocalPersistenceError.exit_code:
        raise Failed(first.ending())
    for mode in harness.modes:
        written = harness.baseline(mode).last.written
        if written:
            raise Failed(f"{mode}: the run wrote {', '.join(written[:5])}")
    return "no file outside the temporary directory"


def egress(harness: Harness) -> str:
    """Compare the hosts that the process contacted with the manifest."""
    declared = _declared(harness)
    trials = [harness.baseline(mode) for mode in harness.modes]
    seen = {place for trial in trials for place in _reached(trial, declared)}
    if seen or not declared:
        return f"connected to {', '.join(sorted(seen)) or 'no host'}"
    blind = next((event.reason for trial in trials for event in _events(trial, "watch") if not event.complete), "")
    if not blind:
        raise NotRun("needs a connection whose read connects to a declared host; this one connected to none")
    if not harness.has_proxy:
        raise NotRun(f"needs source.url, or source.host and source.port, as {blind}")
    return f"no other host was contacted, and the source got {harness.requests} requests through a proxy ({blind})"


def _events(trial: Trial, name: str) -> list[Observation]:
    return [observation for observation in trial.last.observations if observation.event == name]


def _reached(trial: Trial, declared: list[EgressRule]) -> set[str]:
    """Return the addresses to which an attempt connected. Raises Failed for one that is not declared."""
    allowed = [*declared, EgressRule("127.0.0.1", trial.api.port)]
    for event in _events(trial, "lookup"):
        if not _is_address(event.host) and not any(_covers(rule, event.host) for rule in allowed):
            raise Failed(f"it looked up {event.host}, which network.egress does not declare")
    answers = [(event.host, set(event.addresses)) for event in _events(trial, "resolved")]
    addresses = [
        (address, rule.port)
        for rule in allowed
        for address in _resolved(rule.host).union(*(found for name, found in answers if _covers(rule, name)))
    ]
    places = [(event.host, int(event.port or 0), event) for event in _events(trial, "connect")]
    asked = [place for place in places if not (place[2].kind == "udp" and _is_name_server(place[0], place[1]))]
    for host, port, event in asked:
        if not _permitted((host, None if event.kind == "udp" else port), addresses):
            by = f" ({event.program})" if event.program else ""
            raise Failed(f"it connected to {host}:{port}{by}, which network.egress does not declare")
    return {f"{host}:{port}" for host, port, event in asked if port != trial.api.port and event.kind == "tcp"}


def _is_name_server(host: str, port: int) -> bool:
    """Return True if a datagram goes to one of the machine's name servers: the C library queries them."""
    if port != DNS_PORT:
        return False
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        return False
    return host in {
        line.split()[1].split("%")[0] for line in lines if line.startswith("nameserver") and line.split()[1:]
    }


def _declared(harness: Harness) -> list[EgressRule]:
    """Return the declared destinations with the config's values. Raises NotRun if the manifest is invalid."""
    try:
        manifest = Manifest.model_validate(harness.manifest)
    except ValidationError:
        raise NotRun(NEEDS_MANIFEST) from None
    return egress_rules(manifest, harness.target.config)


def _covers(rule: EgressRule, host: str) -> bool:
    """Return True if a rule names a host, however the connector writes it."""
    return rule.allows(normal_host(host) or host, rule.port)


def _is_address(host: str) -> bool:
    return host in ("", "None") or is_address(host.split("%", maxsplit=1)[0])


def _resolved(host: str) -> set[str]:
    if _is_address(host):
        return {host}
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return set()


def _permitted(place: tuple[str, int | None], addresses: list[tuple[str, int]]) -> bool:
    """Return True if an address is declared. Ports of datagrams are ignored: the C library tests routes with any port."""
    return any(place[0] == address and (place[1] in (None, port)) for address, port in addresses)


def secrets_in_output(harness: Harness) -> str:
    """Look for the values of credentials in everything that left the process, in successful and in refused runs."""
    if not harness.target.credentials:
        raise NotApplicable("the connection has no credentials")
    for mode in harness.modes:
        harness.baseline(mode)
    with harness.trial(refused_target(harness)) as trial:
        trial.run_attempt()
    found = harness.secrets(harness.target)
    short = [name for name, value in found.items() if len(value) < SHORTEST_SECRET]
    if short:
        raise NotRun(
            f"needs a value of {short[0]!r} with {SHORTEST_SECRET} characters or more; a shorter one occurs by chance"
        )
    for trial in harness.trials:
        _search(trial, harness.secrets(trial.target))
    return f"not in the output, messages, cursors and records of {len(harness.trials)} runs"


def _search(trial: Trial, secrets: dict[str, str]) -> None:
    places = {
        "its output": "\n".join(ended.output for ended in trial.attempts),
        "its messages to the run API": "\n".join(trial.api.heard),
        "its records": json.dumps([state.records for state in trial.api.states.values()], ensure_ascii=False),
    }
    for name, value in secrets.items():
        for form, text in _forms(value, list(trial.target.credentials.values())).items():
            for place, content in places.items():
                if text in content:
                    raise Failed(f"the value of {name!r} is in {place}, {form}")


def _forms(value: str, values: list[str]) -> dict[str, str]:
    """Return the forms in which a secret is usually written."""
    basic = {
        f"as a Basic header ({index})": base64.b64encode(":".join(pair).encode()).decode()
        for index, pair in enumerate(permutations(values, 2))
        if value in pair
    }
    return {
        "as it is": value,
        "in base64": base64.b64encode(value.encode()).decode(),
        "as a part of a URL": quote(value, safe=""),
        "as JSON": json.dumps(value)[1:-1],
        **basic,
    }


def memory(harness: Harness) -> str:
    """Compare the memory peak of a large read with that of a small one."""
    target, allowed = harness.target, harness.target.memory_growth_mb * MEGABYTE
    if target.large is None:
        raise NotRun(f"needs `large`: a config for a source with {target.memory_growth_mb} MB or more")
    mode = harness.modes[0]
    small = harness.baseline(mode).last.peak_bytes
    with harness.trial(target.with_variant(target.large), mode=mode, limits=COARSE) as trial:
        trial.run_attempt()
        trial.expect(0, "a large source should be read to its end")
        size = sum(len(json.dumps(row)) for state in trial.api.states.values() for row in state.records)
    if size < allowed:
        raise NotRun(
            f"needs `large` to be a source with {target.memory_growth_mb} MB or more; {size // MEGABYTE} MB were read"
        )
    large = trial.last.peak_bytes
    if small is None or large is None:
        raise Failed("the process ended before it reported its memory peak")
    if large - small > allowed:
        raise Failed(
            f"reading {size // MEGABYTE} MB took {(large - small) // MEGABYTE} MB more memory than a small read"
        )
    return f"{size // MEGABYTE} MB were read in {large // MEGABYTE} MB of memory, {max(0, large - small) // MEGABYTE} MB more than a small read"


CHECKS = (
    Check(
        "local-writes",
        "A run writes nothing to the local file system.",
        "Keep state in cursors, and temporary files in the temporary directory; a pod's root file system is read-only.",
        local_writes,
    ),
    Check(
        "egress",
        "The connector connects only to the hosts that its manifest declares.",
        "Declare the host under network.egress, or disable the code that contacts it.",
        egress,
    ),
    Check(
        "secrets",
        "No value of a credential appears in logs, messages, cursors or records.",
        "Do not log whole requests or headers; remove credentials from URLs before they become records or cursors.",
        secrets_in_output,
    ),
    Check(
        "memory",
        "Memory use does not grow with the source.",
        "Yield each page when it arrives; do not collect pages in a list, and use a server-side cursor.",
        memory,
    ),
)
