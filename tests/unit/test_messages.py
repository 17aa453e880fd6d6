"""What agents say to each other: values that are equal where they say the same, and travel as bytes."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import fields

from agents import messages as msg
from agents.wire import pack, read_pulled, read_query, read_routed, sound

KINDS = [
    kind
    for kind in vars(msg).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind is not msgspec.Struct
]
HOPS = (msg.Hop("small", "refused", 0.25, 0.5, 10, 2, 0.1), msg.Hop("large", "answered"))


def one_of(kind: type[Any]) -> Any:
    """A message with something to tell in every field."""
    return kind(*(f"{field.name} {number}" for number, field in enumerate(fields(kind))))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_is_a_value(kind: type[Any]) -> None:
    message = one_of(kind)
    assert message == one_of(kind)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        back = pickle.loads(pickle.dumps(message, protocol))
        assert type(back) is kind
        assert back == message
    assert not hasattr(message, "__dict__")
    for field in fields(kind)[:1]:
        with pytest.raises(AttributeError):
            setattr(message, field.name, "other")


def test_every_message_is_covered() -> None:
    assert {"Query", "Reply", "Tick", "Emit", "Batch", "Rewired"} <= {kind.__name__ for kind in KINDS}


def test_messages_within_messages_travel_too() -> None:
    key = ("q", 2)
    end = msg.End(key, "stop", HOPS[1])
    accepted = msg.Accepted(key, "large", HOPS[:1], msg.Batch((msg.Piece("42", 2, -0.1, 10, "stop"),), end))
    query = msg.Query("q", (msg.Message("user", "6 * 7?"),), 0.5, 2, path=HOPS, excluded=frozenset({"small"}))
    assert pickle.loads(pickle.dumps((accepted, query))) == (accepted, query)
    assert read_query(pack(query)) == query
    assert read_routed(pack(accepted)) == accepted
    rejected = msg.Rejected(key, "large", "busy", hops=HOPS)
    assert read_routed(pack(rejected)) == read_pulled(pack(rejected)) == rejected
    assert read_pulled(pack(accepted.batch)) == accepted.batch


def test_what_is_not_expected_is_not_read() -> None:
    with pytest.raises(msgspec.ValidationError):
        read_query(pack(msg.Rejected(("q", 1), "large", "busy")))


def test_what_plug_ins_say_is_made_plain() -> None:
    said = sound(msg.Piece(np.str_("4\ud83d2"), np.int64(2), np.float64(-0.5), finish="stop"))  # type: ignore[arg-type]
    assert said == msg.Piece("4\ufffd2", 2, -0.5, 0, "stop")
    assert [type(value) for value in (said.text, said.tokens, said.logprob)] == [str, int, float]
    assert sound(msg.Scores((np.float32(-0.5),), np.int32(7))) == msg.Scores((-0.5,), 7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said",
    [msg.Piece("4", finish="eos"), msg.Piece("4", 1.5), msg.Piece(None), msg.Scores(None)],  # type: ignore[arg-type]
)
def test_what_is_no_piece_is_not_taken(said: msg.Piece | msg.Scores) -> None:
    with pytest.raises((ValueError, TypeError)):
        sound(said)
