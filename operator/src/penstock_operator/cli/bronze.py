"""`penstock bronze`: the committed objects. Objects that are not committed are never shown."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, NamedTuple, get_args

import typer
import zstandard
from penstock_sdk.protocol import ObjectKind

from penstock_operator.api.models import ConnectionView, ObjectView, StreamView
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.cli.api_session import DATA_DIR, ApiSession, DataDir, session
from penstock_operator.cli.bronze_sql import BronzeView, FetchedObjects, unpack
from penstock_operator.cli.bronze_verify import BATCH, compare, fetched, of_listing, of_run
from penstock_operator.cli.exit_codes import CommandError, ExitCode
from penstock_operator.cli.names import connection_path
from penstock_operator.cli.output import ListingColumn, Output, OutputOption, moment, print_rows, say, written
from penstock_operator.cli.query_output import print_relation
from penstock_operator.ids import ConnectionName, Namespace, StreamName
from penstock_operator.resources.spelling import nearest_word

app = typer.Typer(no_args_is_help=True, help="Bronze: ls, head, sql, verify over committed objects.")
Where = Annotated[str | None, typer.Argument(help="[NAMESPACE/]CONNECTION[/STREAM] or nothing for all")]
Rejected = Annotated[bool, typer.Option("--rejected", help="Records that did not fit, each with the reason.")]
COLUMNS: tuple[ListingColumn[ObjectView], ...] = (
    ListingColumn("object", lambda listed: listed.key),
    ListingColumn("records", lambda listed: listed.records),
    ListingColumn("bytes", lambda listed: listed.bytes),
    ListingColumn("committed", lambda listed: moment(listed.committed_at)),
)


def _kind(*, rejected: bool) -> ObjectKind:
    return "rejected" if rejected else "data"


class _Names(NamedTuple):
    """The parts of [NAMESPACE/]CONNECTION[/STREAM], as far as they are given."""

    namespace: Namespace | None
    name: ConnectionName | None
    stream: StreamName | None


def _names(where: str | None) -> _Names:
    parts = (where or "").split("/") if where else []
    if len(parts) > len(_Names._fields) or not all(parts):
        raise CommandError(f"{where!r} names no objects: give [NAMESPACE/]CONNECTION[/STREAM], or nothing for all")
    namespace, name, stream = (*(parts if len(parts) > 1 else ["", *parts]), "", "", "")[:3]
    return _Names(Namespace(namespace) or None, ConnectionName(name) or None, StreamName(stream) or None)


async def _check_names(api: ApiSession, where: str | None) -> None:
    """Raise CommandError if `where` names a connection or a stream that does not exist: no object of it was found."""
    namespace, name, stream = _names(where)
    if name is None:
        return
    known = [found async for found in api.pages(ConnectionView, "/connections", namespace=namespace)]
    named = [found for found in known if found.name == name]
    if not named:
        shown = {f"{found.namespace}/{found.name}" if namespace else found.name for found in known}
        wanted = f"{namespace}/{name}" if namespace else name
        raise CommandError(f"there is no connection {wanted}{_guess(wanted, shown)}, and no object of one")
    if stream is not None:
        path = connection_path(f"{named[0].namespace}/{name}")
        streams = {found.stream async for found in api.pages(StreamView, f"{path}/streams")}
        if stream not in streams:
            raise CommandError(f"{named[0].namespace}/{name} has no stream {stream}{_guess(stream, streams)}")


def _guess(word: str, known: Iterable[str]) -> str:
    near = nearest_word(word, known)
    return f" (nearest: {near})" if near else ""


def _listing(api: ApiSession, where: str | None, kind: ObjectKind) -> AsyncGenerator[ObjectView]:
    """Yield the committed objects of [NAMESPACE/]CONNECTION[/STREAM]."""
    namespace, name, stream = _names(where)
    return api.pages(ObjectView, "/objects", kind=kind, namespace=namespace, name=name, stream=stream)


async def _listed(data_dir: Path, where: str | None, kind: ObjectKind) -> list[ObjectView]:
    async with session(data_dir) as api:
        listed = [listed async for listed in _listing(api, where, kind)]
        if not listed:
            await _check_names(api, where)
        return listed


async def _objects(
    data_dir: Path, where: str | None, kind: ObjectKind = "data"
) -> AsyncGenerator[tuple[str, bytes | str]]:
    """Yield each object's key, and its bytes or why they cannot be read; each is fetched when it is needed."""
    async with session(data_dir) as api, aclosing(_listing(api, where, kind)) as objects:
        store: BronzeStore | None = None
        async for listed in objects:
            store = store or _required(api.store)
            yield listed.key, await asyncio.to_thread(fetched, store, listed.key)
        if store is None:
            await _check_names(api, where)


def _required(store: BronzeStore | None) -> BronzeStore:
    if store is None:
        message = "set PENSTOCK_S3_ENDPOINT, PENSTOCK_S3_BUCKET and the AWS_* variables to read objects of a server"
        raise CommandError(message)
    return store


@app.command()
def ls(
    where: Where = None, rejected: Rejected = False, output: OutputOption = Output.table, data_dir: DataDir = DATA_DIR
) -> None:
    """List committed objects.

    Example: penstock bronze ls team-a/people -o json
    """
    print_rows(asyncio.run(_listed(data_dir, where, _kind(rejected=rejected))), COLUMNS, output)


@app.command()
def head(
    where: Where = None,
    records: Annotated[int, typer.Option("-n", min=0, help="How many records.")] = 5,
    rejected: Rejected = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Print the first committed records, one JSON object a line.

    Example: penstock bronze head team-a/people/people -n 1
    """
    raise typer.Exit(asyncio.run(_head(data_dir, where, records, _kind(rejected=rejected))))


async def _head(data_dir: Path, where: str | None, records: int, kind: ObjectKind) -> ExitCode:
    code, left = ExitCode.ok, records
    async with aclosing(_objects(data_dir, where, kind)) as objects:
        async for key, body in objects:
            if left == 0:
                break
            for line in _lines(key, body):
                if line is None:
                    code = ExitCode.problem
                    break
                typer.echo(written(line), nl=False)
                left -= 1
                if left == 0:
                    break
    return code


def _lines(key: str, body: bytes | str) -> Iterator[str | None]:
    """Yield an object's lines; None behind the last one that can be read, after the reason was printed."""
    if isinstance(body, str):
        say(f"{key}: {body}")
        yield None
        return
    try:
        reader = zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True)
        yield from io.TextIOWrapper(reader, encoding="utf-8", errors="backslashreplace", newline="\n")
    except zstandard.ZstdError:
        say(f"{key}: it is not zstd, or damaged")
        yield None


@app.command()
def verify(
    where: Where = None,
    run: Annotated[str | None, typer.Option("--run", help="The objects of this run's commit manifest.")] = None,
    read: Annotated[bool, typer.Option("--read", help="Also read the objects and count their records.")] = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Compare committed objects with the bucket: size and SHA-256, as the runs' commit manifests say.

    Each object that differs is printed with how; the exit code is then 1.

    Example: penstock bronze verify team-a/people --read
    """
    if where and run:
        message = "give either [NAMESPACE/]CONNECTION[/STREAM] or --run, not both"
        raise CommandError(message)
    raise typer.Exit(asyncio.run(_verify(data_dir, where, run, read=read)))


async def _verify(data_dir: Path, where: str | None, run: str | None, *, read: bool) -> ExitCode:
    async with session(data_dir) as api:
        store = _required(api.store)
        if run:
            entries, differences = await of_run(api, store, run), dict[str, str]()
        else:
            entries, differences = await of_listing(store, _all_kinds(api, where))
        compared = len(entries) + len(differences)
        if not compared:
            await _check_names(api, where)
        for start in range(0, len(entries), BATCH):
            differences |= await compare(store, entries[start : start + BATCH], read=read)
    for key, difference in differences.items():
        say(f"{key}: {difference}")
    typer.echo(f"{compared} objects compared, {len(differences)} differ")
    return ExitCode.problem if differences else ExitCode.ok


async def _all_kinds(api: ApiSession, where: str | None) -> AsyncGenerator[ObjectView]:
    for kind in get_args(ObjectKind):
        async for listed in _listing(api, where, kind):
            yield listed


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="SQL over the view `bronze`; the record's own fields are in `data`.")],
    where: Annotated[str | None, typer.Option("--from", help="[NAMESPACE/]CONNECTION[/STREAM]")] = None,
    output: OutputOption = Output.table,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Query committed objects with DuckDB.

    What cannot be read is named on stderr and left out; the exit code is then 1.

    Example: penstock bronze sql "SELECT data.address.city, count(*) FROM bronze GROUP BY 1"
    """
    try:
        import duckdb
    except ImportError:
        raise CommandError("DuckDB is not installed: pip install 'penstock-operator[embedded]'") from None

    with tempfile.TemporaryDirectory(prefix="penstock-sql-") as scratch:
        loaded = asyncio.run(_load(data_dir, where, Path(scratch)))
        database = duckdb.connect()
        BronzeView(database, Path(scratch)).make(loaded)
        for report in loaded.reports:
            say(report)
        print_relation(database, query, output)
    raise typer.Exit(ExitCode.problem if loaded.reports else ExitCode.ok)


async def _load(data_dir: Path, where: str | None, scratch: Path) -> FetchedObjects:
    loaded, seen = FetchedObjects(), False
    async with aclosing(_objects(data_dir, where)) as objects:
        async for key, body in objects:
            seen = True
            path = scratch / f"{len(loaded.files):06d}.jsonl"
            problem = body if isinstance(body, str) else await asyncio.to_thread(unpack, body, path)
            if problem:
                loaded.reports.append(f"{key}: {problem}")
            if not isinstance(body, str):
                loaded.files[path] = key
    if not seen:
        raise CommandError("there are no committed objects there; `penstock bronze ls` lists all")
    return loaded
