"""What a caller may ask: everything that can be wrong with a query is found here, before anybody works on it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from agents.errors import QueryError
from agents.messages import Message, Query

Asked: TypeAlias = str | Sequence[Mapping[str, str]]
MAX_HOPS = 64
MOST = 2**53  # what every format and language can hold
PRIORITIES = ("low", "normal", "high")
ROLES = ("system", "user", "assistant")
OPTIONS = (
    *("alpha", "max_tokens", "deadline_s", "max_cost", "entry", "may_decline", "max_hops", "id", "seed"),
    "priority",
)


def checked_query(query: Asked, options: Mapping[str, Any]) -> tuple[Query, str | None]:
    """The query, and the agent to enter at (None: the topology's entry).

    Args:
        query: a text, or chat messages of which the last is the user's.
        options: alpha, deadline_s and max_tokens; and any other of ``OPTIONS``.

    Raises:
        QueryError: names the field, its value, and what would be right.
    """
    unknown = options.keys() - set(OPTIONS)
    if unknown:
        raise QueryError(f"unknown option {min(unknown)!r}: use {', '.join(OPTIONS)}")
    messages = _messages(query)
    seed = zlib.crc32("\0".join(message.content for message in messages).encode())
    name, unique = _characters("id", str(options.get("id", ""))), os.urandom(16).hex()  # two clients may use one id
    budget = options.get("max_cost")
    hops = options.get("max_hops", MAX_HOPS)
    return Query(
        id=f"{name}#{unique}" if name else unique,
        messages=messages,
        alpha=check_alpha(options["alpha"]),
        remaining_s=_positive("deadline_s", options["deadline_s"]),
        max_tokens=whole("max_tokens", options["max_tokens"], 1),
        max_cost=None if budget is None else _positive("max_cost", budget),
        hops_left=whole("max_hops", hops, 0),
        may_decline=flag("may_decline", options.get("may_decline", False)),
        seed=whole("seed", options.get("seed", seed), 0),
        priority=check_priority(options.get("priority", "normal")),
    ), options.get("entry")


def check_alpha(alpha: object) -> float:
    """``alpha`` as a number in [0, 1]. Raises QueryError."""
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not (number and 0 <= alpha <= 1):  # type: ignore[operator]
        raise QueryError(f"alpha: {alpha!r}; it must be a number from 0 (best answer) to 1 (lowest cost)")
    return float(alpha)  # type: ignore[arg-type]


def check_priority(priority: object) -> int:
    """The place of ``priority`` among ``PRIORITIES``, from the lowest on. Raises QueryError."""
    if priority not in PRIORITIES:
        raise QueryError(f"priority: {priority!r}; it must be one of {', '.join(PRIORITIES)}")
    return PRIORITIES.index(str(priority))


def _positive(field: str, value: object) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 < value <= MOST):  # type: ignore[operator]
        raise QueryError(f"{field}: {value!r}; it must be a number above 0, at most 2**53")
    return float(value)  # type: ignore[arg-type]


def whole(field: str, value: object, least: int) -> int:
    """``value`` where it is a whole number, ``least`` or more. Raises QueryError."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST:
        raise QueryError(f"{field}: {value!r}; it must be a whole number from {least} on, at most 2**53")
    return int(value)


def flag(field: str, value: object) -> bool:
    """``value`` where it is a bool. Raises QueryError."""
    if not isinstance(value, bool):
        raise QueryError(f"{field}: {value!r}; it must be True or False")
    return value


def _characters(field: str, text: str) -> str:
    """``text`` where all of it is characters. Raises QueryError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise QueryError(
            f"{field}: {text!r}; it must be Unicode: half a surrogate pair, as at {error.start}, is no character"
        ) from None
    return str(text)


def _messages(query: Asked) -> tuple[Message, ...]:
    chat: Any = [{"role": "user", "content": query}] if isinstance(query, str) else query
    if not isinstance(chat, Sequence) or not chat:
        raise QueryError(f"query: {query!r}; it must be a text, or a list of chat messages")
    for place, message in enumerate(chat):
        fits = isinstance(message, Mapping) and set(message) >= {"role", "content"}
        if not fits or message["role"] not in ROLES or not isinstance(message["content"], str):
            raise QueryError(
                f"query[{place}]: {message!r}; it must have a role of {', '.join(ROLES)}, and a content of text"
            )
    if chat[-1]["role"] != "user" or not chat[-1]["content"].strip():
        raise QueryError(f"query: the last message is {chat[-1]!r}; it must be the user's, and not empty")
    return tuple(
        Message(str(message["role"]), _characters(f"query[{place}]", message["content"]))
        for place, message in enumerate(chat)
    )
