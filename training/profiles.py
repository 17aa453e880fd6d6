"""Learning an agent's profile from its own record: what it gets right, what it says of itself, what it costs.

On training rows it learns how likely it is right by a question's text; on validation rows, what its looks and its
drafts add to that, and from these its reservation values: how much one would have to be sure of to leave it unasked.
And where it heard what others drafted of the same questions, it learns what that tells of its own drafts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from msgspec.structs import replace

from agents.offers import Ballots, Offer, logit
from agents.profile import BUCKETS, Curve, Profile, basis, features, mixed
from training.scores import Array, soft_log_loss

STRENGTHS = (1.0, 3.0, 10.0, 30.0)  # of the regularisation, inverse; chosen by log loss on validation
BINS = 24  # of as many questions each, in which a probability means the same
GRID = np.linspace(-1.0, 1.0, 401)  # values tried
HEARD = 3  # times that each question is learnt from, among as many different sets of others
PEEK = 0.02  # of its price is what a look or a draft costs where only answers do: else nobody would ever stop


@dataclass(frozen=True, slots=True)
class Record:
    """What one agent did with Q questions; arrays of shape (Q,).

    Args:
        right: scores in [0, 1] of the answers that it gives when it must.
        looked: how sure it says it is before it drafts, NaN where it refused; None: it does not look.
        drafted: mean log-probability of its drafts, NaN where there is none.
        look, work: what a look and an answer cost in full.
    """

    texts: tuple[str, ...]
    right: Array
    looked: Array | None = None
    drafted: Array | None = None
    look: Array | None = None
    work: Array | None = None


def learn_prior(train: Record, validation: Record) -> Profile:
    """What follows from a text alone, by logistic regression; of the records it needs no more than texts and scores.
    The profile has no values yet.
    """
    from sklearn.linear_model import LogisticRegression

    known, held = _rows(train.texts), _rows(validation.texts)
    places, labels, weights = weighed(train.right)
    if len(np.unique(labels)) < 2:  # always right, or never, as far as it has been seen
        count = len(labels)
        bias = logit((count * float(labels[0]) + 1) / (count + 2))
        return _without_values(bytes([128] * BUCKETS), 1.0, bias)
    tried = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, solver="liblinear", random_state=0)
        model.fit(known[places], labels, sample_weight=weights)
        tried.append((soft_log_loss(model.predict_proba(held)[:, 1], validation.right), model))
    _, best = min(tried, key=lambda pair: pair[0])
    scale = max(float(np.abs(best.coef_[0]).max()) / 127, 1e-12)
    quantised = np.round(best.coef_[0] / scale).astype(int) + 128
    return _without_values(bytes(quantised.tolist()), scale, float(best.intercept_[0]))


def _without_values(weights: bytes, scale: float, bias: float) -> Profile:
    return Profile(weights, scale, bias, (), (), (), (), (), (), (), 0.0)


def learn_values(begun: Profile, validation: Record, cost: float, alphas: Sequence[float], full: bool) -> Profile:
    """The whole profile: what it is worth at ``alphas`` to ask the agent. With ``full`` all work is paid for, else only
    the price ``cost`` of the answer.
    """
    prior = np.array([begun.prior(text) for text in validation.texts])
    sure = None if validation.drafted is None else np.exp(np.minimum(validation.drafted, 0.0))
    looked, looks = _mix(validation.right, prior, validation.looked)
    drafted, drafts = _mix(validation.right, prior, sure)
    both, known = _mix(validation.right, prior, validation.looked, sure)
    assert validation.work is not None
    work = float(np.mean(validation.work)) * (1.0 if full else PEEK)
    look = 0.0 if validation.look is None else float(np.nanmean(validation.look)) * (1.0 if full else PEEK)
    drafting, looking, after = [], [], []
    for alpha in alphas:
        charged = 0.0 if full else alpha * cost
        drafting.append(_curve(prior, _drafting(prior, drafts - charged, alpha * work)))
        if validation.looked is not None:
            chances = _chances(looks, known - charged, alpha * work)
            after.append(_curve(looks, [_worth(chance) for chance in chances]))
            looking.append(_curve(prior, _looking(prior, looks, chances, alpha * look)))
        else:
            after.append(drafting[-1])
    return replace(
        begun,
        looked=looked,
        drafted=drafted,
        both=both,
        alphas=tuple(alphas),
        drafting=tuple(drafting),
        looking=tuple(looking),
        after=tuple(after),
        price=0.0 if full else cost,
        work=work,
    )


def drafts(profile: Profile, record: Record) -> list[float]:
    """How sure the agent is of each of its drafts, once it knows all that it can."""
    sure = None if record.drafted is None else np.exp(np.minimum(record.drafted, 0.0))
    prior = np.array([profile.prior(text) for text in record.texts])
    if record.looked is None:
        return [profile.once_drafted(*row) for row in _given(prior, sure)]
    return [profile.once_both(*row) for row in _given(prior, record.looked, sure)]


def learn_agreement(
    begun: Profile, right: Array, mine: Sequence[Offer], others: Sequence[Sequence[Offer]], seed: int = 0
) -> Profile:
    """The profile with what drafts tell of each other.

    Args:
        right: (Q,), scores of its own drafts.
        mine: these drafts.
        others: what each other agent made of the same questions; it learns from random ones, since it will not hear
            all of them.
    """
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(HEARD):
        for number, (offer, share) in enumerate(zip(mine, rng.random(len(mine)), strict=True)):
            heard = [each[number] for each, luck in zip(others, rng.random(len(others)), strict=True) if luck < share]
            rows.append(Ballots((), (offer, *heard)).shown(offer))
    places, labels, weights = weighed(np.tile(right, HEARD))
    if len(np.unique(labels)) < 2:  # always right, or never: nobody need agree
        return begun
    model = LogisticRegression(C=1.0, fit_intercept=False, max_iter=2000)
    model.fit(np.array(rows)[places], labels, sample_weight=weights)
    return replace(begun, agreed=tuple(model.coef_[0].tolist()))


def weighed(right: Array) -> tuple[Any, Any, Array]:
    """Places of rows, their labels and weights, for what learns from labels alone: a score between 0 and 1, of shape
    (Q,), is a row of either label, each of its weight.
    """
    weights = np.concatenate([right, 1 - right])
    kept = weights > 0
    return np.tile(np.arange(len(right)), 2)[kept], np.repeat([1, 0], len(right))[kept], weights[kept]


@lru_cache(maxsize=2)  # all agents of a pool learn from the same questions, one after the other
def _rows(texts: tuple[str, ...]) -> Any:
    from scipy.sparse import csr_matrix

    found = [features(text) for text in texts]
    ends = np.cumsum([0, *map(len, found)])
    values = np.concatenate([np.full(len(each), len(each) ** -0.5) for each in found])
    return csr_matrix((values, np.concatenate(found), ends), shape=(len(texts), BUCKETS))


def _given(*columns: Array | None) -> Iterable[list[float | None]]:
    count = next(len(column) for column in columns if column is not None)
    for row in range(count):
        told = [None if column is None else float(column[row]) for column in columns]
        yield [None if p is None or np.isnan(p) else p for p in told]


def _mix(right: Array, *columns: Array | None) -> tuple[tuple[float, ...], Array]:
    """The weights that make one probability of several, and that probability, (Q,)."""
    from sklearn.linear_model import LogisticRegression

    rows = np.array([basis(*row) for row in _given(*columns)])
    there = np.repeat([True, *(column is not None for column in columns)], [1, *[4] * len(columns)])
    places, labels, weights = weighed(right)
    weighing = np.zeros(len(there))
    if len(np.unique(labels)) < 2:  # always right, or never: the prior knows
        weighing[1] = 1.0
    else:
        model = LogisticRegression(C=1.0, fit_intercept=False, max_iter=2000)
        model.fit(rows[places][:, there], labels, sample_weight=weights)
        weighing[there] = model.coef_[0]
    found = tuple(weighing.tolist())
    return found, np.array([mixed(found, *row) for row in _given(*columns)])


def _bins(by: Array) -> list[Any]:
    """The places of as many questions each, in the order of ``by``."""
    return np.array_split(np.argsort(by, kind="stable"), min(BINS, len(by)))


def _chances(by: Array, worth: Array, price: float) -> list[Array]:
    """For each bin what drafting is worth, for every value of GRID that one would have otherwise."""
    return [np.maximum(worth[bin][:, None], GRID).mean(axis=0) - price for bin in _bins(by)]


def _worth(chance: Array) -> float:
    """The value at which one would as soon have it for sure: the highest that trying is not below."""
    fine = np.flatnonzero(chance >= GRID - 1e-12)
    return float(GRID[fine[-1]]) if len(fine) else float(GRID[0])


def _drafting(prior: Array, worth: Array, price: float) -> list[float]:
    return [_worth(chance) for chance in _chances(prior, worth, price)]


def _looking(prior: Array, looks: Array, chances: Sequence[Array], price: float) -> list[float]:
    """What to look first is worth: then it drafts only where that is better than what one has otherwise."""
    best = np.empty((len(looks), len(GRID)))
    for bin, chance in zip(_bins(looks), chances, strict=True):
        best[bin] = np.maximum(chance, GRID)
    return [_worth(best[bin].mean(axis=0) - price) for bin in _bins(prior)]


def _curve(by: Array, values: Sequence[float]) -> Curve:
    """A rising curve through the bins' means."""
    from sklearn.isotonic import IsotonicRegression

    middle = np.array([by[bin].mean() for bin in _bins(by)])
    rising = IsotonicRegression().fit_transform(middle, np.asarray(values))
    xs, first = np.unique(np.round(middle, 5), return_index=True)
    return tuple(xs.tolist()), tuple(np.round(rising[first], 5).tolist())
