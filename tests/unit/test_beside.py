"""Several agents at once for one query, event by event. ``a`` may forward to ``b``, then ``c``."""

from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec.structs import replace

from agents.assess import FirstToken, Likelihood
from agents.messages import (
    Accepted,
    Asked,
    Batch,
    Cancel,
    Cancelled,
    Drafted,
    DraftFailed,
    End,
    Generate,
    Hop,
    PeerDown,
    Piece,
    Rejected,
    Reply,
    Route,
    Scored,
    Scores,
    Tick,
)
from agents.policies import Answer, Ask, Decision, Draft, Forward, Look, Policy, RefusalPolicy, Wait
from agents.policies.committee import Committee
from agents.policies.speculative import Speculative
from tests.pools import pool, questions, simulated
from tests.unit.test_node import KEY, Bench, Staged, kinds, one, query, staged

DRAFT = Piece("42", 2, -0.2, 10, "stop")  # of a: 10 + 4 * 2 = 18 of 100, at .1: full cost .018
SPENT = Hop("b", "failed", None, 0.5, 20, 5, 0.12, "cancelled")
WHOLE = Batch((Piece("43", 2, -0.1, 20, "stop"),), End(KEY, "stop", Hop("b", "answered", 0.8, 1.0, 20, 2, 0.084), 0.3))


def started(*then: Decision, **fields: Any) -> tuple[Bench, Staged, Route]:
    """``a`` has asked ``b`` to begin, and drafts meanwhile."""
    bench, policy = staged(Ask(("b",), Draft()), *then)
    said = bench.ask(**fields)
    assert kinds(said) == ["Route", "Generate"]
    return bench, policy, one(said, Route)


def hops(path: tuple[Hop, ...]) -> list[tuple[str, str]]:
    return [(hop.agent, hop.verdict) for hop in path]


def accepted(hops: tuple[Hop, ...], agent: str = "b", batch: Batch = WHOLE) -> Accepted:
    return Accepted(KEY, agent, hops, batch)


# ---------------------------------------------------------------------------------- who asks


def test_the_next_agent_begins_before_this_one_has_decided() -> None:
    _, _, route = started(Answer())
    assert (route.agent, route.query.aside, route.query.hops_left) == ("b", "meanwhile", 63)
    assert hops(route.query.path) == [("a", "refused")]  # nobody comes back to it


def test_who_is_not_needed_is_told_to_stop_and_its_work_is_counted() -> None:
    bench, policy, _ = started(Answer())
    assert bench.draft(DRAFT) == [Cancel("b", KEY)]
    assert policy.views[-1].asked == ("b",)
    said = bench(Rejected(KEY, "b", "cancelled", "", (SPENT,)))
    assert kinds(said) == ["Accepted", "Emit", "End"]
    assert hops(one(said, Accepted).hops) == [("b", "cancelled")]
    total = sum(hop.full_cost for hop in (*one(said, Accepted).hops, one(said, End).hop))
    assert total == pytest.approx(0.12 + 0.018)
    assert bench.idle()


def test_whoever_had_not_begun_has_spent_nothing() -> None:
    bench, _, _ = started(Answer())
    bench.draft(DRAFT)
    assert one(bench(Rejected(KEY, "b", "cancelled")), Accepted).hops == ()


def test_an_answer_that_is_not_needed_is_paid_for_and_thrown_away() -> None:
    bench, _, route = started(Answer())
    assert bench(accepted(route.query.path)) == []
    said = bench.draft(DRAFT)
    assert kinds(said) == ["Cancel", "Accepted", "Emit", "End"]
    (lost,) = one(said, Accepted).hops
    assert (lost.agent, lost.verdict, lost.full_cost) == ("b", "cancelled", 0.084)


def test_an_answer_that_crosses_the_order_to_stop_is_paid_for_too() -> None:
    bench, _, route = started(Answer())
    bench.draft(DRAFT)
    said = bench(accepted(route.query.path))
    assert kinds(said) == ["Cancel", "Accepted", "Emit", "End"]
    assert [hop.full_cost for hop in one(said, Accepted).hops] == [0.084]


def test_who_is_needed_is_asked_as_usual_and_goes_on() -> None:
    bench, _, route = started(Forward("b"))
    said = bench.draft(DRAFT)
    released = one(said, Route)
    assert (released.agent, released.query.aside) == ("b", "")
    assert [(hop.agent, hop.full_cost) for hop in released.query.path] == [("a", pytest.approx(0.018))]
    for way in (route.query.path, released.query.path):  # it may have accepted before it heard
        bench, _, _ = started(Forward("b"))
        bench.draft(DRAFT)
        taken = one(bench(accepted(way)), Accepted)
        assert [(hop.agent, hop.full_cost) for hop in taken.hops] == [("a", pytest.approx(0.018))]
        assert bench(accepted(way)) == []  # both times that it was asked it says so
        assert bench.idle()


def test_an_answer_that_is_there_already_is_taken() -> None:
    bench, policy, route = started(Forward("b"))
    bench(accepted(route.query.path))
    said = bench.draft(DRAFT)
    assert kinds(said) == ["Accepted"]
    assert (said[0].agent, said[0].batch, hops(said[0].hops)) == ("b", WHOLE, [("a", "refused")])
    (vote,) = policy.views[-1].votes
    assert (vote.agent, vote.said, vote.sure, vote.price) == ("b", "43", 0.8, pytest.approx(0.5 * 0.3))
    assert bench.idle()


def test_who_fails_beside_is_not_needed() -> None:
    for lost in (Rejected(KEY, "b", "busy"), PeerDown("b")):
        bench, policy, _ = started(Forward("c"))
        assert bench(lost) == []
        route = one(bench.draft(DRAFT), Route)
        assert (route.agent, hops(route.query.path)) == ("c", [("b", "failed"), ("a", "refused")])
        assert "b" not in [card.name for card in policy.views[-1].neighbours]


def test_whoever_does_not_say_what_it_spent_is_not_waited_for() -> None:
    bench, _, route = started(Answer())
    bench.draft(DRAFT)
    assert bench(Tick(), at=0.5) == []
    said = bench(Tick(), at=1.5)
    assert kinds(said) == ["Accepted", "Emit", "End"]
    assert [(hop.agent, hop.reason) for hop in one(said, Accepted).hops] == [("b", "stalled")]
    assert bench(accepted(route.query.path)) == [Cancel("b", KEY)]


def test_a_draft_that_breaks_off_leaves_it_to_who_has_begun() -> None:
    bench, _, _ = started()
    said = bench(DraftFailed(KEY, 1, "failed"))
    assert [(route.agent, route.query.aside) for route in said if isinstance(route, Route)] == [("b", "")]
    bench, _, route = started()
    bench(accepted(route.query.path))
    assert one(bench(DraftFailed(KEY, 1, "failed")), Accepted).agent == "b"


def test_a_query_that_is_given_up_is_given_up_by_all() -> None:
    bench, _, _ = started()
    said = bench(Cancelled(KEY))
    assert Cancel("b", KEY) in said
    assert bench.idle()


def test_all_together_stay_within_the_budget() -> None:
    """1.3 is left: a, b and c cost .1, .3 and .5; of .9 that is 13 / 90, 39 / 90 and 65 / 90."""
    bench, _ = staged(Ask(("c", "b"), Draft()), Answer())
    said = bench.ask(max_cost=1.5, spent=0.2)
    bounds = {route.agent: route.query.max_cost for route in said if isinstance(route, Route)}
    assert bounds == {"c": pytest.approx(0.2 + 1.3 * 5 / 9), "b": pytest.approx(0.2 + 1.3 * 3 / 9)}
    assert one(said, Generate).request.max_work == pytest.approx(1.3 / 9 / 0.1 * 100)
    bench, _ = staged(Ask(("c", "b"), Draft()), Answer())  # for a and c it is enough
    assert [route.agent for route in bench.ask(max_cost=0.8) if isinstance(route, Route)] == ["c"]


def test_who_can_ask_nobody_decides_again() -> None:
    bench, policy = staged(Ask(("b", "c"), None, vote=True), Answer())
    assert kinds(bench.ask(max_cost=0.2, may_decline=True)) == ["Generate"]
    assert (policy.views[-1].together, policy.views[-1].asked) == (True, ())


# ---------------------------------------------------------------------------------- votes


def vote(agent: str, said: str, sure: float, cost: float = 0.3) -> Accepted:
    hop = Hop(agent, "answered", sure, 1.0, 10, 2, 0.05)
    path = (Hop("a", "refused", 0.2, reason="meanwhile"),)
    return accepted(path, agent, Batch((Piece(said, finish="stop"),), End(KEY, "stop", hop, cost)))


def test_the_best_supported_answer_of_a_committee_is_taken() -> None:
    """log-odds: c .9 2.2; b and d .7 .85 each: c's word weighs more than both together."""
    for sure, taken in ((0.9, "c"), (0.8, "b")):  # .8: 1.39 against 1.69
        edges = {"a": ["b", "c", "d"], "b": [], "c": [], "d": []}
        bench = Bench(Committee(quorum=2), FirstToken(), edges=edges)
        bench.ask()
        routes = [route for route in bench(Scored(KEY, 0, Scores((math.log(0.8),), 20))) if isinstance(route, Route)]
        assert [(route.agent, route.query.aside) for route in routes] == [(name, "vote") for name in "bcd"]
        assert bench(vote("b", "The answer is 7.", 0.7)) == []
        assert bench(vote("c", "8", sure)) == []  # d may yet change it
        said = bench(vote("d", "7", 0.7))
        assert one(said, Accepted).agent == taken
        assert {command.agent for command in said if isinstance(command, Cancel)} == set("bcd") - {taken}
        lost = {(hop.agent, hop.verdict) for hop in one(said, Accepted).hops}
        assert lost == {("a", "refused"), *((name, "cancelled") for name in set("bcd") - {taken})}
        assert bench.idle()


def test_a_committee_does_not_wait_for_a_vote_that_changes_nothing() -> None:
    edges = {"a": ["b", "c", "d"], "b": [], "c": [], "d": []}
    bench = Bench(Committee(quorum=2), FirstToken(), edges=edges)
    bench.ask()
    bench(Scored(KEY, 0, Scores((math.log(0.8),), 20)))
    bench(vote("b", "7", 0.7))
    assert bench(vote("c", "7", 0.7)) == [Cancel("d", KEY)]
    said = bench(Rejected(KEY, "d", "cancelled", "", (replace(SPENT, agent="d"),)))
    assert one(said, Accepted).agent == "b"
    assert ("d", "cancelled") in hops(one(said, Accepted).hops)


def test_a_committee_waits_no_longer_than_it_may() -> None:
    bench = Bench(Committee(within_s=3.0), FirstToken())
    bench.ask()
    bench(Scored(KEY, 0, Scores((math.log(0.8),), 20)))
    bench(vote("c", "8", 0.6))
    assert bench(Tick(), at=2.5) == []
    assert bench(Tick(), at=3.5) == [Cancel("b", KEY)]
    assert one(bench(Rejected(KEY, "b", "cancelled", "", (SPENT,))), Accepted).agent == "c"


def test_without_votes_it_is_forwarded_as_usual() -> None:
    bench = Bench(Committee(), FirstToken())
    bench.ask()
    bench(Scored(KEY, 0, Scores((math.log(0.8),), 20)))
    for name in "bc":
        said = bench(Rejected(KEY, name, "refused", "", (Hop(name, "refused", 0.1),)))
    assert kinds(said) == ["Generate"]  # nobody is left


# ---------------------------------------------------------------------------------- who is asked


def test_an_answer_beside_others_is_given_when_it_is_whole() -> None:
    bench = Bench(RefusalPolicy())
    bench.ask(aside="meanwhile")
    assert bench.draft(Piece("for", 1, None, 20), Piece("ty", 1)) == []
    assert kinds(bench.draft(Piece("-two", 1, finish="stop"))) == ["Accepted", "Emit", "Emit", "Emit", "End"]


def test_once_it_is_released_it_gives_what_it_has() -> None:
    bench = Bench(RefusalPolicy())
    bench.ask(aside="meanwhile", path=(Hop("z", "refused", reason="meanwhile"),))
    bench.draft(Piece("for", 1, None, 20), Piece("ty", 1))
    path = (Hop("y", "cancelled"), Hop("z", "refused", 0.1))
    said = bench(Asked(query(path=path)))
    assert kinds(said) == ["Accepted", "Emit", "Emit"]
    assert said[0].hops == path
    assert kinds(bench.draft(Piece("-two", 1, finish="stop"))) == ["Emit", "End"]


@pytest.mark.parametrize("rule", [RefusalPolicy(), Speculative(doubt=0)])
def test_what_it_would_pass_on_it_keeps_until_it_is_released(rule: Policy) -> None:
    bench = Bench(rule, FirstToken() if rule.staged else None)
    bench.node.checker = Likelihood()
    unsure = bench.ask(aside="meanwhile")
    if rule.staged:
        unsure += bench(Scored(KEY, 0, Scores((math.log(0.9),), 20)))
        unsure += bench.draft(Piece("so", 1, -3.0, 10, "stop"))
    else:
        unsure += bench.draft(Piece("I don't know!", 4, None, 20, "stop"))
    assert "Route" not in kinds(unsure)
    assert not bench.node.running  # it takes nobody's place meanwhile
    assert one(bench(Asked(query())), Route).agent == "b"


def nested() -> Bench:
    """``z`` has asked ``a``, which has asked ``b``; ``a`` has looked: 20 tokens, full cost .02."""
    bench = Bench(Speculative(hopeless=0.5), FirstToken())
    bench.node.checker = Likelihood()
    bench.ask(aside="meanwhile", path=(Hop("z", "refused", reason="meanwhile"),))
    route = one(bench(Scored(KEY, 0, Scores((math.log(0.9),), 20))), Route)
    assert (route.agent, route.query.aside) == ("b", "meanwhile")
    assert [hop.agent for hop in route.query.path] == ["z", "a"]
    return bench


def test_whoever_began_early_has_the_next_one_begin_too() -> None:
    bench = nested()
    path = (Hop("y", "cancelled"), Hop("z", "refused", 0.1))
    released = one(bench(Asked(query(path=path))), Route)
    assert (released.agent, released.query.aside) == ("b", "")
    assert [(hop.agent, hop.full_cost) for hop in released.query.path] == [("y", 0), ("z", 0), ("a", 0.02)]
    bench = nested()
    way = (Hop("z", "refused", reason="meanwhile"), Hop("a", "refused", reason="meanwhile"))
    assert bench(accepted(way)) == []  # it keeps it until it is released
    taken = one(bench(Asked(query(path=path))), Accepted)
    assert (taken.agent, [hop.agent for hop in taken.hops]) == ("b", ["y", "z", "a"])


def test_who_is_told_to_stop_says_what_all_behind_it_have_spent() -> None:
    bench = nested()
    assert bench(Cancelled(KEY)) == [Cancel("b", KEY)]
    assert bench(Cancelled(KEY)) == []
    rejected = one(bench(Rejected(KEY, "b", "cancelled", "", (SPENT,))), Rejected)
    assert [(hop.agent, hop.verdict, hop.full_cost) for hop in rejected.hops] == [
        ("b", "cancelled", 0.12),
        ("a", "failed", 0.02),
    ]
    bench = nested()
    bench(accepted((Hop("z", "refused"), Hop("a", "refused", reason="meanwhile"))))
    said = bench(Cancelled(KEY))
    assert sum(hop.full_cost for hop in one(said, Rejected).hops) == pytest.approx(0.02 + 0.084)
    assert Cancel("b", KEY) in said
    assert bench.idle()


def test_who_would_not_vote_says_so() -> None:
    bench, _ = staged(Look(), Forward("b"))
    bench.ask(aside="vote")
    rejected = one(bench(Scored(KEY, 0, Scores((math.log(0.9),), 20))), Rejected)
    assert (rejected.reason, hops(rejected.hops)) == ("refused", [("a", "refused")])
    assert bench.idle()


def test_who_fails_beside_others_forwards_to_nobody() -> None:
    bench = Bench(RefusalPolicy())
    bench.ask(aside="meanwhile")
    assert kinds(bench(DraftFailed(KEY, 1, "failed"))) == ["Rejected"]


def test_nobody_waits_who_has_asked_nobody() -> None:
    bench, _ = staged(Wait())
    assert kinds(bench.ask()) == ["Generate"]
    assert bench(Drafted(KEY, 1, DRAFT)) != []


# ---------------------------------------------------------------------------------- all of it


@pytest.mark.parametrize(("rule", "topology"), [("speculative", "cascade"), ("committee", "mesh")])
def test_no_budget_is_exceeded(rule: str, topology: str) -> None:
    """Drafts take four times what is usual: agents may well want to spend more than they have been lent."""
    engine = {"delay_s": 0.1, "piece_s": 0.1}
    settings = pool(rule, topology, agents=4, engine=engine)
    settings["defaults"] |= {"mean_work": 5.0, "prompt": "plain"}
    free = [spent(settings, alpha, None) for alpha in (0.2, 0.5, 0.8)]
    for budget in (2.0, 4.0, 6.0):
        assert max(max(each) for each in free) > budget
        for alpha in (0.2, 0.5, 0.8):
            assert max(spent(settings, alpha, budget)) <= budget + 1e-9


def spent(settings: dict[str, Any], alpha: float, budget: float | None) -> list[float]:
    """The full costs of 60 replies."""
    replies = simulated(settings, questions(60), alpha, max_cost=budget)
    return [reply.full_cost for reply in replies if isinstance(reply, Reply)]
