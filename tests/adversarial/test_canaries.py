"""A connector that puts its credentials wherever a connector can put something, and a search of all that is kept or shown."""

from __future__ import annotations

import json
import os
import random
import string
from collections.abc import Iterator
from pathlib import Path

import psycopg
import zstandard
from penstock_operator.bronze.store import s3_client
from penstock_operator.settings import s3_settings
from penstock_sdk._runtime.secret_forms import SecretForms
from psycopg import sql

from tests.adversarial.attacks import StartAttack
from tests.installed import install
from tests.integration.conftest import backends_environment, folder
from tests.integration.test_up import User

__all__ = ["backends_environment", "folder"]
KEYS = 20
SEED = int(os.environ.get("PENSTOCK_ADVERSARIAL_SEED", "1"))
CONNECTOR = '''
import base64, json, logging, os, subprocess, sys, urllib.parse
import msgspec
from penstock_sdk import (
    AuthenticationError, Batch, ConfigError, Connector, Estimate, SourceContractError, Stream, TransientError,
)

ERRORS = {
    "AuthenticationError": AuthenticationError, "ConfigError": ConfigError, "TransientError": TransientError,
    "SourceContractError": SourceContractError, "RuntimeError": RuntimeError, "KeyError": KeyError,
}


class Config(msgspec.Struct):
    place: str
    way: str = "raw"


class Careless(Connector[Config, dict]):
    """Leaks each credential at the place that its config names."""

    def leaks(self):
        for value in self.credentials.values():
            yield {
                "raw": lambda: value,
                "url": lambda: urllib.parse.quote(value, safe=""),
                "base64": lambda: base64.b64encode(f"user:{value}".encode()).decode(),
                "hex": lambda: value.encode().hex(),
                "json": lambda: json.dumps({"password": value}),
                "repr": lambda: repr({"password": value}),
            }[self.config.way]()

    def at(self, place, write):
        if self.config.place == place:
            for leak in self.leaks():
                write(leak)

    def failing(self, place):
        where, _, error = self.config.place.partition(":")
        if where == place:
            raise ERRORS[error]("the source said: " + " ".join(self.leaks()))

    def authenticate(self):
        self.at("print", print)
        self.at("stderr", lambda leak: print(leak, file=sys.stderr))
        self.at("halves", lambda leak: [print(part, end="", flush=True) for part in (leak[:3], leak[3:] + "\\n")])
        self.at("log", logging.getLogger("careless").warning)
        self.at("file", lambda leak: os.write(1, leak.encode() + b"\\n"))
        self.at("child", lambda leak: subprocess.run([sys.executable, "-c", "import sys; print(sys.argv[1])", leak]))
        self.failing("authenticate")

    def discover(self):
        self.failing("discover")
        leaks = list(self.leaks())
        name = leaks[0][:100] if self.config.place == "name" else "people"
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
        if self.config.place == "schema":
            schema["description"] = " ".join(leaks)
        if self.config.place == "field":
            schema["properties"] |= {leak: {"type": "string"} for leak in leaks}
        return [Stream(name=name, schema=schema, primary_key=("n",), modes=("full", "incremental"))]

    def read(self, stream, since, cursor):
        self.at("reject", lambda leak: self.reject({"n": 1}, leak))
        self.at("rejected record", lambda leak: self.reject({"n": 1, "sent": leak}, "it does not fit"))
        yield Batch([{"n": 1}])
        self.failing("read")
        last = {"token": list(self.leaks())} if self.config.place == "cursor" else {"n": 2}
        yield Batch([{"n": 2}], cursor=last)
'''
PLACES = (
    *("print/raw", "print/json", "stderr/url", "stderr/repr", "halves/raw", "halves/base64"),
    *("log/hex", "log/json", "file/raw", "file/base64", "child/raw", "child/url"),
    *(
        f"authenticate:{error}/raw"
        for error in ("AuthenticationError", "ConfigError", "SourceContractError", "RuntimeError")
    ),
    *("discover:KeyError/raw", "discover:SourceContractError/json"),
    *(f"read:{error}/raw" for error in ("AuthenticationError", "TransientError", "SourceContractError", "KeyError")),
    *("reject/raw", "reject/base64", "rejected record/raw", "rejected record/json", "cursor/raw", "cursor/base64"),
    *("name/raw", "schema/raw", "field/raw"),
)


def manifest() -> dict[str, object]:
    """Return the connector's manifest: it has as many credentials as a method may have."""
    return {
        "name": "careless",
        "method": "rest",
        "version": "0.1.0",
        "title": "Careless",
        "taxonomy": {"category": "test", "tags": []},
        "capabilities": {"modes": ["full", "incremental"], "discovery": "dynamic"},
        "authentication": {
            "methods": [{"type": "basic", "credentials": [{"name": f"key_{number}"} for number in range(KEYS)]}]
        },
        "configSchema": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "way": {"type": "string"}},
            "required": ["place"],
        },
        "runners": ["kubernetes", "process"],
        "compliance": {"dataClassification": "internal", "pii": "none"},
    }


def canaries(randomness: random.Random) -> list[str]:
    """Return values as passwords, tokens and keys are: letters, punctuation, text beyond ASCII, base64."""
    alphabets = (string.ascii_letters + string.digits, string.printable[:94], "äöüßéñ漢字🔑" + string.ascii_letters)
    return ["".join(randomness.choices(alphabets[number % 3], k=16 + number)) for number in range(KEYS)]


def kept(user: User) -> Iterator[tuple[str, bytes]]:
    """Yield all that the platform keeps: each row of each table, each object of the bucket, each file of the data directory."""
    with psycopg.connect(user.environment["PENSTOCK_DATABASE_URL"]) as registry:
        tables = registry.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'penstock'").fetchall()
        for (table,) in tables:
            rows = registry.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier("penstock", table)))
            yield f"table {table}", "\n".join(row for (row,) in rows).encode()
    settings = s3_settings(user.environment)
    client = s3_client(settings, settings.endpoint)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=settings.bucket, Prefix=settings.prefix):
        for listed in page.get("Contents", ()):
            body = client.get_object(Bucket=settings.bucket, Key=listed["Key"])["Body"].read()
            if body.startswith(b"\x28\xb5\x2f\xfd"):
                body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
            yield f"object {listed['Key']}", listed["Key"].encode() + body
    for path in user.data.rglob("*"):
        if path.is_file():
            yield f"file {path.relative_to(user.data)}", path.read_bytes()


def test_11_a_careless_connector_shows_no_credential(
    tmp_path: Path,
    folder: Path,
    backends_environment: dict[str, str],
    attack: StartAttack,
) -> None:
    site = install(tmp_path / "site", "careless-rest", "penstock_careless:Careless", CONNECTOR, json.dumps(manifest()))
    user = User(folder, tmp_path, {**backends_environment, **site})
    user.write("definition.yaml", user.call("definition", "careless-rest").stdout)
    randomness, planted = random.Random(SEED), dict[str, list[str]]()
    for number, place in enumerate(PLACES):
        name, (where, _, way) = f"leak-{number}", place.rpartition("/")
        planted[place] = canaries(randomness)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "team"}}
        values = {f"key_{index}": value for index, value in enumerate(planted[place])}
        user.write(f"{name}-secret.yaml", [{**secret, "stringData": values}])
        user.connection(
            name,
            connector={"name": "careless", "method": "rest", "version": "0.1.0"},
            config={"place": where, "way": way},
            secretRef={"name": name},
            retry={"limit": 0},
            rejects={"maxRecords": 1000},
            validation="strict",
        )
    done = user.call("up", str(folder), "--data-dir", str(user.data), "--once", "--output", "json")
    assert len(json.loads(done.stdout)["connections"]) == len(PLACES), done.stderr
    shown = [("up", (done.stdout + done.stderr).encode())]
    for command in (("runs", "list", "-o", "json"), ("audit", "-o", "json", "--limit", "5000"), ("alerts", "list")):
        told = user.call(*command, "--data-dir", str(user.data))
        shown.append((" ".join(command), (told.stdout + told.stderr).encode()))
    everything = [*shown, *kept(user)]
    logs = b"".join(body for _, body in everything)
    assert b"***" in logs, "the connector leaked nothing: this test shows nothing"
    with attack("credentials at every place and in every form", actor="connector author", invariant=11) as tried:
        for place, values in planted.items():
            for value in values:
                forms = SecretForms([value])
                seen = [title for title, body in everything if value.encode() in body or forms.spans(body)]
                tried.record(succeeded=bool(seen), detail=f"{place}: in {seen[:3]}")
    assert tried.tried >= 500
