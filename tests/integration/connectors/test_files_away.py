"""A store that is away, silent or busy fails its own streams and is not asked again and again; the others are read."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from penstock_files_object import FilesObject
from penstock_files_object.config import FilesConfig, FilesCredentials
from penstock_sdk import ConnectorError, Stream, TransientError
from penstock_sdk.contract import rows_of

from tests.integration.connectors.bucket import Bucket
from tests.integration.connectors.files_server import FilesServer

SECONDS = 3.0
"""How long the connector waits for an answer: a server on loopback gives it at once."""


class SilentServer:
    """Takes connections, and answers only the paths that it knows."""

    def __init__(self, answered: dict[str, bytes]) -> None:
        self.asked = list[str]()
        self._answered = answered
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open = list[socket.socket]()
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                taken, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(taken)
            path = taken.recv(65_536).decode().split(" ")[1]
            self.asked.append(path)
            body = self._answered.get(path)
            if body is not None:
                head = f'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n'
                taken.sendall(head.encode() + body)
                taken.close()

    def close(self) -> None:
        for opened_socket in (self._listening, *self._open):
            opened_socket.close()


@contextmanager
def silent(answered: dict[str, bytes] | None = None) -> Iterator[SilentServer]:
    server = SilentServer(answered or {})
    try:
        yield server
    finally:
        server.close()


def connector(bucket: Bucket | None, paths: dict[str, str], base_url: str, **options: Any) -> FilesObject:
    config = {
        "endpoint": bucket.settings.endpoint if bucket else base_url,
        "baseUrl": base_url,
        "timeoutSeconds": SECONDS,
        "streams": [{"name": name, "paths": [path], "format": "csv", **options} for name, path in paths.items()],
    }
    keys = {"accessKeyId": bucket.settings.access_key, "secretAccessKey": bucket.settings.secret_key} if bucket else {}
    return FilesObject(msgspec.convert(config, FilesConfig), msgspec.convert(keys, FilesCredentials))


def attempt(source: FilesObject) -> dict[str, list[Any] | ConnectorError]:
    """Do what an attempt does, and return the rows of each stream, or why it failed."""
    found = dict[str, list[Any] | ConnectorError]()
    try:
        source.authenticate()
        streams = list(source.discover())
        list(source.drift(streams))
        for stream in streams:
            try:
                found[stream.name] = _rows(source, stream)
            except ConnectorError as error:
                found[stream.name] = error
    finally:
        source.close()
    return found


def _rows(source: FilesObject, stream: Stream) -> list[Any]:
    source.estimate(stream, None, None) if not stream.unavailable else None
    read = [row["n"] for batch in source.read(stream, None, None) for row in rows_of(batch.records)]
    return list(msgspec.json.decode(msgspec.json.encode(read)))


@pytest.mark.parametrize("options", [{}, {"infer": False, "schema": {"properties": {"n": {"type": "integer"}}}}])
def test_a_silent_server_is_asked_twice_and_the_store_beside_it_is_read(
    bucket: Bucket, options: dict[str, Any]
) -> None:
    with silent() as server:
        paths = {f"silent{number}": f"{server.url}/{number}.csv" for number in range(8)}
        source = connector(bucket, {**paths, "here": bucket.put("a.csv", b"n\n1\n")}, server.url, **options)
        found = attempt(source)
        assert len(server.asked) == 2, server.asked
    assert found.pop("here") == [1]
    for error in found.values():
        assert isinstance(error, TransientError)
        assert "no answer in time" in error.message
        assert error.scope == "stream"


def test_one_silent_path_does_not_keep_the_others_of_its_server_from_being_read() -> None:
    with silent({"/1.csv": b"n\n1\n", "/2.csv": b"n\n2\n"}) as server:
        paths = {str(number): f"{server.url}/{number}.csv" for number in range(3)}
        found = attempt(connector(None, paths, server.url))
        assert server.asked.count("/0.csv") == 1
    assert isinstance(found["0"], TransientError)
    assert (found["1"], found["2"]) == ([1], [2])


def test_a_server_that_asks_for_patience_is_left_alone_and_the_store_beside_it_is_read(
    bucket: Bucket, server: FilesServer
) -> None:
    server.statuses = [(429, {"Retry-After": "30"})] * 99
    paths = {f"busy{number}": server.put(f"{number}.csv", b"n\n1\n") for number in range(5)}
    found = attempt(connector(bucket, {**paths, "here": bucket.put("a.csv", b"n\n1\n")}, server.url))
    assert len(server.asked) == 1
    assert found.pop("here") == [1]
    assert {getattr(error, "retry_after", None) for error in found.values()} == {30.0}


def test_a_bucket_that_asks_for_patience_is_no_other_bucket(server: FilesServer) -> None:
    server.statuses = [(503, {"Retry-After": "9"})]
    server.put("other/a.csv", b"n\n1\n")
    found = attempt(
        connector(None, {"busy": "s3://busy/a.csv", "same": "s3://busy/b.csv", "here": "s3://other/a.csv"}, server.url)
    )
    assert [path for _, path, _ in server.asked].count("/busy/b.csv") == 0
    assert found["here"] == [1]
    assert isinstance(found["same"], TransientError)


def test_an_error_of_one_file_is_not_its_servers(server: FilesServer) -> None:
    server.failing = {"/0.csv": 500}
    paths = {str(number): server.put(f"{number}.csv", b"n\n%d\n" % number) for number in range(3)}
    found = attempt(connector(None, paths, server.url))
    assert isinstance(found["0"], TransientError)
    assert (found["1"], found["2"]) == ([1], [2])


def test_a_server_that_fails_again_and_again_is_given_up(server: FilesServer) -> None:
    paths = {str(number): server.put(f"{number}.csv", b"n\n1\n") for number in range(50)}
    server.failing = dict.fromkeys(server.files, 502)
    found = attempt(connector(None, paths, server.url))
    assert len(server.asked) == 3
    assert all(isinstance(error, TransientError) for error in found.values())


def _rows_until(source: FilesObject, stream: Stream) -> tuple[list[Any], Any, str]:
    """Return the rows that were read, the last cursor and the error that ended the read."""
    found, cursor = list[Any](), None
    try:
        for batch in source.read(stream, None, None):
            found += [row["n"] for row in rows_of(batch.records)]
            cursor = batch.cursor
    except ConnectorError as error:
        return found, cursor, error.message
    return found, cursor, ""


@pytest.mark.parametrize("status", [403, 500, 503])
def test_one_object_that_cannot_be_read_keeps_no_later_one_from_being_read(server: FilesServer, status: int) -> None:
    """The stream fails, and the next attempt reads only what is left."""
    pattern = server.put_listed("b", {f"{number}.csv": b"n\n%d\n" % number for number in range(4)})
    server.failing = {"/b/1.csv": status}
    declared = {"infer": False, "schema": {"properties": {"n": {"type": "integer"}}}}
    source = connector(None, {"all": pattern}, server.url, **declared)
    source.authenticate()
    [stream] = source.discover()
    found, cursor, error = _rows_until(source, stream)
    assert "1.csv" in error
    assert msgspec.json.decode(msgspec.json.encode(found)) == [0, 2, 3]
    server.failing = {}
    rest = [row["n"] for batch in source.read(stream, None, cursor) for row in rows_of(batch.records)]
    source.close()
    assert msgspec.json.decode(msgspec.json.encode(rest)) == [1]
