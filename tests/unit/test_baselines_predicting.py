"""Published routers that look at questions only: each learns what there is to learn, and pays for no draft."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest

from benchmarks.baselines import BASELINES, Router
from benchmarks.baselines.forc import labelled, named
from benchmarks.baselines.routellm import Ladder, beaten, ladder, threshold, thresholds, won
from benchmarks.baselines.simple import BestSingle, Largest, Random, Smallest
from benchmarks.baselines.uniroute import errors
from benchmarks.outcomes import Asked, Outcomes
from tests.baselines import COSTS, SURE, outcomes, utility

LEARNT = (
    "knn",
    "logistic",
    "mlp",
    "matrix-factorisation",
    "routellm-mf",
    "routellm-classifier",
    "forc",
    "uniroute",
)
SIMPLE = ("random", "smallest", "largest", "best-single")
ALPHAS = (0.2, 0.5, 0.8)
NEAR = 0.02  # how much worse than the best rule a learnt router may be; where agents differ, they do by .1 or more


@cache
def pool(count: int, seed: int) -> Outcomes:
    return outcomes(count, seed)


@cache
def fitted(name: str) -> Router:
    router = BASELINES[name]()
    router.fit(pool(1500, 1), pool(500, 2), seed=7)
    return router


def best_rule(asked: Outcomes, alpha: float) -> float:
    """Utility of who knows each question's task, and what agents are good at, but not whether they will be right."""
    tasks = {"add": "sums", "spell": "words", "why": "riddles"}
    p = np.array([SURE[tasks[question.text.split()[0]]] for question in asked.questions]).T
    chosen = (p - alpha * COSTS[:, None]).argmax(axis=0)
    return float(asked.utilities(alpha)[chosen, np.arange(len(asked))].mean())


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", LEARNT)
def test_a_router_learns_which_agent_is_good_at_what(name: str, alpha: float) -> None:
    asked = pool(600, 3)
    found = utility(fitted(name), asked, alpha)
    assert found > best_rule(asked, alpha) - NEAR
    assert found > utility(fitted("best-single"), asked, alpha) + 0.1


@pytest.mark.parametrize("name", LEARNT + SIMPLE)
def test_a_seed_gives_the_same_router_again_and_no_draft_is_paid_for(name: str) -> None:
    train, validation, asked = pool(400, 4), pool(200, 5), Asked(pool(300, 6))
    one, other = BASELINES[name](), BASELINES[name]()
    one.fit(train, validation, seed=3)
    np.random.default_rng(9).random()
    other.fit(train, validation, seed=3)
    for alpha in ALPHAS:
        chosen = one.route(asked, alpha)
        assert chosen.shape == (300,)
        assert (chosen == other.route(asked, alpha)).all()
        assert (chosen == one.route(asked, alpha)).all()
    assert not asked.drafted.any()


def test_random_takes_all_alike_and_the_seed_matters() -> None:
    asked, chosen = Asked(pool(600, 3)), []
    for seed in (0, 1):
        router = Random()
        router.fit(pool(400, 4), pool(200, 5), seed)
        chosen.append(router.route(asked, 0.5))
    assert (chosen[0] != chosen[1]).any()
    assert (np.bincount(chosen[0], minlength=3) > 150).all()  # of 200 that are expected


def test_smallest_and_largest_go_by_price() -> None:
    asked = Asked(pool(600, 3))
    assert (Smallest().route(asked, 0.5) == 0).all()
    assert (Largest().route(asked, 0.5) == 2).all()


def test_best_single_counts_all_rows_and_the_price() -> None:
    """Right: (1, 0, 0, 0), (1, 1, 0, 0), (1, 1, 1, 0); .25, .5 and .75 at prices .1, .2 and .9."""
    known = replace(outcomes(4, 0), right=np.array([[1.0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]))
    router = BestSingle()
    router.fit(known.at(np.array([0, 1, 2])), known.at(np.array([3])))
    asked = Asked(outcomes(5, 1))
    assert (router.route(asked, 0.3) == 2).all()  # .22, .44, .48
    assert (router.route(asked, 0.5) == 1).all()  # .2, .4, .3
    assert (router.route(asked, 3.0) == 0).all()  # -.05, -.1, -1.95


def test_uniroute_counts_errors_in_clusters() -> None:
    """Agents are right on average .5 and .75; the third cluster is empty."""
    right = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    found = errors(right, np.array([0, 0, 0, 1]), 3)
    assert found == pytest.approx(np.array([[1.5 / 4, 1.5 / 2, 0.5], [0.25 / 4, 1.25 / 2, 0.25]]))


def test_uniroute_errors_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    right, clusters = rng.random((3, 50)), rng.integers(6, size=50)
    for agent, cluster in product(range(3), range(6)):
        wrong = [1 - right[agent, place] for place in range(50) if clusters[place] == cluster]
        wrong.append(1 - right[agent].mean())
        assert errors(right, clusters, 6)[agent, cluster] == pytest.approx(sum(wrong) / len(wrong))


def test_forc_reads_each_question_with_each_agent() -> None:
    rows = named(np.array([[0.1, 0.2], [0.3, 0.4]]), 2)
    assert rows.tolist() == [[0.1, 0.2, 0], [0.3, 0.4, 0], [0.1, 0.2, 1], [0.3, 0.4, 1]]
    found, labels, weights = labelled(rows, np.array([[1.0, 0.0], [0.25, 1.0]]))
    counted = sorted(zip(found.tolist(), labels, weights, strict=True))
    assert counted == [
        ([0.1, 0.2, 0], 1, 1),
        ([0.1, 0.2, 1], 0, 0.75),
        ([0.1, 0.2, 1], 1, 0.25),
        ([0.3, 0.4, 0], 0, 1),
        ([0.3, 0.4, 1], 1, 1),
    ]


def test_a_win_is_to_be_right_where_the_cheaper_is_wrong() -> None:
    right = np.array([[1.0, 0, 0, 0.25], [0, 1, 0, 0.5], [1, 1, 0, 0]])
    assert won(right).tolist() == [[0, 1, 0, 0.25], [0, 1, 0, 0], [1, 0, 0, 0]]  # pairs 0-1, 0-2 and 1-2


def test_the_likeliest_of_the_dearer_counts() -> None:
    wins = np.zeros((3, 3, 2))
    wins[0, 1], wins[0, 2], wins[1, 2] = (0.1, 0.6), (0.3, 0.2), (0.4, 0.5)
    assert beaten(wins, (0, 1, 2)).tolist() == [[0.3, 0.6], [0.4, 0.5]]
    assert beaten(wins, (0, 1)).tolist() == [[0.1, 0.6]]
    assert Ladder((0, 1, 2), np.array([0.5, 0.5]))(wins).tolist() == [0, 2]
    assert Ladder((0, 2), np.array([0.25]))(wins).tolist() == [2, 0]
    assert Ladder((1,), np.array([]))(wins).tolist() == [1, 1]


def test_a_threshold_by_hand() -> None:
    assert threshold(np.array([0.4, 0.1, 0.2, 0.4]), np.array([2.0, 1.0, -0.5, -3.0])) == pytest.approx(0.15)
    assert threshold(np.array([0.4, 0.1]), np.array([1.0, 1.0])) == np.inf
    assert threshold(np.array([0.4, 0.1]), np.array([-1.0, -1.0])) == 0
    assert threshold(np.array([]), np.array([])) in (0, np.inf)


@pytest.mark.parametrize("seed", range(20))
def test_thresholds_are_the_best_there_are(seed: int) -> None:
    """Of two agents always; of three, where one after the other is set, nearly, and alone none can be bettered."""
    rng = np.random.default_rng(seed)
    p, utilities = rng.random((2, 12)).round(1), rng.random((3, 12))
    places = np.arange(12)

    def worth(*limits: float) -> float:
        stays = [p[place] < limit for place, limit in enumerate(limits)]
        chosen = [next((n for n, stay in enumerate(stays) if stay[q]), len(limits)) for q in places]
        return float(utilities[chosen, places].mean())

    tried = [*(np.arange(11) / 10), np.inf]
    one = thresholds(p[:1], utilities[:2])
    assert worth(*one) == pytest.approx(max(worth(limit) for limit in tried))
    first, second = thresholds(p, utilities)
    assert worth(first, second) >= max(worth(first, limit) for limit in tried) - 1e-9
    assert worth(first, second) >= max(worth(limit, second) for limit in tried) - 1e-9
    assert worth(first, second) >= max(worth(*limits) for limits in product(tried, tried)) - 0.05


def test_agents_that_never_pay_are_left_off_the_ladder() -> None:
    """The dearest wins everywhere, but is not worth it; the second is, on half of the questions."""
    rng = np.random.default_rng(0)
    good = rng.random(100) < 0.5
    right = np.array([np.zeros(100), good, np.ones(100)])
    wins = np.zeros((3, 3, 100))
    wins[np.triu_indices(3, 1)] = won(right)
    found = ladder(wins, right - np.array([0.1, 0.2, 1.3])[:, None])
    assert (found(wins) == good.astype(int)).all()
