"""``Gateway.step`` by hand: what an agent that is another mesh asks it, and what it makes of the answer."""

from __future__ import annotations

from msgspec.structs import replace

from agents.assess import RefusalAssessor
from agents.messages import (
    Accepted,
    Asked,
    Card,
    Drafted,
    DraftFailed,
    Emit,
    End,
    Generate,
    Hop,
    Message,
    NodeCommand,
    PeerDown,
    Piece,
    Query,
    Route,
)
from agents.policies import Always, Policy, RefusalPolicy
from agents.prompts import REFUSAL
from mesh.directory import Directory
from mesh.ingress.gateway import Gateway, Passed
from topologies import TOPOLOGIES

CARDS = {"berlin": Card("berlin", 0.5, mean_work=100.0), "last": Card("last", 0.9)}
QUESTION = (Message("user", "why?"),)
BEFORE = Hop("nano", "refused", full_cost=0.1)
QUERY = Query("q", QUESTION, 0.3, remaining_s=8.0, max_cost=2.0, spent=0.4, path=(BEFORE,), meshes=("paris",), seed=7)
THEIRS = (Hop("berlin/a", "refused", full_cost=0.2), Hop("berlin/b", "answered", 0.9, 1.0, 10, 5, 0.3))
END = Piece("", 3, None, 8, "stop", THEIRS)


def opened(policy: Policy, query: Query = QUERY, alone: bool = False) -> tuple[Gateway, list[NodeCommand]]:
    cards = {"berlin": CARDS["berlin"]} if alone else CARDS
    topology = TOPOLOGIES["cascade"]({name: card.cost for name, card in cards.items()})
    gateway = Gateway(CARDS["berlin"], Directory(topology, cards), policy, RefusalAssessor())
    return gateway, gateway.step(Asked(query), 1.0)


def drafted(gateway: Gateway, *pieces: Piece, generation: int = 1) -> list[NodeCommand]:
    return [command for piece in pieces for command in gateway.step(Drafted(QUERY.key, generation, piece), 2.0)]


def test_a_query_is_handed_on_as_it_came() -> None:
    """No scenario, no bound on work: the other mesh has its own; it may decline unless it must answer."""
    for policy, ban in ((RefusalPolicy(), ""), (Always(), REFUSAL)):
        _, (asked,) = opened(policy)
        assert isinstance(asked, Generate)
        request = asked.request
        assert isinstance(request, Passed)
        assert (request.messages, request.ban, request.max_work) == (QUESTION, ban, None)
        assert (request.alpha, request.remaining_s, request.meshes) == (0.3, 8.0, ("paris",))
        assert request.max_cost == 2.0 - 0.4 - 0.1


def test_its_hops_stand_for_it() -> None:
    gateway, _ = opened(Always())
    first = Piece("be", 1, None, 2)
    said = drafted(gateway, first, END)
    assert said == [
        Accepted(QUERY.key, "berlin", (BEFORE,)), Emit(QUERY.key, first), Emit(QUERY.key, END),
        End(QUERY.key, "stop", THEIRS[1], 0.5, THEIRS[:1], 0.3),
    ]  # fmt: skip
    assert gateway.step(Asked(QUERY), 3.0) == [Accepted(QUERY.key, "berlin", (BEFORE,))]  # also who asks late


def test_where_it_declines_the_query_goes_on_with_what_that_cost() -> None:
    gateway, _ = opened(RefusalPolicy())
    theirs = (THEIRS[0], Hop("berlin/b", "declined", full_cost=0.3))
    (route,) = drafted(gateway, Piece(REFUSAL, 0, None, 8, "stop", theirs))
    assert isinstance(route, Route)
    assert route.query.path == (BEFORE, *theirs, Hop("berlin", "refused", None, 1.0))


def test_whoever_asks_may_take_that_for_an_answer() -> None:
    gateway, _ = opened(RefusalPolicy(), replace(QUERY, may_decline=True), alone=True)
    declined = (Hop("berlin/a", "declined", full_cost=0.2),)
    said = drafted(gateway, Piece(REFUSAL, 0, None, 8, "stop", declined))
    assert said == [
        Accepted(QUERY.key, "berlin", (BEFORE,)),
        End(QUERY.key, "declined", Hop("berlin", "declined", None, 1.0), 0.5, declined, 0.3),
    ]


def test_what_it_declined_counts_where_it_must_answer_then() -> None:
    gateway, _ = opened(RefusalPolicy())
    gateway.step(PeerDown("last"), 1.5)
    declined = (Hop("berlin/a", "declined", full_cost=0.2),)
    (again,) = drafted(gateway, Piece(REFUSAL, 0, None, 8, "stop", declined))
    assert isinstance(again, Generate)
    assert again.request.ban == REFUSAL
    assert drafted(gateway, END, generation=2)[-1] == End(
        QUERY.key, "stop", THEIRS[1], 0.5, (*declined, THEIRS[0]), 0.3
    )


def test_an_answer_that_breaks_off_costs_what_it_would_here() -> None:
    gateway, _ = opened(Always())
    drafted(gateway, Piece("be", 1, None, 6))
    (end,) = gateway.step(DraftFailed(QUERY.key, 1, "died"), 3.0)
    assert end == End(
        QUERY.key, "failed", Hop("berlin", "failed", None, 2.0, 6, 1, 0.5 * 10 / 100, "died"), 0.5, alpha=0.3
    )


def test_a_draft_that_is_over_tells_nothing() -> None:
    gateway, _ = opened(Always())
    assert drafted(gateway, END, generation=9) == []
    said = drafted(gateway, replace(END, hops=THEIRS[1:]))
    assert said[-1] == End(QUERY.key, "stop", THEIRS[1], 0.5, alpha=0.3)
