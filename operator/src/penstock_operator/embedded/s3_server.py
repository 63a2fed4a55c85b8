"""The process of the S3 server: ministack behind a gate that refuses unsafe requests.

ministack 1.5.33 checks no header signature of its root key, which is the only key we have, and answers
`POST /_ministack/reset`, which deletes every object, to anyone who can reach the port, a web page included.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from hypercorn.asyncio import serve
from hypercorn.config import Config
from ministack import app as ministack
from ministack.core import iam_evaluator

if TYPE_CHECKING:
    from collections.abc import Callable

HEALTH = "/_ministack/health"


def _verify_every_key() -> None:
    """Have the root key's header signatures checked like any other key's; its secret is in the environment."""
    if not hasattr(iam_evaluator, "_is_root_key"):
        raise RuntimeError("this ministack is not the one whose signature check is known: install ministack 1.5.33")
    iam_evaluator._is_root_key = lambda _key: False  # noqa: SLF001 - there is no setting for it


async def gate(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """Refuse ministack's own pages except its health; no bucket's name starts with an underscore."""
    path = scope.get("path", "")
    if scope["type"] == "websocket" or (scope["type"] == "http" and path.startswith("/_") and path != HEALTH):
        await _refuse(scope, send)
        return
    await ministack.app(scope, receive, send)


async def _refuse(scope: dict[str, Any], send: Callable[..., Any]) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def main() -> None:
    """Serve on the address that the environment names."""
    _verify_every_key()
    config = Config()
    config.bind = [f"{os.environ['BIND_HOST']}:{os.environ['GATEWAY_PORT']}"]
    config.loglevel = "WARNING"
    asyncio.run(serve(gate, config))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
