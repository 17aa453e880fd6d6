"""Published routers: each has to find, in a pool of which all is known, what it could find there."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from itertools import permutations, product

import numpy as np
import pytest

from agents.errors import ConfigError
from benchmarks.baselines import BASELINES, Router
from benchmarks.baselines.automix import BINS, AutoMix, observed, plan, planned
from benchmarks.baselines.base import best
from benchmarks.baselines.cascade import Cascade, run, search, stakes, values
from benchmarks.baselines.descent import descend, seeded
from benchmarks.baselines.frugalgpt import FrugalGPT
from benchmarks.baselines.graphrouter import messages
from benchmarks.baselines.irt import log_odds
from benchmarks.baselines.routerdc import sample_agent_loss, sample_sample_loss
from benchmarks.baselines.uncertainty import Uncertainty
from benchmarks.outcomes import Asked, Outcomes
from tests.baselines import COSTS, SURE, TASKS, outcomes, utility
from training.scores import soft_log_loss
from training.threshold import best_cut

ALPHAS = (0.2, 0.5, 0.8)
PREDICTING, CASCADES = ("graphrouter", "routerdc", "irt-router"), ("frugalgpt", "automix", "uncertainty")
CLASSES = {"frugalgpt": FrugalGPT, "automix": AutoMix, "uncertainty": Uncertainty}
POOL = outcomes(600, 3)


@functools.cache
def fitted(name: str) -> Router:
    return _fitted(BASELINES[name])


def _fitted(make: Callable[[], Router], train: int = 1500, validation: int = 500) -> Router:
    router = make()
    router.fit(outcomes(train, 1), outcomes(validation, 2), seed=5)
    return router


def single(alpha: float, full: bool = False) -> float:
    """What the best agent earns that answers everything."""
    spent = POOL.work if full else POOL.costs[:, None]
    return float((POOL.right - alpha * spent).mean(axis=1).max())


def known(alpha: float) -> float:
    """What the rule earns that knows the task of a question, and how sure each agent is of it."""
    p = np.array([SURE[_task(question.text)] for question in POOL.questions]).T
    chosen = best(p, COSTS, alpha)
    return float(POOL.utilities(alpha)[chosen, np.arange(len(POOL))].mean())


def _task(text: str) -> str:
    return next(task for task, words in TASKS.items() if text.startswith(words.split()[0]))


# ---------------------------------------------------------------------------------- those that predict


@pytest.mark.parametrize("name", PREDICTING)
def test_a_predicting_router_finds_what_the_tasks_tell(name: str) -> None:
    for alpha in ALPHAS:
        found = utility(fitted(name), POOL, alpha)
        assert found > known(alpha) - 0.01
        assert found > single(alpha) + 0.08


@pytest.mark.parametrize("name", PREDICTING)
def test_its_probabilities_are_near_the_true_ones(name: str) -> None:
    true = np.array([SURE[_task(question.text)] for question in POOL.questions]).T
    p = fitted(name).predict(POOL.questions)  # type: ignore[attr-defined]
    assert p.shape == POOL.right.shape
    known = soft_log_loss(true, POOL.right)
    assert soft_log_loss(p, POOL.right) < known + 0.04  # what tells nothing apart has .35 more


@pytest.mark.parametrize("name", PREDICTING)
def test_it_looks_at_no_drafts(name: str) -> None:
    asked = Asked(POOL)
    fitted(name).route(asked, 0.5)
    assert not asked.drafted.any()


@pytest.mark.parametrize("name", PREDICTING)
def test_who_is_told_nothing_learns_nothing(name: str) -> None:
    """What the tests above ask for is not to be had without learning."""
    train, validation = outcomes(300, 1), outcomes(200, 2)
    router = BASELINES[name]()
    rng = np.random.default_rng(0)
    router.fit(*(dataclasses.replace(o, right=rng.permuted(o.right, axis=1)) for o in (train, validation)))
    assert utility(router, POOL, 0.5) < known(0.5) - 0.1


# ---------------------------------------------------------------------------------- cascades


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("name", CASCADES)
def test_a_cascade_earns_more_than_any_agent(name: str, full: bool) -> None:
    router = _fitted(lambda: CLASSES[name](full=full))
    for alpha in ALPHAS:
        assert utility(router, POOL, alpha, full) > single(alpha, full) + 0.04


def test_frugalgpt_earns_what_reading_drafts_can_earn() -> None:
    """Drafts here say whether they are right: cheap ones that are get accepted, and no others."""
    right, costs = POOL.right.astype(bool), COSTS
    price = np.where(right[0], costs[0], np.where(right[1], costs[1], costs[2]))
    paid = np.where(right[0], costs[0], np.where(right[1], costs[0] + costs[1], costs.sum()))
    good = right.any(axis=0)
    for alpha in ALPHAS:
        assert utility(_priced(), POOL, alpha) > float((good - alpha * price).mean()) - 0.01
        assert utility(fitted("frugalgpt"), POOL, alpha, full=True) > float((good - alpha * paid).mean()) - 0.01


@functools.cache
def _priced() -> Router:
    return _fitted(lambda: FrugalGPT(full=False))


@pytest.mark.parametrize("name", CASCADES)
def test_a_cascade_pays_for_what_it_looks_at(name: str) -> None:
    asked = Asked(POOL)
    chosen = fitted(name).route(asked, 0.5)
    assert asked.drafted.any()
    assert not asked.drafted.all()
    handed_on = asked.drafted.any(axis=0) & ~asked.drafted[chosen, np.arange(len(POOL))]
    assert handed_on.any()  # the last of a cascade answers unread
    assert utility(fitted(name), POOL, 0.5, full=True) < utility(fitted(name), POOL, 0.5) - 0.02


@pytest.mark.parametrize("name", ["automix", "uncertainty"])
def test_a_cascade_needs_its_signal(name: str) -> None:
    blind = dataclasses.replace(POOL, signals={key: np.full_like(v, np.nan) for key, v in POOL.signals.items()})
    with pytest.raises(ConfigError, match=f"{name} routes by"):
        BASELINES[name]().fit(blind, blind)
    with pytest.raises(ConfigError, match="record it"):
        BASELINES[name]().fit(blind, dataclasses.replace(POOL, signals={}))


def test_frugalgpt_needs_no_likelihood() -> None:
    train, validation, asked = (dataclasses.replace(o, signals={}) for o in (outcomes(1500, 1), outcomes(500, 2), POOL))
    router = FrugalGPT()
    router.fit(train, validation)
    assert utility(router, asked, 0.5, full=True) > single(0.5) + 0.04


@pytest.mark.parametrize("name", [*PREDICTING, *CASCADES])
def test_a_seed_gives_the_same_choices(name: str) -> None:
    one, other = (_fitted(BASELINES[name], 200, 100) for _ in range(2))
    for alpha in ALPHAS:
        assert (one.route(Asked(POOL), alpha) == other.route(Asked(POOL), alpha)).all()


def test_a_threshold_by_hand() -> None:
    """Accepting at .9 gains 1, at .6 too gains 3 in all, at .5 loses 2: between .6 and .5 lies the best threshold."""
    assert best_cut(np.array([0.5, 0.9, 0.6, 0.1]), np.array([-2.0, 1.0, 2.0, 0.5])) == (0.55, 3.0)
    assert best_cut(np.array([0.5, 0.9]), np.array([-1.0, -2.0])) == (np.inf, 0.0)
    assert best_cut(np.empty(0), np.empty(0)) == (np.inf, 0.0)
    assert best_cut(np.array([0.5, 0.9]), np.array([1.0, 2.0])) == (-np.inf, 3.0)
    assert best_cut(np.array([0.5, 0.5]), np.array([3.0, -4.0])) == (np.inf, 0.0)  # equals are not told apart


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("by_number", [True, False])
def test_the_search_finds_what_brute_force_finds(by_number: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    agents, count = 3, 9
    scores, worth = rng.random((agents + 1, agents, count)), rng.random((agents, count))
    paid = 0.2 * rng.random((agents, count))
    highest = max(
        values(Cascade(order, cuts, 0.0), scores, worth, paid).mean()
        for size in (1, 2, 3)
        for order in permutations(range(agents), size)
        if not by_number or list(order) == sorted(order)
        for cuts in product([np.inf, *np.unique(scores)], repeat=size - 1)
    )
    found = search(scores, worth, paid, by_number)
    assert found.utility == pytest.approx(highest)
    assert found.utility == pytest.approx(values(found, scores, worth, paid).mean())


def test_longer_cascades_are_tried_where_they_pay() -> None:
    """Each of five agents is right on its own fifth and knows it; drafts cost nothing, answers are priced."""
    right = np.repeat(np.eye(5), 4, axis=1)
    found = search(np.broadcast_to(right, (6, 5, 20)), right - 0.1, np.zeros((5, 20)), by_number=True)
    assert found.agents == (0, 1, 2, 3, 4)
    assert found.utility == pytest.approx(0.9)


def test_a_cascade_earns_when_run_what_it_earned_when_searched() -> None:
    likelihood = POOL.signals["likelihood"].copy()
    likelihood[0, :100] = np.nan
    blind = dataclasses.replace(POOL, signals={"likelihood": likelihood})
    found = search(np.broadcast_to(likelihood, (4, *likelihood.shape)), *stakes(blind, 0.5, True), by_number=True)
    asked = Asked(blind)
    chosen = run(found, asked, lambda agent, drafts, places, before: drafts.signals["likelihood"])
    drafted = asked.drafted.copy()
    drafted[chosen, np.arange(len(POOL))] = True
    earned = POOL.right[chosen, np.arange(len(POOL))] - 0.5 * (POOL.work * drafted).sum(axis=0)
    assert earned.mean() == pytest.approx(found.utility)
    assert not (chosen[:100] == 0).any()  # what has no likelihood is not trusted


def test_automix_takes_an_answer_that_is_good_where_verification_is_low() -> None:
    """Self-verification turned upside down: no threshold helps, the plan does."""
    verified = np.tile(np.linspace(0, 1, 200), (2, 1))
    edges = np.arange(1, BINS) / BINS
    seen = np.array([observed(row, edges) for row in verified])
    right = np.array([verified[0] < 0.5, np.ones(200)], dtype=float)
    paid = np.array([0.1, 0.6])[:, None] * np.ones((2, 200))
    found = plan(seen, right, paid)
    assert found.start == 0
    assert found.next[0].tolist() == [0] * 4 + [1] * 4 + [0]  # the last, of no verification, was never seen
    assert planned(found, seen, right, paid).mean() == pytest.approx(0.5 * 0.9 + 0.5 * 0.3)
    assert observed(np.array([np.nan, 0.0, 1.0]), edges).tolist() == [BINS, 0, BINS - 1]
    cascade = search(np.broadcast_to(verified, (3, 2, 200)), right, paid)
    assert cascade.utility < found.utility - 0.1


# ---------------------------------------------------------------------------------- formulas


def test_log_odds_of_item_response_theory() -> None:
    import torch

    rng = np.random.default_rng(0)
    asks, has, hard = rng.random((4, 3)), rng.normal(size=(2, 3)), rng.normal(size=4)
    found = log_odds(*(torch.tensor(part) for part in (asks, has, hard))).numpy()
    for q, a in product(range(4), range(2)):
        assert found[q, a] == pytest.approx(sum(asks[q, d] * has[a, d] for d in range(3)) - hard[q])


def test_messages_of_a_graph() -> None:
    import torch

    weights, states = np.array([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]]), np.array([[1.0, 2.0], [4.0, 8.0], [5.0, 5.0]])
    found = messages(torch.tensor(weights), torch.tensor(states)).numpy()
    naive = [sum(w * s for w, s in zip(weights[0], states[:, h], strict=True)) / 1.5 for h in range(2)]
    assert found[0] == pytest.approx(naive)
    assert found[1].tolist() == [0, 0]


def test_contrastive_losses() -> None:
    import torch

    rows, right = np.array([[0.2, 0.9, -0.3], [0.1, 0.2, 0.3]]), np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    lost = [-np.log(np.exp(s) / (np.exp(s) + np.exp(0.9))) for s in (0.2, -0.3)]
    assert float(sample_agent_loss(torch.tensor(rows), torch.tensor(right))) == pytest.approx(np.mean(lost))
    alike = torch.tensor([[1.0, 0.6, 0.1], [0.6, 1.0, 0.4], [0.1, 0.4, 1.0]])
    lost = [-np.log(np.exp(0.6) / (np.exp(0.6) + np.exp(s))) for s in (0.1, 0.4)]
    assert float(sample_sample_loss(alike, torch.tensor([0, 0, 1]))) == pytest.approx(np.mean(lost))
    assert float(sample_sample_loss(alike, torch.tensor([0, 1, 2]))) == 0


def test_descent_keeps_what_was_lowest_on_validation() -> None:
    import torch

    with seeded(0):
        network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 3.0)
    lowest = descend(
        network,
        lambda: (network.weight**2).sum(),  # towards 0, past 1
        lambda: float((network.weight.detach() - 1).abs()),
        rate=0.1,
        decay=0.0,
        steps=200,
        every=1,
    )
    assert lowest < 0.1
    assert abs(float(network.weight.detach()) - 1) == pytest.approx(lowest)


@pytest.mark.parametrize("name", PREDICTING)
def test_questions_of_an_unknown_task_are_scored_too(name: str) -> None:
    other = tuple(dataclasses.replace(question, task="new") for question in POOL.questions[:9])
    p = fitted(name).predict(other)  # type: ignore[attr-defined]
    assert ((p > 0) & (p < 1)).all()


@pytest.mark.parametrize("name", [*PREDICTING, *CASCADES])
def test_two_agents_and_scores_between_right_and_wrong(name: str) -> None:
    def two(known: Outcomes) -> Outcomes:
        signals = {key: values[[0, 2]] for key, values in known.signals.items()}
        parts = (part[[0, 2]] for part in (known.costs, known.right * 0.8 + 0.1, known.work))
        costs, right, work = parts
        texts = (known.texts[0], known.texts[2])
        return Outcomes(known.questions, ("small", "large"), costs, right, work, texts, signals)

    router = BASELINES[name]()
    router.fit(two(outcomes(300, 1)), two(outcomes(200, 2)))
    pool = two(POOL)
    assert utility(router, pool, 0.5) > pool.utilities(0.5).mean(axis=1).max() + 0.04
