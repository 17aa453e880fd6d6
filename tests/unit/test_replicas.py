"""Which replica gets a query, who counts what, and what is refused."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from agents.errors import AgentDied
from agents.messages import Accepted, Key, Message, Query, Rejected
from mesh.directory import Directory
from mesh.replicas import FRESH_S, Balance, Replicated

QUERY = Query("q", (Message("user", "why?"),), 0.5)
THREE = ("b#1", "b#2", "b#3")


def directory(*addresses: str, leaving: frozenset[str] = frozenset(), starts: int = 3, agent: str = "b") -> Directory:
    return Directory(None, {}, frozenset(), {agent: addresses}, leaving, {agent: starts})


def balance(*addresses: str) -> Balance:
    made = Balance(silent_s=5.0, seed=0)
    made.know(directory(*addresses))
    return made


# ---------------------------------------------------------------------------------- counting and choosing


def test_what_a_replica_says_and_what_was_sent_since_add_up() -> None:
    one = balance("b#1")
    one.heard("b#1", 7, 0.0)
    one.sent("b#1", 0.1)
    one.sent("b#1", 0.1)
    assert one.load("b#1", 0.2) == 9
    one.heard("b#1", 8, 0.3)  # the two are among these
    assert one.load("b#1", 0.4) == 8


def test_news_of_members_change_no_count() -> None:
    one = balance("b#1", "b#2")
    one.heard("b#1", 7, 0.0)
    one.sent("b#1", 0.1)
    one.know(directory("b#1", "b#4", starts=4))
    assert (one.load("b#1", 0.2), one.load("b#4", 0.2)) == (8, 0)


def test_an_old_word_counts_no_more_so_that_a_replica_that_was_full_is_asked_again() -> None:
    one = balance("b#1", "b#2")
    one.heard("b#1", 50, 0.0)
    assert one.choose("b", 1.0) == "b#2"
    one.heard("b#2", 3, FRESH_S)
    assert one.choose("b", FRESH_S + 0.1) == "b#1"


def test_of_two_drawn_the_one_with_less_to_do_is_taken() -> None:
    one = balance(*THREE)
    for address, load in zip(THREE, (9, 5, 1), strict=True):
        one.heard(address, load, 0.0)
    chosen = Counter(one.choose("b", 0.1) for _ in range(300))
    assert chosen["b#1"] == 0  # never the less busy of a pair
    assert 70 < chosen["b#2"] < 130  # a third of the pairs is 1 and 2
    assert chosen["b#3"] == 300 - chosen["b#2"]


def test_load_evens_out() -> None:
    """1,000 queries over ten replicas that never end: no one has many more than its share."""
    addresses = tuple(f"b#{number}" for number in range(10))
    one = Balance(silent_s=1e9, seed=1)
    one.know(directory(*addresses))
    for _ in range(1000):
        address = one.choose("b", 0.0)
        assert address is not None
        one.sent(address, 0.0)
    loads = [one.load(address, 0.0) for address in addresses]
    assert max(loads) - min(loads) <= 5


def test_who_has_long_been_silent_comes_last() -> None:
    one = balance("b#1", "b#2")
    one.sent("b#1", 0.0)
    for number in range(5):
        one.sent("b#2", 5.5)
        one.heard("b#2", number, 5.6)
    assert one.silent("b#1", 6.0)
    assert one.choose("b", 6.0) == "b#2"
    one.sent("b#2", 6.0)
    assert one.choose("b", 20.0) in ("b#1", "b#2")  # both are: then either
    one.heard("b#1", 0, 20.0)
    assert one.choose("b", 20.0) == "b#1"


# ---------------------------------------------------------------------------------- members


def test_who_is_lost_is_not_chosen_and_its_successor_is() -> None:
    one = balance("b#1")
    one.lost("b#1")
    assert one.choose("b", 0.0) is None
    one.know(directory("b#2"))
    assert one.choose("b", 0.0) == "b#2"


def test_the_same_address_in_a_mesh_that_is_up_again_is_another_replica() -> None:
    one = balance("b#1")
    one.heard("b#1", 9, 0.0)
    one.sent("b#1", 0.1)
    one.lost("b#1")
    one.know(directory("b#1"))
    assert one.choose("b", 0.2) == "b#1"
    assert one.load("b#1", 0.2) == 0
    assert not one.silent("b#1", 99.0)


@pytest.mark.parametrize(
    ("sender", "replaced"),
    [("b#1", True), ("b#2", False), ("b#3", False), ("b#4", False), ("b", False), ("", False), ("c#1", False)],
    ids=["was replaced", "a member", "leaves", "newer than the news", "no replica", "a caller", "nobody we know"],
)
def test_who_was_replaced_is_told_by_its_address(sender: str, replaced: bool) -> None:
    one = Balance()
    one.know(directory("b#2", leaving=frozenset({"b#3"})))
    assert one.replaced(sender) is replaced


# ---------------------------------------------------------------------------------- the transport


class Fake(Replicated):
    """Replicas that answer as they are told: a load and a result, or an error."""

    def __init__(self, said: dict[str, tuple[int, str] | None]) -> None:
        super().__init__(5.0)
        self.said, self.sent, self.told = said, list[str](), list[tuple[str, str]]()
        self.know(directory(*said))

    async def send(self, address: str, query: Query) -> tuple[int, Accepted | Rejected]:
        self.sent.append(address)
        answer = self.said[address]
        if answer is None:
            raise AgentDied(address)
        load, reason = answer
        await asyncio.sleep(0)
        return load, Rejected(query.key, "b", reason) if reason else Accepted(query.key, "b")

    async def ask_whether(self, address: str, key: Key) -> bool:
        self.told.append(("probe", address))
        return False

    async def give_up(self, address: str, key: Key) -> None:
        self.told.append(("cancel", address))
        raise AgentDied(address)


@pytest.mark.parametrize(
    "first", [None, (9, "busy"), (9, "late"), (9, "leaving")], ids=["died", "busy", "late", "leaving"]
)
async def test_another_replica_takes_what_one_cannot(first: tuple[int, str] | None) -> None:
    fake = Fake({"b#1": first, "b#2": (3, "")})
    for _ in range(5):
        result = await fake.route("b", QUERY)
        assert isinstance(result, Accepted)
        assert result.agent == "b#2"  # by address: its answer is to be pulled there


async def test_who_has_a_query_already_gets_it_when_it_is_asked_once_more() -> None:
    for _ in range(5):
        fake = Fake({address: (3, "") for address in THREE})
        await asyncio.gather(fake.route("b", QUERY), fake.route("b", QUERY), fake.route("b", QUERY))
        assert len(set(fake.sent)) == 1


async def test_who_has_no_replica_left_is_told() -> None:
    fake = Fake({"b#1": None, "b#2": None})
    with pytest.raises(AgentDied, match="none of its replicas"):
        await fake.route("b", QUERY)
    assert sorted(fake.sent) == ["b#1", "b#2"]
    full = Fake({"b#1": (9, "busy"), "b#2": (9, "busy")})
    result = await full.route("b", QUERY)
    assert isinstance(result, Rejected)
    assert result.reason == "busy"


async def test_a_replica_that_failed_the_query_before_is_not_asked_again() -> None:
    fake = Fake({"b#1": (0, ""), "b#2": (50, "")})
    result = await fake.route("b", Query("q", QUERY.messages, 0.5, excluded=frozenset({"b#1"})))
    assert isinstance(result, Accepted)
    assert result.agent == "b#2"


async def test_who_looks_for_members_looks_again_before_giving_up() -> None:
    fake = Fake({"b#1": (0, "leaving"), "b#2": (0, "")})
    fake.know(directory("b#1"))

    async def renew() -> None:
        fake.know(directory("b#2"))

    fake.renew = renew
    result = await fake.route("b", QUERY)
    assert isinstance(result, Accepted)
    assert result.agent == "b#2"


async def test_a_cancellation_reaches_the_replica_that_has_the_query_or_all() -> None:
    fake = Fake({"b#1": (0, ""), "b#2": (0, "")})
    routing = asyncio.create_task(fake.route("b", QUERY))
    await asyncio.sleep(0)
    await fake.cancel("b", QUERY.key)
    assert fake.told == [("cancel", fake.sent[0])]
    await routing
    fake.told.clear()
    await fake.cancel("b", QUERY.key)
    assert sorted(fake.told) == [("cancel", "b#1"), ("cancel", "b#2")]
    await fake.cancel("b#2", QUERY.key)
    assert fake.told[-1] == ("cancel", "b#2")


def test_who_is_blamed() -> None:
    fake = Fake({"b#1": None, "b#2": None})
    assert fake.blamed("b#1") == "b#1"
    fake.balance.lost("b#2")
    assert fake.blamed("b#1") == "b"
