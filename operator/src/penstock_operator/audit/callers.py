"""Who makes the request that this task handles.

The server opens a caller for each request, and authentication says who it is. A task without a caller is the controller's,
or that of a command.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from penstock_operator.audit.events import CONTROLLER, Actor, AuditedObject, ObjectKind
from penstock_operator.ids import ActorUid, Namespace, ObjectId

MAX_GROUPS = 50


@dataclass(slots=True)
class Caller:
    """What is known so far of a request: who makes it, and which object it is about."""

    actor: Actor
    target: AuditedObject | None = None
    reason: str = ""
    """Why the request was refused, as its answer says."""


_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)
_process: ContextVar[Actor] = ContextVar("process", default=CONTROLLER)


def current_actor() -> Actor:
    """Return who makes the request of this task, else who this process works for."""
    caller = _caller.get()
    return caller.actor if caller else _process.get()


def current_caller() -> Caller | None:
    """Return the caller of this task's request; None outside of a request."""
    return _caller.get()


def act_as(actor: Actor) -> None:
    """Say who this process works for, where that is not the controller: a command."""
    _process.set(actor)


@contextmanager
def calling(address: str | None) -> Iterator[Caller]:
    """Open the caller of a request, of whom only the address is known."""
    caller = Caller(Actor(kind="anonymous", name="", address=address))
    token = _caller.set(caller)
    try:
        yield caller
    finally:
        _caller.reset(token)


def identify_person(name: str, groups: tuple[str, ...] = (), uid: ActorUid | None = None) -> None:
    """Say that a person, or a program with a token of its own, makes the request."""
    _identify(Actor(kind="person", name=name, groups=groups[:MAX_GROUPS], uid=uid))


def identify_pod(name: str, uid: ActorUid | None, namespace: Namespace | None) -> None:
    """Say that a pod makes the request: the pod of the Job `name`."""
    _identify(Actor(kind="pod", name=f"{namespace}/{name}" if namespace else name, uid=uid))


def _identify(actor: Actor) -> None:
    caller = _caller.get()
    if caller:
        caller.actor = replace(actor, address=caller.actor.address)


def concerns(
    kind: ObjectKind, namespace: Namespace | None, name: str | None = None, id_: ObjectId | None = None
) -> None:
    """Say which object the request is about, so that a refusal names it. The most specific object stays."""
    caller = _caller.get()
    if caller is None:
        return
    known = caller.target
    if known and known.namespace == namespace:
        name, id_ = name or known.name, id_ or known.id
    caller.target = AuditedObject(kind, namespace, name, id_)
