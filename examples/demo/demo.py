"""`make demo`: real public tables in a real Postgres, synced in full, changed, and synced incrementally.

The tables are tzdata's: every country of ISO 3166 and every time zone of the world, from the package's own files.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import psycopg
import yaml
from penstock_operator.embedded.postgres import EmbeddedPostgres
from psycopg.conninfo import conninfo_to_dict

HERE = Path(".penstock-demo")
FOLDER, DATA = HERE / "resources", HERE / "data"
TABLES = """
CREATE TABLE IF NOT EXISTS countries (code char(2) PRIMARY KEY, name text NOT NULL,
                                      updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE IF NOT EXISTS zones (name text PRIMARY KEY, countries text[] NOT NULL, coordinates text NOT NULL, comment text,
                                  updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
"""


def rows_of(file: str) -> list[list[str]]:
    """Return the rows of one of tzdata's tab-separated tables."""
    text = (resources.files("tzdata") / "zoneinfo" / file).read_text()
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]


def fill(url: str) -> None:
    """Put the tables into the source database, unless an earlier demo did."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES)
        if connection.execute("SELECT 1 FROM zones LIMIT 1").fetchone():
            return
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO countries (code, name) VALUES (%s, %s)", rows_of("iso3166.tab"))
            zones = [
                (row[2], row[0].split(","), row[1], row[3] if len(row) > len(("code", "at", "name")) else None)
                for row in rows_of("zone1970.tab")
            ]
            cursor.executemany(
                "INSERT INTO zones (name, countries, coordinates, comment) VALUES (%s, %s, %s, %s)", zones
            )


def change(url: str) -> int:
    """Change some rows, as a source does between two runs, and return how many."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(
            "UPDATE zones SET comment = coalesce(comment, '') || '*', updated_at = clock_timestamp() WHERE name LIKE 'Europe/%'"
        ).rowcount


def write_resources(url: str) -> None:
    """Write what a user would keep in a GitOps repository."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for artifact in ("postgres-sql", "faker-generate"):
        text = subprocess.run(
            [sys.executable, "-m", "penstock_operator.cli", "definition", artifact],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        (FOLDER / f"{artifact}.yaml").write_text(text)
    found = conninfo_to_dict(url)
    source = {
        "connector": {"name": "postgres", "method": "sql", "version": "^0.1"},
        "config": {"host": found["host"], "port": int(str(found["port"])), "database": "penstock"},
        "secretRef": {"name": "world-db"},
        "streams": [{"name": "public.countries", "mode": "full"}, {"name": "public.zones", "mode": "incremental"}],
    }
    fake = {
        "connector": {"name": "faker", "method": "generate", "version": "^0.1"},
        "config": {"records": 20_000},
        "streams": [{"name": "people", "mode": "incremental"}],
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "world-db", "namespace": "demo"}}
    documents = [
        {**secret, "stringData": {"username": "penstock", "password": found["password"]}},
        connection("world", source),
        connection("people", fake),
    ]
    (FOLDER / "connections.yaml").write_text(yaml.safe_dump_all(documents, sort_keys=False))


def connection(name: str, spec: dict[str, object]) -> dict[str, object]:
    """Return a TenantConnection."""
    metadata = {"name": name, "namespace": "demo"}
    return {"apiVersion": "penstock.io/v1alpha1", "kind": "TenantConnection", "metadata": metadata, "spec": spec}


def sync() -> list[dict[str, object]]:
    """Run every connection once, with the command that a user types."""
    command = [
        sys.executable,
        "-m",
        "penstock_operator.cli",
        "up",
        str(FOLDER),
        "--data-dir",
        str(DATA),
        "--once",
        "--output",
        "json",
    ]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"the demo's run failed; `penstock runs list --data-dir {DATA}` says more")
    results: list[dict[str, object]] = json.loads(done.stdout)["connections"]
    return results


def show(title: str, results: list[dict[str, object]]) -> None:
    """Print what landed."""
    print(f"\n{title}")
    for each in results:
        print(
            f"  {each['namespace']}/{each['name']}: {each['phase']}, {each['records']} records, {each['bytes']} bytes"
        )
        for key in each["objects"]:  # type: ignore[attr-defined]
            print(f"    s3://bronze/{key}")


def main() -> None:
    """Run the demo."""
    began = time.monotonic()
    with EmbeddedPostgres(HERE / "source") as source:
        fill(source.url)
        write_resources(source.url)
        show("First run: countries in full, zones and people from their beginning", sync())
        print(f"\nThe source changes: {change(source.url)} zones of Europe.")
        show("Second run: countries in full again, and of the others only what is new", sync())
    bronze = [sys.executable, "-m", "penstock_operator.cli", "bronze"]
    where = ["--data-dir", str(DATA)]
    print("\nA few records, each in its envelope:", flush=True)
    subprocess.run([*bronze, "head", "demo/world/public.zones", "-n", "2", *where], check=True)
    query = "SELECT connection, stream, run, count(*) AS records FROM bronze GROUP BY ALL ORDER BY run, stream"
    print(f'\npenstock bronze sql "{query}"', flush=True)
    subprocess.run([*bronze, "sql", query, *where], check=True)
    print(f"Done in {time.monotonic() - began:.1f} s. Look further with (in .venv/bin):")
    print(f"  penstock runs list --data-dir {DATA}\n  penstock bronze ls --data-dir {DATA}")


if __name__ == "__main__":
    main()
