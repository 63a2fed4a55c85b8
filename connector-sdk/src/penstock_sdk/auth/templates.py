"""Texts of a description, with values of the config and of the Secret."""

from __future__ import annotations

import re

from penstock_sdk.auth.shared_credentials import LoginContext
from penstock_sdk.errors import ConfigError
from penstock_sdk.manifest import PLACEHOLDER, fill_in, fill_in_url
from penstock_sdk.manifest.authentication_checks import CREDENTIAL_PLACEHOLDER


def text_of(template: str, context: LoginContext, name: str) -> str:
    """Return a text filled in. Raises ConfigError or AuthenticationError if a value is missing. `name` is its field."""

    def config_value(match: re.Match[str]) -> str:
        found = fill_in(match[0], context.config)
        if found is None:
            raise ConfigError(
                f"spec.config: the login needs a text or a number in {match[1]}, for {name} of the manifest: add it"
            )
        return found

    # One pass over the template: a value of the config that looks like a placeholder stays as it is.
    parts = re.split(r"(\{\{.*?\}\})", template)
    filled = []
    for part in parts:
        credential = CREDENTIAL_PLACEHOLDER.fullmatch(part)
        config = PLACEHOLDER.fullmatch(part)
        if credential:
            filled.append(context.credential(credential[1]).rstrip("\r\n"))
        else:
            filled.append(config_value(config) if config else part)
    return "".join(filled)


def url_of(template: str, context: LoginContext, name: str) -> str:
    """Return a URL filled in. Raises ConfigError if a value is missing or cannot be a part of this URL."""
    for match in PLACEHOLDER.finditer(template):
        text_of(match[0], context, name)
    found = fill_in_url(template, context.config)
    if found is None:
        keys = ", ".join(match[1] for match in PLACEHOLDER.finditer(template))
        raise ConfigError(f"spec.config: {keys or name} does not give a URL for {name} of the manifest: correct it")
    return found
