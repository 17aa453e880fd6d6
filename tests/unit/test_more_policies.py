"""Policies that learn, each on a case solved by hand."""

from __future__ import annotations

import math

import pytest

from agents.errors import ConfigError
from agents.messages import Card, Hop, Outcome
from agents.policies import Answer, Ask, Decline, Draft, Forward, Look, View
from agents.policies.bandit import Bandit, context
from agents.policies.budget import Budget
from agents.policies.cluster_card import ClusterCard
from agents.policies.committee import Committee
from agents.policies.irt import Irt
from agents.policies.learner import Learner
from agents.policies.more import MORE
from agents.policies.pheromone import MOST, Pheromone
from agents.policies.shortest_path import ShortestPath
from agents.policies.similarity import Similarity
from agents.policies.speculative import Speculative

COSTS = {"b": 0.2, "c": 0.4}
PEERS = tuple(Card(name, cost) for name, cost in COSTS.items())


def seen(p: float, text: str = "sort 31", alpha: float = 0.5, id: str = "q", seed: int = 0, **more: object) -> View:
    return View(Card("a", 0.1), alpha, p, False, PEERS, text=text, id=id, seed=seed, **more)  # type: ignore[arg-type]


def teach(policy: Learner, to: str, right: bool, times: int = 1, p: float = 0.3, text: str = "sort 31") -> None:
    """Queries that were forwarded to ``to``, which was, or was not, right."""
    for number in range(times):
        policy.decide(seen(p, text, id=str(number)))
        path = (Hop("a", "refused", p), Hop(to, "answered", 0.5))
        policy.learn(Outcome(str(number), 0.5, path, COSTS[to], COSTS[to], right))


def test_a_budget_goes_to_the_best_agent_that_it_can_pay() -> None:
    assert Budget().decide(seen(0.3)) == Forward("b")
    assert Budget().decide(seen(0.3, budget=0.5)) == Forward("c")
    assert Budget().decide(seen(0.3, budget=0.3)) == Forward("b")
    assert Budget().decide(seen(0.3, budget=0.1)) == Answer()
    assert Budget().decide(seen(0.8, budget=0.5)) == Answer()  # (1 - .5) ** .5 is .71


def test_abilities_by_hand() -> None:
    """b is twice, c four times as dear as a: one and two units more able. Where a is sure of .5, b is right with
    1 / (1 + e ** -1) = .731, worth .631, and c with .881, worth .681.
    """
    assert Irt().decide(seen(0.5)) == Forward("c")
    assert Irt().decide(seen(0.5, alpha=1)) == Forward("b")  # .531 against .481 and a's own .4
    assert Irt().decide(seen(0.9)) == Forward("b")  # .85; b is right with .961, and worth .861
    assert Irt().decide(seen(0.95)) == Answer()  # .9; b .881
    policy = Irt()
    teach(policy, "c", False, p=0.5)
    assert policy.abilities["c", "sort"] == (1, pytest.approx(2 - 0.5 / (1 + math.exp(-2))))
    teach(policy, "c", False, times=10, p=0.5)
    assert policy.decide(seen(0.5)) == Forward("b")
    assert policy.decide(seen(0.5, text="1+1=")) == Forward("c")  # other kinds of queries are as they were


def test_cards_by_hand() -> None:
    """b sorts .9 of what there is to sort: after 30 probes that is (30 * .9 + 5 * 1) / 35 = .914."""
    policy = ClusterCard({"b": {"sort": 0.9, "+=": 0.1}, "c": {"sort": 0.5, "+=": 0.9}})
    assert policy.decide(seen(0.86)) == Forward("b")  # .81 against .814
    assert policy.decide(seen(0.87)) == Answer()
    assert policy.decide(seen(0.5, text="1+1=")) == Forward("c")
    with pytest.raises(ConfigError, match=r"cards\[b\]\[sort\] is 7, it must be a number in \[0, 1\]"):
        ClusterCard({"b": {"sort": 7}})


def test_a_bound_by_hand() -> None:
    """With nothing learnt the bound is width * |x|; each look at x adds it to the regression's matrix."""
    policy = Bandit(width=1.0)
    policy.decide(seen(0.5))
    done = policy.memory.of("q")
    assert done is not None
    x = context(done, 0.5)
    square = sum(value * value for _, value in x)
    assert square == pytest.approx(1 + 0.25 + 0.25 + 0.0625 + 1)
    teach(policy, "b", True, p=0.5)
    bound = policy.arms["b"].bound(x, 1.0)
    assert bound == pytest.approx((1 - 0.1) * square / (1 + square) + math.sqrt(square / (1 + square)))
    teach(policy, "b", True, 200, p=0.5)
    assert policy.arms["b"].bound(x, 0.0) == pytest.approx(0.9, abs=0.01)


def test_trails_by_hand() -> None:
    policy = Pheromone(decay=0.5, power=2)
    teach(policy, "c", True)
    assert policy.trails == {"sort": {"c": pytest.approx(1.8)}}  # 1, and its utility
    teach(policy, "b", False)
    assert policy.trails["sort"] == {"c": pytest.approx(0.9), "b": 1.0}  # evaporated; nothing was worth a deposit
    teach(policy, "c", True, 40)
    assert policy.trails["sort"]["c"] <= MOST
    policy.trails["sort"] = {"c": 3.0, "b": 1.0}
    drawn = [policy.decide(seen(0.3, seed=seed)) for seed in range(1000)]
    assert drawn.count(Forward("c")) == pytest.approx(900, abs=40)  # 3 ** 2 to 1
    assert policy.decide(seen(0.8)) == Answer()


def test_similarity_by_hand() -> None:
    policy = Similarity(about={"b": "sort lists of digits", "c": "reverse words"})
    assert policy.decide(seen(0.3, text="sort 52")) == Forward("b")
    assert policy.decide(seen(0.3, text="reverse mesh")) == Forward("c")
    assert policy.decide(seen(0.6, text="reverse mesh")) == Answer()  # above 1 - .5
    alone = Similarity(about={"b": "sort"})
    assert alone.score("b", "sort") == pytest.approx(1.0)
    assert alone.score("c", "sort") == 0.0
    teach(alone, "b", False, 5, text="reverse mesh")
    assert alone.score("b", "reverse mesh") < -0.5
    with pytest.raises(ConfigError, match=r"about\[b\] is 3; it must be a text"):
        Similarity(about={"b": 3})  # type: ignore[dict-item]


WAYS = {"a": ["b", "c"], "b": ["d", "e"], "c": ["e", "f"], "d": ["g"], "e": ["g"], "f": ["g"]}
TOLLS = {"d": 0.9, "e": 0.3, "f": 0.1, "g": 0.5}


def test_the_shortest_path_by_hand() -> None:
    """To g by b, e .2 + .3 + .5, by b, d 1.6; by c, e 1.2 and by c, f .4 + .1 + .5: b comes first in the view."""
    policy = ShortestPath(WAYS, TOLLS, goals=["g"])
    assert policy.decide(seen(0.3)) == Forward("b")
    assert ShortestPath(WAYS, {**TOLLS, "f": 0.09}, goals=["g"]).decide(seen(0.3)) == Forward("c")
    assert ShortestPath(WAYS, TOLLS, goals=["d"]).decide(seen(0.3)) == Forward("b")  # .2 + .9
    assert ShortestPath(WAYS, TOLLS, goals=["f"]).decide(seen(0.3)) == Forward("c")
    assert policy.decide(seen(0.8)) == Answer()  # (1 - .5) ** .5 is .71


def test_a_dead_edge_costs_infinity() -> None:
    policy = ShortestPath(WAYS, TOLLS, goals=["d"])
    only_c = View(Card("a", 0.1), 0.5, 0.3, False, PEERS[1:])
    assert policy.decide(only_c) == Decline()  # d is behind b, which is down: nobody is asked in vain
    assert ShortestPath(WAYS, TOLLS, goals=["g"]).decide(only_c) == Forward("c")
    back = {**WAYS, "c": ["b"]}  # a way through the dead is none, wherever it begins
    assert ShortestPath(back, TOLLS, goals=["d"]).decide(only_c) == Decline()


def test_where_it_ends_without_goals() -> None:
    assert ShortestPath(WAYS, TOLLS).decide(seen(0.3)) == Forward("b")  # g alone leads on to nobody
    assert ShortestPath().decide(seen(0.3)) == Forward("b")  # nothing is known: the cheapest neighbour
    everybody = {"b": ["c"], "c": ["b"]}
    assert ShortestPath(everybody).decide(seen(0.3)) == Forward("c")  # the dearest


def test_speculation_by_hand() -> None:
    """The bar is .71: a look is hopeless below .14, in doubt below .57."""
    policy = Speculative(hopeless=0.2, doubt=0.8)
    assert policy.decide(seen(0.5, looked=False)) == Look()
    assert policy.decide(seen(0.13)) == Forward("b")
    for p in (0.15, 0.56):
        assert policy.decide(seen(p)) == Ask(("b",), Draft())
    assert policy.decide(seen(0.58)) == Draft()
    assert policy.decide(seen(0.5, draft="7", drafted=0.72)) == Answer()
    assert policy.decide(seen(0.9, draft="7", drafted=0.70)) == Forward("b")
    assert policy.decide(seen(0.13, aside=True)) == Ask(("b",))  # whom it would be forwarded to
    assert policy.decide(seen(0.13, aside=True, together=True)) == Forward("b")
    assert policy.decide(seen(0.3, aside=True)) == Ask(("b",), Draft())
    assert Speculative(hopeless=0.2, doubt=0.2).decide(seen(0.3)) == Draft()  # one after the other


@pytest.mark.parametrize("name", [name for name, kind in MORE.items() if kind.learns])
def test_who_is_right_is_asked_and_who_is_wrong_is_not(name: str) -> None:
    """Of two neighbours of one price the one that is always right comes to be asked, whichever it is."""
    for good, bad in ("bc", "cb"):
        policy = MORE[name]()
        assert isinstance(policy, Learner)
        peers = (Card("b", 0.2), Card("c", 0.2))
        for number in range(300):
            view = View(Card("a", 0.1), 0.5, 0.1, False, peers, text="sort 31", id=str(number), seed=number)
            choice = policy.decide(view)
            assert isinstance(choice, Forward)
            path = (Hop("a", "refused", 0.1), Hop(choice.peer, "answered", 0.9))
            policy.learn(Outcome(str(number), 0.5, path, 0.2, 0.2, None))
            policy.learn(Outcome(str(number), 0.5, path, 0.2, 0.2, choice.peer == good))
        late = [policy.decide(View(Card("a", 0.1), 0.5, 0.1, False, peers, text="sort 31", seed=n)) for n in range(100)]
        assert late.count(Forward(good)) > 80, (name, good, bad)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Bandit(width=-1), "width is -1"),
        (lambda: Pheromone(decay=2), r"decay is 2, it must be a number in \[0, 1\]"),
        (lambda: Budget(gamma=0), "gamma is 0"),
        (lambda: ShortestPath(edges={"a": "bc"}), "edges is {'a': 'bc'}"),
        (lambda: ShortestPath(costs={"a": 2}), r"costs\[a\] is 2, it must be a number in \(0, 1\]"),
        (lambda: Speculative(hopeless=0.5, doubt=0.2), r"doubt is 0.2, it must be at least hopeless, 0.5"),
        (lambda: Committee(members=0), "members is 0"),
        (lambda: Committee(quorum=4), "quorum is 4, it must be at most members, 3"),
    ],
)
def test_wrong_options_are_named(make: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make()  # type: ignore[operator]
