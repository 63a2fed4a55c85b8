"""`penstock bronze`: what landed. Only committed objects are ever shown."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
import zstandard
from rich.console import Console
from rich.table import Table

from penstock_operator.bronze.store import BronzeStore
from penstock_operator.cli.output import print_table
from penstock_operator.cli.session import DATA_DIR, CommandError, DataDir, session

app = typer.Typer(no_args_is_help=True, help="Bronze: ls, head, sql over committed objects.")
Where = Annotated[str | None, typer.Argument(help="[NAMESPACE/]CONNECTION[/STREAM] or nothing for all")]


Rejected = Annotated[bool, typer.Option("--rejected", help="Records that did not fit, each with the reason.")]


def _kind(*, rejected: bool) -> str:
    return "rejected" if rejected else "data"


def _split(where: str | None) -> dict[str, str | None]:
    parts = (where or "").split("/") if where else []
    namespace, name, stream = (*parts, None, None, None)[:3] if len(parts) > 1 else (None, *parts, None, None)[:3]
    return {"namespace": namespace, "name": name, "stream": stream}


async def _objects(
    data_dir: Path, where: str | None, fetch: int | None, kind: str = "data"
) -> list[tuple[dict[str, Any], bytes]]:
    async with session(data_dir) as found:
        rows = await found.get("/objects", kind=kind, **_split(where))
        if fetch is None:
            return [(row, b"") for row in rows]
        store = _required(found.store)
        return [(row, await asyncio.to_thread(store.read, row["key"])) for row in rows[:fetch]]


def _required(store: BronzeStore | None) -> BronzeStore:
    if store is None:
        message = "set PENSTOCK_S3_ENDPOINT, PENSTOCK_S3_BUCKET and the AWS_* variables to read objects of a server"
        raise CommandError(message)
    return store


@app.command()
def ls(where: Where = None, rejected: Rejected = False, data_dir: DataDir = DATA_DIR) -> None:
    """List committed objects."""
    table = Table("object", "records", "bytes", "committed")
    for row, _ in asyncio.run(_objects(data_dir, where, None, _kind(rejected=rejected))):
        table.add_row(row["key"], f"{row['records']:,}", f"{row['bytes']:,}", row["committed_at"][:19])
    print_table(table)


@app.command()
def head(
    where: Where = None,
    records: Annotated[int, typer.Option("-n")] = 5,
    rejected: Rejected = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Print the first committed records, one JSON object a line."""
    left = records
    for _, body in asyncio.run(_objects(data_dir, where, records, _kind(rejected=rejected))):
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(body), encoding="utf-8"):
            if left == 0:
                return
            typer.echo(line, nl=False)
            left -= 1


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="SQL over the view `bronze`; the record's own fields are in `data`.")],
    where: Annotated[str | None, typer.Option("--from", help="[NAMESPACE/]CONNECTION[/STREAM]")] = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Query committed objects with DuckDB."""
    import duckdb

    with tempfile.TemporaryDirectory() as scratch:
        files = []
        for index, (_, body) in enumerate(asyncio.run(_objects(data_dir, where, 10**6))):
            path = Path(scratch) / f"{index:06d}.jsonl"
            with path.open("wb") as file:
                zstandard.ZstdDecompressor().copy_stream(io.BytesIO(body), file)
            files.append(str(path))
        if not files:
            message = "there are no committed objects there; `penstock bronze ls` lists what there is"
            raise CommandError(message)
        database = duckdb.connect()
        listed = json.dumps(files).replace('"', "'")
        database.execute(  # the file names are our own
            f"CREATE VIEW bronze AS SELECT * FROM read_json({listed}, format='newline_delimited', union_by_name=true)"  # noqa: S608
        )
        try:
            Console().print(str(database.sql(query)), highlight=False)
        except duckdb.Error as error:
            raise CommandError(str(error)) from None
