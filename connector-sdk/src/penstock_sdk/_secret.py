"""A text that is not shown by accident."""

from __future__ import annotations

import hmac
from typing import NoReturn, final

SHOWN = "***"


@final
class Secret:
    """A credential whose value is read by `reveal()` only.

    `str`, `repr` and `format` give `***`, and `json` and `pickle` refuse it. Two secrets are equal if their values are.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value. Give it to the client that needs it, and keep it nowhere else."""
        return self._value

    def __repr__(self) -> str:
        return SHOWN

    def __format__(self, spec: str) -> str:
        return format(SHOWN, spec)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: object) -> Secret:
        return self

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a Secret is not pickled; pass what needs it the connector's credentials")


def decode_secret(wanted: type, value: object) -> Secret:
    """Return a Secret for a field of this type: the hook of `msgspec.convert`."""
    if wanted is not Secret:
        raise NotImplementedError(f"fields of {wanted.__name__} are not supported")
    if not isinstance(value, str):
        raise TypeError("Expected `str`")
    return Secret(value)
