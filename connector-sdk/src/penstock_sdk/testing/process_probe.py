"""`python -m penstock_sdk.testing.process_probe`: the runtime of a pod, with an eye on what the process does.

It notes each name that is looked up and each address that is connected to, and the process's own peak of memory, on
a descriptor that was opened before any of the connector's code ran. Nothing of the runtime is changed.

Connections are noted by the process that waits for this one (`connections.py`). Where the kernel does not allow that,
Python's own calls are noted, and a thread looks at the connections that are open; `watch` says which of both it was.
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
    """Writes a line."""

    def __call__(self, **what: Any) -> None:
        """Write it."""


def _watch_sockets(note: ObservationWriter) -> None:
    """Note the peers of the process's connections: a library in C opens them without a word to Python."""
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
    """Return host and port of the kernel's notation: words of four bytes in the machine's order."""
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
    """Note the addresses that a name had when it was looked up: a later look may find others."""
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
    """Return the most memory that this program held; getrusage would count what the parent held before exec."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * KILOBYTE for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else KILOBYTE
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _serve() -> dict[str, Any] | None:
    """Fork a process for each order that comes in, and say its number and its end; return the order in the child.

    The runtime is imported once here, and a child is a process like any other: its own session, environment,
    directory and output. Importing takes ten times as long as everything else that an attempt of a test does.
    """
    for line in sys.stdin:
        order = dict(json.loads(line))
        guard = os.fork()
        if guard == 0:
            return _guarded(order)
        os.waitpid(guard, 0)
    return None


def _guarded(order: dict[str, Any]) -> dict[str, Any]:
    """Fork the attempt, watch its connections and say its end; return the order in the attempt.

    What watches is the parent of what is watched: kernels that restrict who may look into a process allow that.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _become(order, theirs)
        return order
    theirs.close()
    print(child, flush=True)  # noqa: T201 - the protocol of spawner.py
    try:
        ConnectionTrace(child, ours, _noting(_observations(order))).run()
    finally:
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201
        os._exit(0)


def _observations(order: dict[str, Any]) -> int:
    return os.open(order["observations"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def _become(order: dict[str, Any], channel: socket.socket) -> None:
    """Make the forked process what a process that was started so would be."""
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

    httpx.Client().close()  # imports what the first client would
    taken = _serve()
    if taken is not None:
        sys.exit(main())
