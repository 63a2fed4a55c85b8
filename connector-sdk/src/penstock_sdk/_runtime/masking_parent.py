"""The first process of a pod: it starts the connector as its child, and masks everything that the child writes.

Masking inside the connector's own process misses what C extensions, subprocesses and `os.write` write to the descriptors 1
and 2. So the process forks before it imports the runtime. The child's output goes through pipes, and the parent writes it
out without secrets. The parent keeps the outcome as it is: signals go to the child, and the exit code of the child is its own.

The child tells the parent its secrets through a third pipe: the values that are not secret by the manifest can be shown, and a
credential that the source replaced is masked before anything can write it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Mapping

from penstock_sdk._runtime.secret_forms import OutputMask, SecretForms

READ_BYTES = 64 * 1024
FLUSH_SECONDS = 1.0
"""How long a whole line is held that ends like the beginning of a secret."""
DRAIN_SECONDS = 2.0
"""How long the parent waits for output after the child has ended: a process that the child left behind may hold the pipes."""
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)
PR_SET_PDEATHSIG = 1
STDOUT, STDERR = 1, 2

SecretsChannel = Callable[[list[str]], None]
"""Tells the parent the values to mask from now on."""


def run_as_child(secrets: Mapping[str, str], run: Callable[[SecretsChannel], int]) -> int:
    """Call `run` in a child process, mask its output, and return its exit code. `secrets` are masked until it says more."""
    output, errors, control = os.pipe(), os.pipe(), os.pipe()
    # A signal that comes before the handlers are set would end the parent alone.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _become_child(parent, output, errors, control)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return run(lambda values: _send(control[1], values))
    for number in FORWARDED:
        signal.signal(number, lambda received, _frame: _forward(received, child))
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    for _, written in (output, errors, control):
        os.close(written)
    parent_loop = _Parent(child, control[0], {output[0]: STDOUT, errors[0]: STDERR}, list(secrets.values()))
    return _exit_code(parent_loop.run())


def _become_child(parent: int, output: tuple[int, int], errors: tuple[int, int], control: tuple[int, int]) -> None:
    """End with the parent, however it ends, and write to its pipes."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    os.dup2(output[1], STDOUT)
    os.dup2(errors[1], STDERR)
    for descriptor in (*output, *errors, control[0]):
        os.close(descriptor)


def _send(descriptor: int, values: list[str]) -> None:
    data = json.dumps(values).encode() + b"\n"
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(descriptor, data) :]


def _forward(number: int, child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


class _Parent:
    """The loop of the parent."""

    def __init__(self, child: int, control: int, pipes: Mapping[int, int], secrets: list[str]) -> None:
        self._child = child
        self._control = control
        self._control_text = b""
        self._targets = dict(pipes)
        self._forms = SecretForms(secrets)
        self._masks = {source: OutputMask(self._forms) for source in pipes}
        self._fed_at = 0.0
        for descriptor in (control, *pipes):
            os.set_blocking(descriptor, False)

    def run(self) -> int:
        """Mask the output until the child has ended, and return its wait status."""
        poll = select.poll()
        for source in (self._control, *self._targets):
            poll.register(source, select.POLLIN)
        status: int | None = None
        drained_at = 0.0
        while True:
            for source, _ in poll.poll(1000 * FLUSH_SECONDS if status is None else 50):
                # The pipe of secrets is read without output too: a list can be longer than a pipe, and the child waits then.
                if not (self._read_secrets() if source == self._control else self._read(source)):
                    poll.unregister(source)
                    self._targets.pop(source, None)
            self._flush_held_lines()
            if status is None and (status := self._reap()) is not None:
                drained_at = time.monotonic() + DRAIN_SECONDS
            if not self._targets:
                return self._wait() if status is None else status
            if status is not None and time.monotonic() > drained_at:
                return status

    def _read(self, source: int) -> bool:
        """Pass on what a pipe holds. Return False at its end."""
        try:
            data = os.read(source, READ_BYTES)
        except BlockingIOError:
            return True
        self._read_secrets()  # after the read: what the child has told before it wrote counts
        mask = self._masks[source]
        self._write(source, mask.feed(data) if data else mask.close())
        self._fed_at = time.monotonic()
        return bool(data)

    def _flush_held_lines(self) -> None:
        if time.monotonic() - self._fed_at >= FLUSH_SECONDS:
            for source in self._targets:
                self._write(source, self._masks[source].flush_lines())

    def _read_secrets(self) -> bool:
        """Take the child's newest list of secrets. Return False at the end of the pipe."""
        is_open = True
        with contextlib.suppress(BlockingIOError):
            while received := os.read(self._control, READ_BYTES):
                self._control_text += received
            is_open = False
        *messages, self._control_text = self._control_text.split(b"\n")
        if messages:
            self._forms.replace(json.loads(messages[-1]))
        return is_open

    def _write(self, source: int, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[os.write(self._targets[source], data) :]

    def _reap(self) -> int | None:
        """Reap every process that has ended, because a pod gives its orphans to this one. Return the status of the child."""
        status: int | None = None
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, ended = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self._child:
                    status = ended
        return status

    def _wait(self) -> int:
        """Wait for the child, which has closed its output, so that nothing is left to mask."""
        os.close(self._control)
        while True:
            pid, ended = os.waitpid(-1, 0)
            if pid == self._child:
                return ended


def _exit_code(status: int) -> int:
    """Return the exit code of the child. If a signal ended it, the same signal ends this process, except in a pod."""
    if not os.WIFSIGNALED(status):
        return os.WEXITSTATUS(status)
    number = os.WTERMSIG(status)
    if os.getpid() != 1:  # the first process of a pod cannot kill itself
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return 128 + number
