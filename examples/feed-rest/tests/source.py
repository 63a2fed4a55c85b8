"""A source to try the connector on: an Atom feed in pages, the newest entry first.

python tests/source.py PORT        serves /some, /none and /many
python tests/source.py PORT grow   adds an entry, at the moment of the newest, to the one that is served
"""

from __future__ import annotations

import base64
import sys
import urllib.request
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

LOGIN = "Basic " + base64.b64encode(b"reader:password-of-the-trial").decode()
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SHARED = 7  # so many entries share a moment, and pages end among them


def entry(number: int, note: str) -> str:
    """Return an entry."""
    moment = (BEGIN + timedelta(seconds=number // SHARED)).isoformat()
    return (
        f"<entry><id>tag:{number}</id><updated>{moment}</updated><title>entry {number}</title>"
        f'<link href="/entries/{number}"/><author><name>Ada</name></author><category term="news"/>'
        f"<content>{note}</content></entry>"
    )


SHELVES = {
    "some": [entry(number, "short") for number in range(100)],
    "none": [],
    "many": [entry(number, "a long note " * 160) for number in range(15_000)],
}
SIZES = {"some": 20, "none": 20, "many": 500}


class Server(ThreadingHTTPServer):
    """A server whose clients may be killed in the middle of a request, as the suite does."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong here, and nothing of a client that went away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Feed(BaseHTTPRequestHandler):
    """The feed."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self) -> None:
        """Answer with a page."""
        url = urlsplit(self.path)
        shelf = url.path.strip("/")
        if self.headers.get("Authorization") != LOGIN:
            self.answer(401, "")
        elif shelf in SHELVES:
            page = int(parse_qs(url.query).get("page", ["1"])[0])
            entries, size = SHELVES[shelf][::-1], SIZES[shelf]
            more = f'<link rel="next" href="?page={page + 1}"/>' if page * size < len(entries) else ""
            found = "".join(entries[(page - 1) * size : page * size])
            self.answer(200, f'<feed xmlns="http://www.w3.org/2005/Atom"><title>trial</title>{more}{found}</feed>')
        else:
            self.answer(404, "")

    def do_POST(self) -> None:
        """Add an entry at the newest moment."""
        some = SHELVES["some"]
        some.append(some[-1].replace(f"tag:{len(some) - 1}", f"tag:{len(some)}"))
        self.answer(200, "")

    def answer(self, status: int, content: str) -> None:
        """Send a body."""
        body = content.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/atom+xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main(port: int, *, grow: bool) -> None:
    """Serve, or add to what is served."""
    if grow:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/grow", data=b"", timeout=10).close()
    else:
        Server(("127.0.0.1", port), Feed).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), grow=sys.argv[2:] == ["grow"])
