"""An engine without a model that does as a measured one did: as often right, as sure of itself, by kinds of questions.

A question's kind is its first word. Whether an answer is right follows from how hard the question is, which is the
same for everybody, and from the agent: a Gaussian copula of one factor (Li 2000, "On Default Correlation"). How sure
the agent is comes from what it said of right and of wrong answers of that kind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from statistics import NormalDist
from struct import Struct
from typing import Any

from agents.engines.base import Setup
from agents.engines.scripted import ScriptedEngine
from agents.errors import ConfigError, QueryError
from agents.messages import Request, ScoreRequest, Scores

RIGHT, WRONG = "right", "wrong"
_NORMAL, _TWO = NormalDist(), Struct("<2Q")


@dataclass(frozen=True, slots=True)
class Kind:
    """How an agent fares with one kind of question.

    ``bar`` is what the sum of how hard a question is and of the agent's own luck must be below for it to be right, in
    deviations. ``sure`` and ``unsure`` are evenly spaced quantiles, rising, of its own probability of being right:
    where it is, and where it is not.
    """

    bar: float
    sure: tuple[float, ...]
    unsure: tuple[float, ...]


class MeasuredEngine(ScriptedEngine):
    """Answers ``right`` or ``wrong``, and is as sure of it as was measured; all chance follows from names and texts.

    Args:
        kinds: {kind: {"right": share, "sure": [p, ...], "unsure": [p, ...]}}, see ``Kind``.
        shared: how much of what decides whether an answer is right is the question's, in [0, 1].
        look: tokens that one look at a question takes.
        others: as for ``scripted``; ``refuse`` and ``confidence`` follow from ``kinds``.

    Raises:
        ConfigError: an option is wrong.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        kinds: Mapping[str, Mapping[str, Any]],
        shared: float = 0.5,
        look: int = 1,
        pieces: int = 2,
        **others: Any,
    ) -> None:
        for name in ("answer", "refuse", "confidence"):
            if name in others:
                raise ConfigError(f"measured engine of {setup.agent!r}: {name} follows from kinds; leave it out")
        super().__init__(setup, pieces=pieces, **others)
        self.kinds = {kind: self._kind(kind, figures) for kind, figures in kinds.items()}
        if not self.kinds:
            raise ConfigError(f"measured engine of {setup.agent!r}: kinds is empty; it must tell of one kind at least")
        if not isinstance(shared, int | float) or not 0 <= shared <= 1:
            raise ConfigError(f"measured engine of {setup.agent!r}: shared is {shared!r}, it must be in [0, 1]")
        if not isinstance(look, int) or look < 1:
            raise ConfigError(f"measured engine of {setup.agent!r}: look is {look!r}, it must be at least 1")
        self.shared, self.own, self.look = math.sqrt(shared), math.sqrt(1 - shared), look
        self._drawn: tuple[str, tuple[bool, float]] = ("", (False, 0.0))

    def scores(self, request: ScoreRequest) -> Scores:
        return Scores(super().scores(request).logprobs, self.look)

    def draw(self, text: str) -> tuple[bool, float]:
        """Whether this agent's answer to a question is right, and how likely it finds that."""
        if text == self._drawn[0]:
            return self._drawn[1]
        kind = self.kinds.get(text.partition(" ")[0])
        if kind is None:
            raise QueryError(f"query: {text[:40]!r} is of none of the kinds {', '.join(self.kinds)}")
        luck, sure = _uniform(f"{self.setup.seed}:{self.setup.agent}:{text}")
        right = self.shared * _hardness(text) + self.own * _NORMAL.inv_cdf(luck) < kind.bar
        self._drawn = text, (right, _quantile(kind.sure if right else kind.unsure, sure))
        return self._drawn[1]

    def _answer(self, request: Request) -> str:
        return RIGHT if self.draw(request.messages[-1].content)[0] else WRONG

    def _log_confidence(self, request: Request | ScoreRequest) -> float:
        return math.log(max(self.draw(request.messages[-1].content)[1], 1e-9))

    def _kind(self, name: str, figures: Mapping[str, Any]) -> Kind:
        where = f"measured engine of {self.setup.agent!r}: kinds[{name!r}]"
        if not isinstance(figures, Mapping) or {*figures} != {"right", "sure", "unsure"}:
            raise ConfigError(f"{where} is {figures!r:.80}, it must have right, sure and unsure")
        right = figures["right"]
        if not isinstance(right, int | float) or not 0 <= right <= 1:
            raise ConfigError(f"{where}: right is {right!r}, it must be in [0, 1]")
        for key in ("sure", "unsure"):
            _check_quantiles(figures[key], f"{where}: {key}")
        bar = _NORMAL.inv_cdf(right) if 0 < right < 1 else math.copysign(math.inf, right - 0.5)
        return Kind(bar, tuple(figures["sure"]), tuple(figures["unsure"]))


def _check_quantiles(values: Any, where: str) -> None:
    fine = isinstance(values, Sequence) and len(values) > 1
    fine = fine and all(isinstance(p, int | float) and 0 <= p <= 1 for p in values)
    if not fine or any(after < before for before, after in pairwise(values)):
        raise ConfigError(f"{where} is {values!r:.80}, it must be at least two probabilities that rise")


@lru_cache(maxsize=4096)
def _hardness(text: str) -> float:
    """How hard a question is, in deviations from the usual."""
    return _NORMAL.inv_cdf(_uniform(text)[0])


def _uniform(text: str) -> tuple[float, float]:
    """Two numbers in (0, 1) that follow from a text, each of 52 bits."""
    first, second = _TWO.unpack(blake2b(text.encode(), digest_size=16).digest())
    return ((first >> 12) + 0.5) / 2**52, ((second >> 12) + 0.5) / 2**52


def _quantile(values: tuple[float, ...], share: float) -> float:
    """Where ``share`` of a distribution lies below, on lines between its quantiles."""
    place = share * (len(values) - 1)
    low = int(place)
    return values[low] + (place - low) * (values[min(low + 1, len(values) - 1)] - values[low])
