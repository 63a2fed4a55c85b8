"""Records every connection that a process and its children open, with the help of the kernel (Linux 5.9 and later).

A seccomp filter in the process reports each call that names a network address (connect, sendto, sendmsg, sendmmsg) to the
process that watches it. The call waits until the address is recorded. So a connection is seen however short it is,
whichever library opens it, and in whichever child. It needs no rights, and does not change the call.

`accept_trace` runs in the watched process, `ConnectionTrace` in its parent. Both do nothing if the kernel, or a sandbox
around it, does not allow this; `ConnectionTrace.reason` then says why.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import ipaddress
import os
import platform
import select
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ObservationWriter = Callable[..., None]


@dataclass(frozen=True)
class _Calls:
    """Numbers of system calls, and the number of the architecture in a filter."""

    architecture: int
    seccomp: int
    connect: int
    sendto: int
    sendmsg: int
    sendmmsg: int


MACHINES = {
    "x86_64": _Calls(0xC000003E, 317, 42, 44, 46, 307),
    "aarch64": _Calls(0xC00000B7, 277, 203, 206, 211, 269),
}
IO_URING_SETUP, PIDFD_GETFD, FOREIGN_CALLS = 425, 438, 0x40000000
PR_SET_NO_NEW_PRIVS, PR_SET_PTRACER, ANY_PROCESS = 38, 0x59616D61, (1 << 64) - 1
SET_MODE_FILTER, NEW_LISTENER, WAIT_KILLABLE = 1, 1 << 3, 1 << 5
ALLOW, NOTIFY, REFUSE = 0x7FFF0000, 0x7FC00000, 0x00050000 | errno.ENOSYS
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
RECEIVE, ANSWER = 0xC0502100, 0xC0182101
CONTINUE = 1
NOTIFICATION, LONGEST_ADDRESS, MESSAGE_HEADER = 80, 128, 64
MOST_MESSAGES = 64


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def accept_trace(channel: socket.socket) -> bool:
    """Let the parent at the other end of the channel record every connection from now on. Return True if it does.

    The filter stays with the process and its children. The number of the listener goes through the channel with plain reads
    and writes, because a message that carries a descriptor would wait for the listener itself.
    """
    calls = MACHINES.get(platform.machine()) if sys.platform == "linux" else None
    if calls is None:
        os.write(channel.fileno(), b"none\n")
        return False
    library = ctypes.CDLL(None, use_errno=True)
    proof = ctypes.create_string_buffer(b"readable")
    library.prctl(PR_SET_PTRACER, ctypes.c_ulong(ANY_PROCESS), 0, 0, 0)
    os.write(channel.fileno(), f"{ctypes.addressof(proof)}\n".encode())
    if os.read(channel.fileno(), 1) != b"y":
        return False
    listener = _install(library, calls)
    os.write(channel.fileno(), f"{listener}\n".encode())
    taken = os.read(channel.fileno(), 1) == b"k"
    if listener >= 0:
        os.close(listener)
    return taken


def _install(library: Any, calls: _Calls) -> int:
    """Install the filter for this process. Return its listener, or the negative error number."""
    lines = _filter(calls)
    code = ctypes.create_string_buffer(b"".join(lines))
    program = _Program(len(lines), ctypes.addressof(code))
    library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for flags in (NEW_LISTENER | WAIT_KILLABLE, NEW_LISTENER):  # the second for kernels before 5.19
        listener = library.syscall(calls.seccomp, SET_MODE_FILTER, flags, ctypes.byref(program))
        if listener >= 0:
            return int(listener)
    return -ctypes.get_errno()


def _filter(calls: _Calls) -> list[bytes]:
    """Return the filter's instructions; the last three are its outcomes."""
    allow, notify, refuse = 13, 14, 15
    following = None
    lines: list[tuple[int, int, int | None, int | None]] = [
        (LOAD, 4, following, following),
        (EQUAL, calls.architecture, following, allow),
        (LOAD, 0, following, following),
        (AT_LEAST, FOREIGN_CALLS, refuse, following),
        (EQUAL, calls.connect, notify, following),
        (EQUAL, calls.sendmsg, notify, following),
        (EQUAL, calls.sendmmsg, notify, following),
        (EQUAL, IO_URING_SETUP, refuse, following),  # its connections would bypass the filter
        (EQUAL, calls.sendto, following, allow),
        (LOAD, 48, following, following),  # the two halves of sendto's address; a connected socket has none
        (EQUAL, 0, following, notify),
        (LOAD, 52, following, following),
        (EQUAL, 0, allow, notify),
        (RETURN, ALLOW, following, following),
        (RETURN, NOTIFY, following, following),
        (RETURN, REFUSE, following, following),
    ]
    return [
        struct.pack("HBBI", code, _jump(at, true), _jump(at, false), value)
        for at, (code, value, true, false) in enumerate(lines)
    ]


def _jump(at: int, target: int | None) -> int:
    """Return the number of instructions between an instruction and its target."""
    return 0 if target is None else target - at - 1


class ConnectionTrace:
    """The parent's side: records each connection of a process until that process has ended."""

    def __init__(self, process: int, channel: socket.socket, note: ObservationWriter) -> None:
        self._process = process
        self._note = note
        self._library = ctypes.CDLL(None, use_errno=True)
        self._handle = _process_handle(process)
        self._calls = MACHINES.get(platform.machine())
        self.reason = ""
        self._listener = -1
        try:
            self._listener = self._agree(channel)
        except OSError as error:
            self.reason = f"the kernel does not let one process watch another: {error.strerror or error}"
        finally:
            channel.close()
        note(event="watch", complete=self._listener >= 0, reason=self.reason)

    def _agree(self, channel: socket.socket) -> int:
        """Return the listener of the process's filter. Raises OSError if the process cannot be watched."""
        said = _line(channel)
        if said in ("", "none"):
            raise OSError(errno.ENOSYS, "connections can be watched on Linux only, on x86_64 and aarch64")
        try:
            self._memory(self._process, int(said), 1)
            os.close(self._descriptor(self._handle, 0))
        except OSError:
            os.write(channel.fileno(), b"n")
            raise
        os.write(channel.fileno(), b"y")
        number = int(_line(channel) or "-1")
        if number < 0:
            raise OSError(-number, os.strerror(-number))
        taken = self._descriptor(self._handle, number)
        os.write(channel.fileno(), b"k")
        return taken

    def run(self) -> None:
        """Answer the calls of the process until it has ended."""
        waiting = select.poll()
        if self._handle < 0:
            return
        waiting.register(self._handle, select.POLLIN)
        if self._listener >= 0:
            waiting.register(self._listener, select.POLLIN)
        while True:
            ready = dict(waiting.poll())
            if ready.get(self._listener, 0) & select.POLLIN:
                self._take()
            elif self._handle in ready:
                return
            elif self._listener in ready:  # the last process with the filter has ended
                waiting.unregister(self._listener)

    def _take(self) -> None:
        """Record the addresses of one call, and let the kernel execute the call."""
        notification = bytearray(NOTIFICATION)
        try:
            fcntl.ioctl(self._listener, RECEIVE, notification)
        except OSError:
            return  # the caller was killed in the meantime
        number, task, _flags, call = struct.unpack_from("=QIIi", notification)
        try:
            self._note_call(task, call, struct.unpack_from("=6Q", notification, 32))
        except OSError as error:
            if Path(f"/proc/{task}").exists():
                self._note(event="unseen", reason=str(error))
        with suppress(OSError):
            fcntl.ioctl(self._listener, ANSWER, struct.pack("=QqiI", number, 0, 0, CONTINUE))

    def _note_call(self, task: int, call: int, arguments: tuple[int, ...]) -> None:
        assert self._calls  # noqa: S101 - there is a listener
        for address, length in _addresses(self._calls, call, arguments, lambda at, size: self._memory(task, at, size)):
            found = _parsed(self._memory(task, address, min(length, LONGEST_ADDRESS)))
            if found:
                host, port = found
                kind = self._kind(task, arguments[0])
                self._note(event="connect", host=host, port=port, kind=kind, program=_program_of(task))

    def _kind(self, task: int, descriptor: int) -> str:
        """Return the protocol of a call's socket: `tcp`, or `udp` for every socket without connections."""
        process = _leader(task)
        handle = self._handle if process == self._process else _process_handle(process)
        try:
            with socket.socket(fileno=self._descriptor(handle, descriptor)) as opened:
                return "tcp" if opened.type == socket.SOCK_STREAM else "udp"
        finally:
            if handle not in (self._handle, -1):
                os.close(handle)

    def _memory(self, task: int, address: int, size: int) -> bytes:
        into = ctypes.create_string_buffer(size)
        here, there = _Vector(ctypes.addressof(into), size), _Vector(address, size)
        read = self._library.process_vm_readv(task, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
        if read < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return into.raw[:read]

    def _descriptor(self, handle: int, number: int) -> int:
        """Return a copy of a descriptor of another process."""
        copied = self._library.syscall(PIDFD_GETFD, handle, ctypes.c_int(number & 0xFFFFFFFF), 0)
        if copied < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return int(copied)


def _line(channel: socket.socket) -> str:
    text = b""
    while not text.endswith(b"\n"):
        read = os.read(channel.fileno(), 64)
        if not read:
            break
        text += read
    return text.decode().strip()


def _process_handle(process: int) -> int:
    try:
        return os.pidfd_open(process)
    except (AttributeError, OSError):
        return -1


def _leader(task: int) -> int:
    """Return the process of a thread."""
    lines = Path(f"/proc/{task}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Tgid:"))


def _program_of(task: int) -> str:
    try:
        return Path(f"/proc/{task}/comm").read_text().strip()
    except OSError:
        return ""


def _addresses(
    calls: _Calls, call: int, arguments: tuple[int, ...], memory: Callable[[int, int], bytes]
) -> Iterator[tuple[int, int]]:
    """Yield the memory address and the length of each socket address that a call names."""
    if call == calls.connect:
        yield arguments[1], arguments[2] & 0xFFFFFFFF
    elif call == calls.sendto:
        yield arguments[4], arguments[5] & 0xFFFFFFFF
    else:
        count = 1 if call == calls.sendmsg else min(arguments[2] & 0xFFFFFFFF, MOST_MESSAGES)
        for at in range(count):
            address, length = struct.unpack_from("=QI", memory(arguments[1] + at * MESSAGE_HEADER, 12))
            if address:
                yield address, length


def _parsed(address: bytes) -> tuple[str, int] | None:
    """Return host and port of a socket address; None if it is not a network address."""
    if len(address) < 8:  # noqa: PLR2004 - family, port and the shortest host
        return None
    (family,) = struct.unpack_from("=H", address)
    (port,) = struct.unpack_from("!H", address, 2)
    if family == socket.AF_INET:
        return str(ipaddress.IPv4Address(address[4:8])), port
    if family == socket.AF_INET6 and len(address) >= 24:  # noqa: PLR2004 - up to the end of the host
        host = ipaddress.IPv6Address(address[8:24])
        return str(host.ipv4_mapped or host), port
    return None
