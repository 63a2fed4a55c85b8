"""Masks the platform's own credentials in its logs and errors: the registry's password, keys of the bucket and of credentials, tokens."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qs, quote, quote_plus, unquote, urlsplit

SHOWN = "***"
SHORTEST = 4
"""Characters of a value that is masked wherever it is; a shorter one is masked as a separate word."""
SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "PENSTOCK_TOKEN", "PGPASSWORD")
URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s@]+(@)", re.IGNORECASE)
"""The password of any URL, whoever wrote it."""
WORD_PASSWORD = re.compile(r"(\bpassword\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)", re.IGNORECASE)
"""The password of a connection string of libpq, or of the query of a URL."""


def own_secrets(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the credentials of the environment that this process must not show."""
    found = [environment.get(name, "") for name in SECRET_VARIABLES]
    found += environment.get("PENSTOCK_CREDENTIALS_KEY", "").split(",")
    found += _passwords(environment.get("PENSTOCK_DATABASE_URL", ""))
    return [value for value in (value.strip() for value in found) if value]


def _passwords(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        written = [parts.password or "", *parse_qs(parts.query).get("password", [])]
    except ValueError:
        return
    for password in written:
        yield from (password, unquote(password))


def masked(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the text without the credentials, and without the password of any URL."""
    text = WORD_PASSWORD.sub(rf"\1{SHOWN}", URL_PASSWORD.sub(rf"\1{SHOWN}\2", text))
    forms = {form for value in own_secrets(environment) for form in _forms(value)}
    for form in sorted(forms, key=len, reverse=True):
        pattern = re.escape(form) if len(form) >= SHORTEST else rf"(?<!\w){re.escape(form)}(?!\w)"
        text = re.sub(pattern, SHOWN, text)
    return text


def _forms(value: str) -> Iterator[str]:
    """Yield a value as messages and libraries write it."""
    yield value
    yield quote(value, safe="")
    yield quote(value)
    yield quote_plus(value)
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield base64.b64encode(value.encode(errors="surrogateescape")).decode()
