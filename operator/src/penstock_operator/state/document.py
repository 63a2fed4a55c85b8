"""The document that a state is exported to and imported from."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel


class _DocumentModel(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


class ExportedState(_DocumentModel):
    """The state of one stream. An import uses name, cursor and state version; the other fields are for people."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    cursor: Any
    state_version: Annotated[int, Field(ge=1)]
    generation: int | None = None
    checkpoint: int | None = None
    run: str | None = None
    updated_at: datetime | None = None


class StateDocument(_DocumentModel):
    """The state of a connection's streams."""

    api_version: Literal["penstock.io/v1alpha1"] = "penstock.io/v1alpha1"
    kind: Literal["StreamStates"] = "StreamStates"
    connection: str = ""
    connector: str
    streams: Annotated[list[ExportedState], Field(max_length=10_000)]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        counted = Counter(stream.name for stream in self.streams)
        twice = sorted(name for name, count in counted.items() if count > 1)
        if twice:
            raise ValueError(f"streams: {', '.join(twice)} is there more than once")
        return self
