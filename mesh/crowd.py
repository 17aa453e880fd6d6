"""A crowd of agents to simulate: each does as one that was measured did, give or take a little."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from agents.engines.base import Setup
from agents.errors import ConfigError
from agents.messages import Card
from agents.node import Settings
from agents.offers import logit, sigmoid
from agents.spec import AgentSpec, Plugin

READY = ("lab", "nine_models")
PIECES = 2  # of an answer: with two words of a question that is WORK
WORK = 2 + 4 * PIECES
SETTINGS = Settings(prompt="plain", running=8, waiting=32, stall_s=5.0)


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of some agents; see ``benchmarks/measured.py``, which writes it.

    ``shared`` is how much of what decides whether an answer is right is the question's; ``look`` what a look at a
    question costs beside an answer; ``agents`` are {name: {"cost": ..., "kinds": {kind: figures}}}, whose kinds are
    those of ``agents.engines.measured``.
    """

    shared: float
    look: float
    agents: Mapping[str, Mapping[str, Any]]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of questions that they were asked."""
        return tuple(next(iter(self.agents.values()))["kinds"])

    @classmethod
    def load(cls, source: str) -> Figures:
        """Those of a name in ``READY``, or in a file.

        Raises:
            ConfigError: there is no such file, or it holds something else.
        """
        path = Path(str(files("mesh"))) / "measured" / f"{source}.json" if source in READY else Path(source)
        try:
            read = json.loads(path.read_text(encoding="utf-8"), object_hook=_frozen)
            found = cls(float(read["shared"]), float(read["look"]), read["agents"])
            priced = all(0 < agent["cost"] <= 1 and agent["kinds"] for agent in found.agents.values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            told = f"figures {source!r}: one of {', '.join(READY)}, or a file that `mesh bench measured` wrote"
            raise ConfigError(f"{told} ({error!r})") from error
        if not found.agents or not priced:
            raise ConfigError(f"figures {source!r}: every agent must have a cost in (0, 1], and kinds")
        return found


def _frozen(found: dict[str, Any]) -> dict[str, Any]:
    """Quantiles as tuples, which all agents then share."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}


@dataclass(frozen=True, slots=True)
class Crowd:
    """How agents are drawn: like ``figures``, each with ``policy``, and a share ``fail`` of whose drafts breaks off."""

    figures: Figures
    policy: Plugin = ("reliability", {})
    fail: float = 0.0
    seed: int = 0
    settings: Settings = SETTINGS
    tick_s: float = 1.0

    def draw(self, count: int) -> dict[str, AgentSpec]:
        """So many, by rising cost."""
        rng = random.Random(f"crowd:{self.seed}")
        models = list(self.figures.agents.values())
        drawn = sorted((self._drawn(models[rank % len(models)], rng) for rank in range(count)), key=lambda one: one[0])
        width = len(str(count - 1))
        return {
            name: self.spec(name, cost, kinds)
            for name, (cost, kinds) in ((f"agent-{rank:0{width}}", one) for rank, one in enumerate(drawn))
        }

    def another(self, name: str) -> AgentSpec:
        """One more; the same name is drawn alike."""
        rng = random.Random(f"another:{self.seed}:{name}")
        return self.spec(name, *self._drawn(rng.choice(list(self.figures.agents.values())), rng))

    def spec(self, name: str, cost: float, kinds: Mapping[str, Any]) -> AgentSpec:
        """An agent of this price: the dearer, the slower."""
        engine = {"kinds": kinds, "shared": self.figures.shared, "look": max(1, round(self.figures.look * WORK))}
        engine |= {"pieces": PIECES, "fail": self.fail, "score_s": 0.02 + 0.08 * cost}
        engine |= {"delay_s": 0.05 + 0.2 * cost, "piece_s": 0.1 + 0.4 * cost}
        card, setup = Card(name, cost, mean_work=float(WORK)), Setup(name, seed=self.seed)
        assessor: Plugin = ("first_token", {})
        return AgentSpec(card, setup, ("measured", engine), self.policy, assessor, self.settings, tick_s=self.tick_s)

    def _drawn(self, model: Mapping[str, Any], rng: random.Random) -> tuple[float, dict[str, Any]]:
        """A price within a tenth or so of the model's, and log-odds of being right that differ by .3 or so."""
        cost = min(1.0, max(0.01, model["cost"] * math.exp(rng.gauss(0, 0.1))))
        better = rng.gauss(0, 0.3)
        kinds = {
            kind: {**figures, "right": sigmoid(logit(figures["right"]) + better)}
            for kind, figures in model["kinds"].items()
        }
        return round(cost, 6), kinds
