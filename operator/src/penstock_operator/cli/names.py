"""Names of connections as people give them on a command line."""

from __future__ import annotations

from urllib.parse import quote

from penstock_operator.cli.exit_codes import CommandError

NOT_UTF8 = "an argument holds bytes that are not UTF-8"


def encodable(text: str) -> str:
    """Return a text that can be sent to a server. Raises CommandError for one with bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CommandError(f"{text!r} is not UTF-8") from None
    return text


def connection_name(which: str) -> tuple[str, str]:
    """Return namespace and name of [NAMESPACE/]NAME; without a namespace it is `default`."""
    namespace, separator, name = encodable(which).rpartition("/")
    if not name or "/" in namespace or (separator and not namespace):
        raise CommandError(f"{which!r} is not the name of a connection: give NAMESPACE/NAME, such as team-a/people")
    return namespace or "default", name


def connection_path(which: str) -> str:
    """Return the read API's path of a connection."""
    namespace, name = connection_name(which)
    return f"/connections/{quote(namespace, safe='')}/{quote(name, safe='')}"
