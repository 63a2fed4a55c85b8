"""An error without a message says what its class is, and no more of the docstring than that."""

from __future__ import annotations

import pytest
from penstock_sdk import errors

RAISED = [getattr(errors, name) for name in errors.ERROR_CLASS_BY_EXIT_CODE.values()]


@pytest.mark.parametrize("error", RAISED, ids=lambda each: each.__name__)
def test_a_default_message_is_one_sentence(error: type[errors.ConnectorError]) -> None:
    message = error().message
    assert message.endswith(".")
    assert "\n" not in message
    assert error("the port is closed").message == "the port is closed"


def test_a_subclass_without_words_is_named() -> None:
    class Odd(errors.ConfigError):
        __doc__ = None

    assert Odd().message == "Odd"
