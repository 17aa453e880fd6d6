"""What a choice earns an agent in training. Rewards are local: they know nothing of other agents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Choice:
    """What an agent did with a question at a preference.

    ``tokens`` is how much it wrote; ``competence`` is the share of its own samples that were right before training.
    """

    right: bool
    refused: bool
    alpha: float
    tokens: int = 0
    competence: float = 0.0


class Reward(Protocol):
    """What a choice is worth."""

    def __call__(self, choice: Choice) -> float: ...


@dataclass(frozen=True, slots=True)
class Localized:
    """1 for a right answer, 0 for a wrong one, (1 - alpha) ** gamma for a refusal: so it pays to answer where one's
    chance to be right is above that (DiSRouter, section 3.4).
    """

    gamma: float = 0.5

    def __call__(self, choice: Choice) -> float:
        return float((1 - choice.alpha) ** self.gamma) if choice.refused else float(choice.right)


@dataclass(frozen=True, slots=True)
class SuccessGated:
    """As ``Localized``, but a right answer earns less the longer it is: 1 - min(k * tokens, cap). What is wrong earns
    nothing however short it is, so that brevity never pays by itself.
    """

    gamma: float = 0.5
    k: float = 0.001
    cap: float = 0.5

    def __call__(self, choice: Choice) -> float:
        if choice.refused:
            return float((1 - choice.alpha) ** self.gamma)
        return choice.right * (1 - min(self.k * choice.tokens, self.cap))


@dataclass(frozen=True, slots=True)
class Boundary:
    """What the choice earned above always answering and always refusing, whichever is better on this question, in units
    of how far these two are apart (at least ``floor``): questions on which the choice is close weigh more.
    """

    gamma: float = 0.5
    floor: float = 0.1

    def __call__(self, choice: Choice) -> float:
        refusing = float((1 - choice.alpha) ** self.gamma)
        earned = refusing if choice.refused else float(choice.right)
        best, apart = max(refusing, choice.competence), abs(refusing - choice.competence)
        return (earned - best) / max(apart, self.floor)


REWARDS: dict[str, type[Reward]] = {"localized": Localized, "success_gated": SuccessGated, "boundary": Boundary}
