"""Answers of many queries over one long poll."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from agents.messages import Key
from agents.wire import pack
from mesh.runtimes import polling
from mesh.runtimes.polling import Poll, Poller, Polls, read_said

Q1, Q2, Q3 = ("q1", 1), ("q2", 1), ("q3", 1)


class Replica:
    """Answers come when a test says so."""

    def __init__(self) -> None:
        self.polls = Polls(self.pull, lambda: self.now)
        self.asked: list[tuple[Key, int]] = []
        self.answers: dict[Key, asyncio.Future[bytes]] = {}
        self.calls = self.under_way = 0
        self.now = 0.0

    async def pull(self, key: Key, cursor: int, wait_s: float) -> bytes:
        self.asked.append((key, cursor))
        answer = self.answers[key] = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.wait_for(answer, wait_s)
        except TimeoutError:
            return b"nothing yet"

    def caller(self, name: str = "caller") -> Poller:
        async def poll(packed: bytes) -> bytes:
            self.calls, self.under_way = self.calls + 1, self.under_way + 1
            try:
                await asyncio.sleep(0)  # the way there
                goes_on = asyncio.ensure_future(self.polls.poll(name, packed))
                return await asyncio.shield(goes_on)  # where its caller gives it up, as Ray's calls do
            finally:
                self.under_way -= 1

        return Poller(poll)

    async def until_asked(self, *keys: Key) -> None:
        async with asyncio.timeout(5):
            while set(keys) - {key for key, each in self.answers.items() if not each.done()}:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


def pulls(poller: Poller, *keys: Key, cursor: int = 0, wait_s: float = 5.0) -> list[asyncio.Task[bytes]]:
    return [asyncio.create_task(poller.pull(key, cursor, wait_s)) for key in keys]


async def test_what_comes_together_takes_one_call() -> None:
    replica = Replica()
    poller = replica.caller()
    for cursor in range(3):
        asked = pulls(poller, Q1, Q2, Q3, cursor=cursor)
        await replica.until_asked(Q1, Q2, Q3)
        for key, answer in replica.answers.items():
            answer.set_result(f"{key[0]} {cursor}".encode())
        assert await asyncio.gather(*asked) == [f"q{number} {cursor}".encode() for number in (1, 2, 3)]
    assert replica.asked == [(key, cursor) for cursor in range(3) for key in (Q1, Q2, Q3)]
    assert replica.calls == 3


async def test_one_that_comes_alone_waits_for_no_other_and_the_others_stay_asked() -> None:
    replica = Replica()
    poller = replica.caller()
    first, second = pulls(poller, Q1, Q2)
    await replica.until_asked(Q1, Q2)
    replica.answers[Q1].set_result(b"one")
    assert await first == b"one"
    await asyncio.sleep(10 * polling.AGAIN_S)  # nobody wants anything more, and yet it polls on for the other
    assert not second.done()
    replica.answers[Q2].set_result(b"two")
    assert await second == b"two"
    assert replica.asked == [(Q1, 0), (Q2, 0)]  # each once
    assert replica.calls == 2


async def test_who_asks_later_does_not_wait_for_the_poll_before() -> None:
    replica = Replica()
    poller = replica.caller()
    (first,) = pulls(poller, Q1)
    await replica.until_asked(Q1)
    (second,) = pulls(poller, Q2)
    await replica.until_asked(Q2)
    replica.answers[Q2].set_result(b"two")
    assert await second == b"two"
    replica.answers[Q1].set_result(b"one")
    assert await first == b"one"


async def test_an_answer_that_does_not_come_is_said_to_be_so() -> None:
    replica = Replica()
    (asked,) = pulls(replica.caller(), Q1, wait_s=0.02)
    assert await asyncio.wait_for(asked, 5) == b"nothing yet"


async def test_nobody_polls_for_who_has_gone() -> None:
    replica = Replica()
    poller = replica.caller()
    gone, stays = pulls(poller, Q1, Q2, wait_s=0.2)
    await replica.until_asked(Q1, Q2)
    gone.cancel()
    replica.answers[Q1].set_result(b"one")
    replica.answers[Q2].set_result(b"two")
    assert await stays == b"two"
    await asyncio.sleep(10 * polling.AGAIN_S)
    calls = replica.calls
    await asyncio.sleep(0.3)
    assert replica.calls == calls


async def test_when_the_last_one_goes_no_call_is_left_under_way() -> None:
    replica = Replica()
    poller = replica.caller()
    first, second = pulls(poller, Q1, Q2)
    await replica.until_asked(Q1, Q2)
    first.cancel()
    await asyncio.sleep(0.01)
    assert replica.under_way == 1
    second.cancel()
    await asyncio.sleep(0.01)
    assert replica.under_way == 0


async def test_a_poll_that_nobody_hears_any_more_takes_nothing_along() -> None:
    """Its caller has given it up, and asks for what is there at once: that comes by the new one."""

    class Quick(Replica):
        async def pull(self, key: Key, cursor: int, wait_s: float) -> bytes:
            return b"two" if key == Q2 else await super().pull(key, cursor, wait_s)

    replica = Quick()
    poller = replica.caller()
    (gone,) = pulls(poller, Q1)
    await replica.until_asked(Q1)
    gone.cancel()
    await asyncio.sleep(0.01)
    (asked,) = pulls(poller, Q2)
    assert await asyncio.wait_for(asked, 2) == b"two"


async def test_what_is_said_to_nobody_is_said_again_and_nobody_hears_anything_twice() -> None:
    """Replies get lost on their way, every other one."""
    replica = Replica()
    sent = 0

    async def poll(packed: bytes) -> bytes:
        nonlocal sent
        sent += 1
        said = await replica.polls.poll("caller", packed)
        return pack([]) if sent % 2 else said

    poller = Poller(poll)
    for cursor in range(3):
        asked = pulls(poller, Q1, Q2, cursor=cursor)
        await replica.until_asked(Q1, Q2)
        for key, answer in replica.answers.items():
            answer.set_result(f"{key[0]} {cursor}".encode())
        assert await asyncio.wait_for(asyncio.gather(*asked), 5) == [
            f"q{number} {cursor}".encode() for number in (1, 2)
        ]
    assert replica.asked == [(key, cursor) for cursor in range(3) for key in (Q1, Q2)]


async def test_a_poll_is_over_before_the_next_one_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody would poll again: uvloop lets a timer overtake what is to be done soon."""
    loop = asyncio.get_running_loop()
    later = loop.call_later

    def at_once(delay: float, what: Any, *given: Any) -> asyncio.Handle:
        return loop.call_soon(what, *given) if delay == polling.AGAIN_S else later(delay, what, *given)

    monkeypatch.setattr(loop, "call_later", at_once)
    replica = Replica()
    first, second = pulls(replica.caller(), Q1, Q2)
    await replica.until_asked(Q1, Q2)
    replica.answers[Q1].set_result(b"one")
    assert await first == b"one"
    replica.answers[Q2].set_result(b"two")
    assert await asyncio.wait_for(second, 2) == b"two"


async def test_a_poll_given_up_before_it_began_stands_in_nobodys_way() -> None:
    replica = Replica()
    poller = replica.caller()
    asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(gone.cancel))
    (gone,) = pulls(poller, Q1)  # its poll is made when it is cancelled, and has not begun
    with pytest.raises(asyncio.CancelledError):
        await gone
    first, second = pulls(poller, Q2, Q3)
    await replica.until_asked(Q2, Q3)
    replica.answers[Q2].set_result(b"two")
    assert await asyncio.wait_for(first, 2) == b"two"
    await asyncio.sleep(10 * polling.AGAIN_S)
    replica.answers[Q3].set_result(b"three")  # who waits on is polled for, though nobody asks anything more
    assert await asyncio.wait_for(second, 2) == b"three"


async def test_a_poll_that_was_overtaken_waits_for_nothing_but_is_asked_for() -> None:
    replica = Replica()
    later = asyncio.create_task(replica.polls.poll("caller", pack(Poll(2, 0, [(Q2, 0)], 5.0))))
    await replica.until_asked(Q2)
    earlier = await replica.polls.poll("caller", pack(Poll(1, 0, [(Q1, 0)], 5.0)))
    assert read_said(earlier) == []
    await replica.until_asked(Q1)
    replica.answers[Q1].set_result(b"one")
    assert read_said(await asyncio.wait_for(later, 5)) == [(1, Q1, b"one")]
    replica.answers[Q2].set_result(b"two")
    again = await replica.polls.poll("caller", pack(Poll(3, 1, [], 5.0)))
    assert read_said(again) == [(2, Q2, b"two")]


async def test_callers_have_lines_of_their_own_and_who_is_gone_has_none() -> None:
    replica = Replica()
    (one,), (other,) = pulls(replica.caller("one"), Q1), pulls(replica.caller("other"), Q2)
    await replica.until_asked(Q1, Q2)
    replica.answers[Q2].set_result(b"two")
    assert await other == b"two"
    assert not one.done()
    replica.answers[Q1].set_result(b"one")
    assert await one == b"one"
    replica.now = polling.LOST_S + 1
    (third,) = pulls(replica.caller("third"), Q3)
    await replica.until_asked(Q3)
    assert set(replica.polls._lines) == {"third"}
    third.cancel()


async def test_who_was_taken_for_gone_is_heard_again() -> None:
    """Nobody polls while nobody waits, and that may be long; what a line had counted by then still holds."""
    replica = Replica()
    poller = replica.caller()
    for cursor in range(3):
        (asked,) = pulls(poller, Q1, cursor=cursor)
        await replica.until_asked(Q1)
        replica.answers[Q1].set_result(b"one")
        assert await asyncio.wait_for(asked, 2) == b"one"
        replica.now += polling.LOST_S + 1
        (other,) = pulls(replica.caller(f"other {cursor}"), Q2)  # for whom those who are gone make room
        await replica.until_asked(Q2)
        assert set(replica.polls._lines) == {f"other {cursor}"}
        replica.answers[Q2].set_result(b"two")
        assert await other == b"two"


@pytest.fixture
def dead() -> Iterator[Any]:
    async def poll(packed: bytes) -> bytes:
        raise ConnectionError("gone")

    return Poller(poll)


async def test_all_hear_of_a_replica_that_dies(dead: Poller) -> None:
    told = await asyncio.gather(*pulls(dead, Q1, Q2), return_exceptions=True)
    assert [type(each) for each in told] == [ConnectionError] * 2


async def test_what_pulling_raises_is_heard() -> None:
    async def pull(key: Key, cursor: int, wait_s: float) -> bytes:
        raise ConnectionError("gone")

    polls = Polls(pull)
    (asked,) = pulls(Poller(lambda packed: polls.poll("caller", packed)), Q1)
    with pytest.raises(ConnectionError):
        await asked
