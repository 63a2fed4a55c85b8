"""Every connection of a process is seen, however short, through whichever library, and in whichever child."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from tests.patience import PATIENCE

WATCHED = """
import ctypes, json, os, socket, struct, subprocess, sys, threading
from penstock_sdk.testing.connection_trace import ConnectionTrace, accept_trace

port = int(sys.argv[1])
if sys.argv[2:]:  # become another, as one who was started so: a process that has dropped its rights is not readable
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
    assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0
ours, theirs = socket.socketpair()
child = os.fork()
if child == 0:
    ours.close()
    accept_trace(theirs)
    exec(sys.stdin.read())
    os._exit(0)
theirs.close()
watch = ConnectionTrace(child, ours, lambda **what: print(json.dumps(what), flush=True))
watch.run()
_, status = os.waitpid(child, 0)
print(json.dumps({"event": "end", "code": os.waitstatus_to_exitcode(status)}))
"""
BY_C = """
library = ctypes.CDLL(None)
number = library.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton("127.0.0.1") + bytes(8)
assert library.connect(number, address, 16) == 0
library.close(number)
"""


@pytest.fixture
def port() -> Iterator[int]:
    """A port that somebody listens on and nobody answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        yield int(listener.getsockname()[1])


def notes(code: str, port: int, *user: str) -> list[dict[str, Any]]:
    """Run code in a watched process, and return what was noted of it."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(port), *user],
        input=textwrap.dedent(code),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found.pop() == {"event": "end", "code": 0}, done.stderr
    (watch,) = [note for note in found if note["event"] == "watch"]
    if not watch["complete"]:
        pytest.skip(watch["reason"])
    return [note for note in found if note["event"] == "connect"]


BY_PYTHON = 'socket.create_connection(("127.0.0.1", port)).close()\n'
BY_A_THREAD = """
done = threading.Thread(target=lambda: socket.create_connection(("127.0.0.1", port)).close())
done.start()
done.join()
"""
BY_A_CHILD = """
code = f"import socket; socket.create_connection(('127.0.0.1', {port})).close()"
subprocess.run([sys.executable, "-c", code], check=True)
"""
WAYS = {
    "a library in C": (BY_C, "tcp"),
    "Python": (BY_PYTHON, "tcp"),
    "a thread": (BY_A_THREAD, "tcp"),
    "a child": (BY_A_CHILD, "tcp"),
    "IPv6 that stands for IPv4": ('socket.socket(socket.AF_INET6).connect(("::ffff:127.0.0.1", port))', "tcp"),
    "a datagram": ('socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port))', "udp"),
    "a message": ('socket.socket(type=socket.SOCK_DGRAM).sendmsg([b"x"], [], 0, ("127.0.0.1", port))', "udp"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_connection_is_seen(way: str, port: int) -> None:
    code, kind = WAYS[way]
    seen = {(note["host"], note["port"], note["kind"]) for note in notes(code, port)}
    assert seen == {("127.0.0.1", port, kind)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_no_rights_are_needed(port: int) -> None:
    seen = {(note["host"], note["port"]) for note in notes(BY_C, port, "65534")}
    assert seen == {("127.0.0.1", port)}


def test_none_of_many_short_connections_is_missed(port: int) -> None:
    code = f"for _ in range(300):\n{textwrap.indent(BY_C, '    ')}"
    assert len(notes(code, port)) == 300


def test_sending_on_a_socket_that_is_connected_is_not_looked_at(port: int) -> None:
    code = 'opened = socket.create_connection(("127.0.0.1", port))\nfor _ in range(50): opened.send(b"x")'
    assert len(notes(code, port)) == 1


def test_a_call_with_a_wrong_address_fails_as_it_would(port: int) -> None:
    code = """
    library = ctypes.CDLL(None, use_errno=True)
    opened = socket.socket()
    assert library.connect(opened.fileno(), 8, 16) == -1 and ctypes.get_errno() == 14
    assert library.connect(99, 8, 16) == -1
    """
    assert notes(code, port) == []
