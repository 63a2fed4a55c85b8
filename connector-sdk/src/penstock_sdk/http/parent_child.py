"""Child streams: an endpoint below each record of another one, such as the comments of each issue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from penstock_sdk.contract import Batch, Cursor
from penstock_sdk.errors import SourceContractError
from penstock_sdk.http.response_rules import NotFoundError
from penstock_sdk.json_types import JsonValue

log = logging.getLogger(__name__)
ParentT = TypeVar("ParentT")
MOST_PARENTS = 10_000
"""Parents in one cursor. A cursor is committed with each checkpoint; of 10,000 timestamps it has about 600 KB."""


class _CommittedParents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cursor: the children's cursor of each parent, and the parents that were read to their end, by key."""

    parents: dict[str, Any]
    read: list[str] = []


def read_children(
    parents: Iterable[ParentT],
    read: Callable[[ParentT, Cursor | None], Iterable[Batch]],
    cursor: Cursor | None,
    *,
    key: Callable[[ParentT], str | int],
    incremental: bool = True,
    forget_missing: bool = True,
) -> Iterator[Batch]:
    """Yield the children of each parent, with a cursor that holds one cursor for each parent.

    `read(parent, cursor)` yields the children of one parent from the cursor of an earlier batch of the same parent, or from
    the start with None. `key` identifies a parent from run to run. Parents are read one after the other, and each key once.

    - `incremental`: a later run continues with each parent where the last one ended. False: each run reads all children; an
      attempt that resumes leaves out the parents that were read to their end.
    - `forget_missing`: the cursor of a parent that is not in `parents` any more is dropped. Set it to False if `parents` are
      not all parents, such as only those that have changed.

    A parent that was deleted meanwhile (`read` raises NotFoundError) is left out. If no parent can be read, the error is
    raised. Raises SourceContractError for more than 10,000 parents: read them as partitions of the stream.
    """
    committed = _committed(cursor)
    cursors, finished = dict(committed.parents), set(committed.read)
    listed = set[str]()
    missing: NotFoundError | None = None
    found_any = False
    for parent in parents:
        name = str(key(parent))
        if name in listed:
            continue
        listed.add(name)
        if name in finished:
            found_any = True
            continue
        try:
            for batch in read(parent, cursors.get(name)):
                if batch.cursor is None:
                    yield batch
                else:
                    cursors[name] = batch.cursor
                    yield Batch(batch.records, _cursor(cursors, finished), batch.op)
        except NotFoundError as error:
            log.info("a parent was deleted during the read: %s", error.message)
            missing = error
            cursors.pop(name, None)
            continue
        found_any = True
        if not incremental:
            finished.add(name)
            cursors.pop(name, None)
            yield Batch([], _cursor(cursors, finished))
    if missing is not None and not found_any:
        raise missing
    gone = (cursors.keys() | finished) - listed if forget_missing else set[str]()
    if gone or (missing is not None and incremental):
        kept = {name: value for name, value in cursors.items() if name not in gone}
        yield Batch([], _cursor(kept, finished - gone))


def _committed(cursor: Cursor | None) -> _CommittedParents:
    if cursor is None:
        return _CommittedParents({})
    try:
        return msgspec.convert(cursor, _CommittedParents)
    except msgspec.ValidationError:
        raise SourceContractError("the state is not from this kind of read; reset the stream's state") from None


def _cursor(cursors: Mapping[str, JsonValue], finished: set[str]) -> Cursor:
    if len(cursors) + len(finished) > MOST_PARENTS:
        raise SourceContractError(
            f"the stream has more than {MOST_PARENTS:,} parents: read them as partitions, so that each has its own cursor"
        )
    parents: dict[str, JsonValue] = {"parents": dict(cursors)}
    return {**parents, "read": sorted(finished)} if finished else parents
