"""`python -m penstock_sdk.testing.process_probe`: the runtime of a pod, with a record of what the process does.

It records each host name that is looked up, each address to which the process connects, and the memory peak. It writes to a
descriptor that was opened before any code of the connector ran. The runtime is not changed.

Connections are recorded by the parent of this process (`connection_trace.py`). If the kernel does not allow that, Python's
own calls are recorded, and a thread looks for open connections. The event `watch` says which of the two was used.
"""

from __future__ import annotations

import atexit
import ipaddress
import json
import os
import resource
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from penstock_sdk.testing.connection_trace import ConnectionTrace, accept_trace

KILOBYTE = 1024
POLL_SECONDS = 0.05
LISTENING = "0A"


class ObservationWriter(Protocol):
    """Writes an observation."""

    def __call__(self, **what: Any) -> None:
        """Write the observation as one line of JSON."""


def _watch_sockets(note: ObservationWriter) -> None:
    """Record the peers of open connections, because a C library opens connections without an event in Python."""
    seen: set[tuple[str, int]] = set()
    while Path("/proc/self/net/tcp").exists():
        for peer in _peers() - seen:
            seen.add(peer)
            note(event="connect", host=peer[0], port=peer[1])
        time.sleep(POLL_SECONDS)


def _peers() -> set[tuple[str, int]]:
    inodes = {_link(descriptor)[8:-1] for descriptor in os.listdir("/proc/self/fd")}  # noqa: PTH208 - fifty times a second
    peers: set[tuple[str, int]] = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        rows = (line.split() for line in lines)
        peers |= {_address(row[2]) for row in rows if row[9] in inodes and row[3] != LISTENING}
    return peers


def _link(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - as above
    except OSError:
        return ""


def _address(text: str) -> tuple[str, int]:
    """Return host and port from the kernel's notation: words of four bytes in the machine's byte order."""
    host, port = text.split(":")
    words = [int(host[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(host), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address), int(port, 16)


def _noting(descriptor: int) -> ObservationWriter:
    def note(**what: Any) -> None:
        os.write(descriptor, json.dumps(what, default=str).encode() + b"\n")

    return note


def _observe(note: ObservationWriter, *, watched: bool) -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo":
            note(event="lookup", host=_text(arguments[0]), port=arguments[1])
        elif event == "socket.gethostbyname":
            note(event="lookup", host=_text(arguments[0]), port=None)
        elif event == "socket.connect" and isinstance(arguments[1], tuple):
            host, port = _text(arguments[1][0]), arguments[1][1]
            if not _is_address(host):
                note(event="lookup", host=host, port=port)
            elif not watched:
                note(event="connect", host=host, port=port, kind="tcp", program="")
        elif event == "subprocess.Popen":
            note(event="child", program=os.fsdecode(arguments[0]))

    if not watched:
        threading.Thread(target=_watch_sockets, args=(note,), daemon=True).start()
    _note_answers(note)
    atexit.register(lambda: note(event="peak", bytes=_peak()))
    sys.addaudithook(hook)


def _note_answers(note: ObservationWriter) -> None:
    """Record the addresses of a name when it is looked up, because a later lookup may return others."""
    ask = socket.getaddrinfo

    def asked(*arguments: Any, **options: Any) -> Any:
        found = ask(*arguments, **options)
        host = _text(arguments[0] if arguments else options.get("host"))
        note(event="resolved", host=host, addresses=sorted({str(answer[4][0]) for answer in found}))
        return found

    socket.getaddrinfo = asked


def _text(host: object) -> str:
    return host.decode(errors="replace") if isinstance(host, bytes) else str(host)


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(host.split("%", maxsplit=1)[0]))
    return False


def _peak() -> int:
    """Return the memory peak of this program. getrusage would include the memory of the parent before exec."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * KILOBYTE for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else KILOBYTE
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _serve() -> dict[str, Any] | None:
    """Fork a process for each order on standard input, and print its number and its exit code. Return the order in the child.

    The runtime is imported once, in this process. A child has its own session, environment, directory and output. The import
    takes ten times as long as everything else in an attempt of a test.
    """
    for line in sys.stdin:
        order = dict(json.loads(line))
        guard = os.fork()
        if guard == 0:
            return _guarded(order)
        os.waitpid(guard, 0)
    return None


def _guarded(order: dict[str, Any]) -> dict[str, Any]:
    """Fork the attempt, record its connections, and print its exit code. Return the order in the attempt.

    The parent watches its child, because kernels that restrict access to other processes allow this.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _become(order, theirs)
        return order
    theirs.close()
    print(child, flush=True)  # noqa: T201 - the protocol of fork_server.py
    try:
        ConnectionTrace(child, ours, _noting(_observations(order))).run()
    finally:
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201
        os._exit(0)


def _observations(order: dict[str, Any]) -> int:
    return os.open(order["observations"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def _become(order: dict[str, Any], channel: socket.socket) -> None:
    """Set the session, directory, environment and output of the forked process."""
    os.setsid()
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["environment"])
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, place in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, place)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a descriptor, for good
    with channel:
        watched = accept_trace(channel)
    _observe(_noting(_observations(order)), watched=watched)


if __name__ == "__main__":
    import httpx

    from penstock_sdk._runtime.main import main

    httpx.Client().close()  # imports everything that the first client needs
    taken = _serve()
    if taken is not None:
        sys.exit(main())
