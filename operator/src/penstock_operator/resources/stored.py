"""Documents that the registry has held since an older release: parsed by the models of this release."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)
Location = Sequence[str | int]


def parse_stored(model: type[Model], document: object, **required: BaseModel) -> Model:
    """Return a stored document as the model that it was stored as.

    A field that the model does not know any more is ignored, and a value that it does not allow any more counts as left
    out. `required` are the values of required fields that are left out. Raises ValidationError for any other one.
    """
    remaining: Any = document if isinstance(document, dict) else {}
    while True:
        try:
            return model.model_validate(remaining)
        except ValidationError as error:
            problems = error.errors()
            locations = [_removable(problem["type"], problem["loc"]) for problem in problems]
            missing = {
                str(problem["loc"][0]) for problem, location in zip(problems, locations, strict=True) if not location
            }
            if not missing <= required.keys():
                raise
            remaining = {**deepcopy(remaining), **{name: required[name] for name in missing}}
            for location in filter(None, reversed(locations)):
                _remove(remaining, location)


def _removable(problem: str, location: Location) -> Location:
    """Return what to leave out because of a problem: the value, or the object that lacks a field."""
    return location[:-1] if problem == "missing" else location


def _remove(document: Any, location: Location) -> None:
    *path, last = location
    for key in path:
        try:
            document = document[key]
        except (KeyError, IndexError):
            return  # removed with the object that held it
    if isinstance(document, list) and isinstance(last, int) and last < len(document):
        del document[last]
    elif isinstance(document, dict):
        document.pop(last, None)
