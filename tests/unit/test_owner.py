"""``Owner.step`` by hand: entries ``a``, ``b``, ``c``; a deadline of 60 s."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from agents.errors import AgentBusy, BudgetExceeded, DeadlineExceeded, MeshError, NoAgentLeft, QueryTooLong
from agents.messages import (
    Accepted,
    Alive,
    Asked,
    Batch,
    Cancel,
    Cancelled,
    Card,
    Done,
    Emit,
    End,
    Hop,
    Message,
    OwnerCommand,
    OwnerEvent,
    Piece,
    Probe,
    Pull,
    Pulled,
    Query,
    Rejected,
    Reply,
    Route,
    Tick,
)
from mesh.owner import Owner

CARDS = {"a": Card("a", 0.1), "b": Card("b", 0.3, context=9), "c": Card("c", 0.5, context=5_000_000)}
QUERY = Query("q", (Message("user", "why?"),), 0.5, remaining_s=60.0, max_tokens=10, max_cost=2.0)
KEY, AGAIN = ("q", 1), ("q", 2)
GOOD = Hop("a", "answered", 0.9, 1.0, 20, 4, 0.25)


class Bench:
    """An owner and a clock; it was asked at 100 s."""

    def __init__(self, entries: str = "abc", asked: bool = True, **options: Any) -> None:
        self.owner = Owner(QUERY, tuple(entries), CARDS, **options)
        self.now, self.ends = 100.0, 0
        if asked:
            assert self(Asked(QUERY)) == [Route(entries[0], QUERY)]

    def __call__(self, event: OwnerEvent, at: float | None = None) -> list[OwnerCommand]:
        self.now = self.now if at is None else 100.0 + at
        commands = self.owner.step(event, self.now)
        self.ends += sum(isinstance(command, Done) for command in commands)
        assert self.ends <= 1
        return commands


def failed(agent: str, reason: str, full_cost: float = 0.0) -> Hop:
    return Hop(agent, "failed", reason=reason, full_cost=full_cost)


def rejected(agent: str, reason: str, *hops: Hop, attempt: int = 1) -> Rejected:
    return Rejected(("q", attempt), agent, reason, f"{agent} is sorry", hops)


def done(commands: list[OwnerCommand]) -> Done:
    assert isinstance(commands[-1], Done)
    return commands[-1]


def error(commands: list[OwnerCommand]) -> Exception:
    found = done(commands).error
    assert found is not None
    return found


# ---------------------------------------------------------------------------------- the good case


def test_pieces_are_pulled_until_the_end() -> None:
    bench, path = Bench(), (Hop("z", "refused", full_cost=0.5),)
    first, second, last = Piece("", 1, None, 20), Piece("fo", 2), Piece("ur", 1, None, 0, "stop")
    said = bench(Accepted(KEY, "a", path, Batch((first,))), at=1.0)
    assert said == [Emit(KEY, first), Pull("a", KEY, 1)]
    assert bench(Pulled(KEY, Batch((second,))), at=2.0) == [Emit(KEY, second), Pull("a", KEY, 2)]
    assert bench(Pulled(KEY, Batch()), at=2.5) == [Pull("a", KEY, 2)]
    said = bench(Pulled(KEY, Batch((last,), End(KEY, "stop", GOOD, 0.1))), at=3.0)
    reply = Reply("q", "four", "a", 0.5, 0.1, 0.75, (*path, GOOD), 3.0, 2.0, 1, "stop")
    assert said == [Emit(KEY, last), Done(reply)]  # the first token was the first with text
    assert reply.confidence == 0.9
    for stray in (Tick(), Cancelled(KEY), Pulled(KEY, Batch()), rejected("a", "died"), Alive(KEY, "a")):
        assert bench(stray, at=500.0) == []


def test_an_answer_that_comes_whole_needs_no_pull() -> None:
    said = Bench()(Accepted(KEY, "a", (), Batch((Piece("4", 1, None, 2, "stop"),), End(KEY, "stop", GOOD, 0.1))))
    assert [type(command).__name__ for command in said] == ["Emit", "Done"]


def test_an_acceptance_without_pieces_is_pulled_from_whoever_accepted() -> None:
    bench = Bench()
    assert bench(Accepted(KEY, "c")) == [Pull("c", KEY, 0)]
    assert bench(Accepted(KEY, "b")) == []  # only the first acceptance of an attempt counts
    assert bench(rejected("a", "died")) == []  # the entry is not waited for any more


def test_a_declined_query_is_a_reply() -> None:
    hop = Hop("a", "declined", 0.1)
    said = Bench()(Accepted(KEY, "a", (), Batch((), End(KEY, "declined", hop))))
    reply = done(said).reply
    assert reply is not None
    assert (reply.text, reply.finish, reply.first_token_s) == ("", "declined", None)


# ---------------------------------------------------------------------------------- another attempt


def test_a_rejection_starts_the_next_attempt_without_the_failed() -> None:
    bench = Bench()
    said = bench(rejected("a", "died"), at=5.0)
    again = replace(QUERY, attempt=2, remaining_s=55.0, excluded=frozenset("a"), emitted="")
    assert said == [Cancel("a", KEY), Route("b", again)]
    assert bench.owner.history == (Hop("a", "failed", None, 5.0, reason="died"),)


def test_hops_told_with_a_rejection_are_not_told_twice() -> None:
    bench = Bench()
    bench(rejected("a", "failed", failed("b", "died", 0.5), failed("a", "failed", 0.25)))
    assert [hop.agent for hop in bench.owner.history] == ["b", "a"]
    assert bench.owner.query.excluded == {"a", "b"}
    assert bench.owner.query.spent == 0.75
    said = bench(Accepted(AGAIN, "c", (), Batch((), End(AGAIN, "stop", Hop("c", "answered", full_cost=1.0), 0.5))))
    reply = done(said).reply
    assert reply is not None
    assert (reply.full_cost, reply.cost, reply.attempts) == (1.75, 0.5, 2)
    assert [hop.agent for hop in reply.path] == ["b", "a", "c"]


def test_an_old_attempt_is_dropped_and_its_agent_told_to_stop() -> None:
    bench = Bench()
    bench(rejected("a", "stalled"))
    assert bench(Accepted(KEY, "c", (), Batch((Piece("old"),)))) == [Cancel("c", KEY)]
    for late in (Pulled(KEY, Batch((Piece("old"),))), rejected("b", "died"), Alive(KEY, "b")):
        assert bench(late) == []
    assert bench.owner.text == ""


def test_whoever_accepts_after_the_end_is_told_to_stop() -> None:
    bench = Bench()
    bench(Cancelled(KEY))
    assert bench(Accepted(KEY, "c")) == [Cancel("c", KEY)]


@pytest.mark.parametrize("how", ["dies", "breaks off"])
def test_what_was_emitted_is_continued(how: str) -> None:
    bench, path = Bench(), (Hop("a", "refused", full_cost=0.1),)
    bench(Accepted(KEY, "b", path, Batch((Piece("one ", 3), Piece("two ", 4)))), at=1.0)
    broken = Pulled(KEY, Batch((), End(KEY, "failed", failed("b", "failed", 0.2))))
    said = bench(broken if how == "breaks off" else rejected("b", "died"), at=2.0)
    assert said[:2] == [Cancel("b", KEY), Cancel("a", KEY)]  # everybody who may still be at it
    assert isinstance(said[2], Route)
    query = said[2].query
    assert (said[2].agent, query.emitted, query.max_tokens) == ("c", "one two ", 3)
    assert query.spent == pytest.approx(0.3 if how == "breaks off" else 0.1)
    bench(Accepted(AGAIN, "c", (), Batch((Piece("three", 1),))))
    said = bench(Pulled(AGAIN, Batch((), End(AGAIN, "stop", Hop("c", "answered")))))
    reply = done(said).reply
    assert reply is not None
    assert (reply.text, reply.attempts, reply.first_token_s) == ("one two three", 2, 1.0)


def test_one_token_is_always_left() -> None:
    bench = Bench()
    bench(Accepted(KEY, "a", (), Batch((Piece("all", 10),))))
    bench(rejected("a", "died"))
    assert bench.owner.query.max_tokens == 1


def test_those_who_refused_are_not_asked_again() -> None:
    bench = Bench()
    said = bench(rejected("a", "failed", Hop("a", "refused"), Hop("b", "refused"), failed("x", "died")))
    assert isinstance(said[-1], Route)
    assert (said[-1].agent, said[-1].query.must_answer) == ("c", False)
    assert said[-1].query.excluded == {"a", "b", "x"}


def test_at_last_the_last_who_refused_must_answer() -> None:
    bench = Bench("ab")
    said = bench(rejected("a", "failed", Hop("a", "refused"), Hop("b", "refused"), failed("x", "died")))
    assert isinstance(said[-1], Route)
    assert (said[-1].agent, said[-1].query.must_answer) == ("b", True)
    assert said[-1].query.excluded == {"a", "x"}
    said = bench(rejected("b", "died", attempt=2))
    assert isinstance(said[-1], Route)
    assert (said[-1].agent, said[-1].query.must_answer) == ("a", True)


# ---------------------------------------------------------------------------------- errors


def test_when_everybody_has_failed() -> None:
    bench = Bench()
    bench(rejected("a", "died"))
    bench(rejected("b", "busy", attempt=2))
    found = error(bench(rejected("c", "failed", attempt=3)))
    assert isinstance(found, NoAgentLeft)
    assert str(found) == "nobody could answer query q: a died, b busy, c failed; last: c is sorry"
    assert found.hops == bench.owner.history


def test_attempts_are_limited() -> None:
    bench = Bench(max_attempts=2)
    bench(rejected("a", "died"))
    commands = bench(rejected("b", "died", attempt=2))
    assert commands[0] == Cancel("b", AGAIN)
    assert isinstance(error(commands), NoAgentLeft)


@pytest.mark.parametrize(
    ("reason", "kind", "told"),
    [
        ("too_long", QueryTooLong, "b is sorry; the longest context is that of 'c', 5000000 tokens"),
        ("budget", BudgetExceeded, "max_cost 2.0: b is sorry; give more, or enter at a cheaper agent"),
        ("busy", AgentBusy, "agent 'b' busy: b is sorry"),
        ("late", DeadlineExceeded, "query q was not answered within its deadline of 60 s: b is sorry"),
        ("died", NoAgentLeft, "nobody could answer query q: a died, b died; last: b is sorry"),
    ],
)
def test_one_reason_for_all_is_an_error_of_its_own(reason: str, kind: type[MeshError], told: str) -> None:
    bench = Bench("ab")
    bench(rejected("a", reason))
    found = error(bench(rejected("b", reason, attempt=2)))
    assert type(found) is kind
    assert str(found) == told


def test_who_is_full_and_who_would_be_late_are_both_too_busy() -> None:
    bench = Bench("ab")
    bench(rejected("a", "busy"))
    assert isinstance(error(bench(rejected("b", "late", attempt=2))), AgentBusy)


def test_a_reply_tells_by_which_alpha_it_was_decided() -> None:
    bench = Bench()
    bench(Accepted(KEY, "c"))
    end = End(KEY, "stop", Hop("c", "answered"), 0.9, alpha=0.8)
    (done,) = bench(Pulled(KEY, Batch((), end)))
    assert (done.reply.alpha, done.reply.alpha_used) == (0.5, 0.8)


def test_the_deadline_ends_everything_and_keeps_the_text() -> None:
    bench = Bench()
    bench(Accepted(KEY, "c", (), Batch((Piece("half"),))))
    assert bench(Tick(), at=59.9) == []
    said = bench(Tick(), at=60.0)
    assert said[:2] == [Cancel("c", KEY), Cancel("a", KEY)]
    found = error(said)
    assert isinstance(found, DeadlineExceeded)
    assert (found.text, str(found)) == ("half", "query q was not answered within its deadline of 60 s")


def test_the_first_deadline_stands_in_every_attempt() -> None:
    bench = Bench()
    bench(rejected("a", "died"), at=20.0)
    assert bench.owner.query.remaining_s == 40.0
    assert bench(Tick(), at=59.9) == [Probe("b", AGAIN)]
    found = error(bench(Tick(), at=60.0))
    assert str(found).endswith("of 60 s")


def test_a_deadline_told_by_an_agent_counts() -> None:
    assert isinstance(error(Bench()(rejected("a", "deadline"))), DeadlineExceeded)


# ---------------------------------------------------------------------------------- silence and cancellation


def test_a_silent_entry_is_probed() -> None:
    bench = Bench(stall_s=5.0)
    assert bench(Tick(), at=5.0) == []
    assert bench(Tick(), at=5.1) == [Probe("a", KEY)]
    assert bench(Tick(), at=5.2) == []
    assert bench(Alive(KEY, "a"), at=6.0) == []
    assert bench(Tick(), at=11.0) == []
    assert bench(Tick(), at=11.1) == [Probe("a", KEY)]
    said = bench(rejected("a", "stalled"), at=12.0)
    assert isinstance(said[-1], Route)
    assert said[-1].agent == "b"


def test_a_puller_is_not_probed() -> None:
    bench = Bench(stall_s=5.0)
    bench(Accepted(KEY, "a"))
    assert bench(Tick(), at=30.0) == []


def test_cancelling_tells_everybody_known_and_ends_without_a_result() -> None:
    bench = Bench()
    bench(Accepted(KEY, "c"))
    assert bench(Cancelled(KEY)) == [Cancel("c", KEY), Cancel("a", KEY), Done()]
    bench = Bench()
    assert bench(Cancelled(KEY)) == [Cancel("a", KEY), Done()]
    assert bench(Cancelled(KEY)) == []
