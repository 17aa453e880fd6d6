"""What is missing to the oracle, by the price of answers: information, calibration, and policy.

The oracle knows what is right. Whoever knows only what agents say of themselves does worse, however well that is read
(information): that is measured by trees that read all of it at once, cross-fitted on the reported questions. Reading it
as it was meant costs more (calibration), and asking one after the other, instead of all at once, the rest (policy).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from agents.offers import Ballots, Offer, comes_to, logit
from agents.profile import Profile, mixed
from benchmarks.outcomes import Floats, Outcomes, Routed

FOLDS = 5


def sureness(outcomes: Outcomes, profiles: Mapping[str, Profile], alpha: float) -> Floats:
    """How sure each agent is of its answer to each question, (A, Q), once it knows all that it can of itself, and what
    everybody has drafted where that tells it something.
    """
    found = np.empty_like(outcomes.right)
    for at, name in enumerate(outcomes.agents):
        profile = profiles[name]
        for number, question in enumerate(outcomes.questions):
            prior = profile.prior(question.text)
            draft, looked = outcomes.drafted(at, number), outcomes.looked(at, number, alpha)
            given = (profile.both, prior, looked, draft) if profile.looking else (profile.drafted, prior, draft)
            found[at, number] = mixed(*given)
    if not any(profile.agreed for profile in profiles.values()):
        return found
    joint = np.empty_like(found)
    for number in range(len(outcomes)):
        offers = [
            Offer(name, found[at, number], said=comes_to(outcomes.texts[at][number]))
            for at, name in enumerate(outcomes.agents)
        ]
        for at, offer in enumerate(offers):
            joint[at, number] = Ballots(profiles[offer.agent].agreed, offers).worth(offer, alpha)
    return joint


def missing(outcomes: Outcomes, p: Floats, found: Routed, alpha: float, seed: int = 0) -> dict[str, float]:
    """Mean utilities, and their differences: what ``information``, ``calibration`` and ``policy`` cost.

    Args:
        p: (A, Q), what agents say of themselves.
        found: what became of the questions.
    """
    worth, everyone = outcomes.utilities(alpha), np.arange(len(outcomes))

    def best(sure: Floats) -> float:
        chosen = (sure - alpha * outcomes.costs[:, None]).argmax(axis=0)
        return float(worth[chosen, everyone].mean())

    oracle, known, said = float(worth.max(axis=0).mean()), best(_well_read(outcomes.right, p, seed)), best(p)
    got = float(found.utility(alpha).mean())
    known = max(known, said)  # trees of few questions may read worse than was meant
    return {
        "oracle": oracle,
        "all at once, well read": known,
        "all at once": said,
        "got": got,
        "information": oracle - known,
        "calibration": known - said,
        "policy": said - got,
    }


def _well_read(right: Floats, p: Floats, seed: int) -> Floats:
    """The probability that each agent is right given what all say, (A, Q), of questions that the trees did not see."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    rows = np.vectorize(logit)(p).T
    fold = np.random.default_rng(seed).integers(0, FOLDS, len(rows))
    read = np.empty_like(p)
    for at in range(len(p)):
        for number in range(FOLDS):
            held = fold == number
            if held.any():
                model: Any = HistGradientBoostingRegressor(
                    max_leaf_nodes=8, learning_rate=0.05, early_stopping=True, random_state=seed
                ).fit(rows[~held], right[at][~held])
                read[at, held] = model.predict(rows[held])
    return read
