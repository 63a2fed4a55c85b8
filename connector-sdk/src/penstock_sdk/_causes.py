"""The errors behind an error: a TLS library's own error is behind that of the HTTP client."""

from __future__ import annotations

from collections.abc import Iterator


def chain_of_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on; each once, also if an error is its own cause."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
