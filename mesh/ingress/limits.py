"""How much one server takes on; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agents.errors import ConfigError

Most: TypeAlias = Annotated[int, Field(ge=1, le=2**31)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
ASKING = ("/v1/chat/completions", "/v1/completions")  # what counts against a key's rate


class Limits(BaseModel):
    """Those of a key and of all keys together are shared out among the replicas, each of which gets at least one.

    ``body_bytes``, ``messages`` and ``max_tokens`` bound one request; ``requests_per_minute`` and ``streams`` (at
    once) what one key asks; ``running`` queries are worked on at once, ``waiting`` ones queue for up to ``queue_s``.
    The head of a request, of at most ``header_bytes``, must have arrived within ``header_s``, its body within
    ``body_s`` after that.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    body_bytes: Most = 1_000_000
    messages: Most = 256
    max_tokens: Most = 16_384
    requests_per_minute: Most = 100_000
    streams: Most = 4_096
    running: Most = 4_096
    waiting: Annotated[int, Field(ge=0, le=2**31)] = 4_096
    queue_s: Seconds = 10.0
    header_bytes: Most = 65_536
    header_s: Seconds = 10.0
    body_s: Seconds = 20.0

    def share(self, replicas: int) -> Limits:
        """One replica's part of what is limited for all of them."""
        shared = ("requests_per_minute", "streams", "running", "waiting")
        return self.model_copy(update={name: math.ceil(getattr(self, name) / replicas) for name in shared})


def read_limits(settings: Sequence[str]) -> Limits:
    """Limits from ``name=number`` each.

    Raises:
        ConfigError: names the limit, its value, and what would be right.
    """
    given: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or name not in Limits.model_fields:
            raise ConfigError(
                f"limit: {setting!r}; it must be NAME=NUMBER, NAME one of {', '.join(Limits.model_fields)}"
            )
        given[name] = value
    try:
        return Limits.model_validate(given)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise ConfigError(f"limit {wrong['loc'][0]}: {wrong['input']!r}; {wrong['msg']}") from None
