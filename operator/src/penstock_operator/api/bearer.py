"""The bearer token of a request."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from penstock_operator.errors import Unauthenticated

bearer = HTTPBearer(auto_error=False)


def token_of(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> str:
    """Return the token, or refuse."""
    if credentials is None:
        raise Unauthenticated
    return credentials.credentials


Token = Annotated[str, Depends(token_of)]
