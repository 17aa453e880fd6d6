"""What agents found out about a query that may come back to them, and what their drafts tell of each other. Pure.

Agents that draft the same have rarely made the same mistake. So an answer is the likelier the more of those who asked
themselves came to it, and the surer they are; it is the less likely the surer they are who came to another one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

LEAST = 1e-4  # no probability is nearer to 0 or 1
SHOWN = 40  # characters that an answer comes to, at most
_LETTER = re.compile(r"\(?([A-J])\)?(?:[.:)\s]|$)")  # of a choice that an answer begins with


class Offer(Struct, frozen=True, gc=False):
    """What an agent makes of a query if it comes back.

    ``said`` is what its draft comes to, ``sure`` how likely that is right, ``price`` what to give it costs, times
    alpha. An agent that has not drafted has said nothing (None), and ``sure`` is then the utility of going on there.
    """

    agent: str
    sure: float
    price: float = 0.0
    said: str | None = None


def comes_to(text: str) -> str:
    """What an answer comes to, so that two can be compared: the letter of a choice that it begins with, or else the
    last word of its last line.
    """
    text = text.strip()
    if letter := _LETTER.match(text):
        return letter[1].casefold()
    words = text.rpartition("\n")[2].split()
    return words[-1].strip(".,;:!?*$()'\"").casefold()[-SHOWN:] if words else ""


class Ballots:
    """The drafts that are known of one query, and how likely each answer is, given all of them.

    The log-odds of an answer are ``weights`` (four) times: 1; the log-odds of who is surest of it; the evidence for it,
    which is the sum of -log(1 - p) over all who gave it; and the evidence for other answers, less. Without weights each
    draft stands for itself.
    """

    def __init__(self, weights: Sequence[float], offers: Iterable[Offer]) -> None:
        self._weights = weights
        self._found: dict[str, tuple[float, float]] = {}  # by answer: log-odds of the surest, evidence
        self._all = 0.0
        for offer in offers:
            if offer.said is not None:
                self._found[offer.said] = self._joined(offer.said, offer.sure)
                self._all += evidence(offer.sure)

    def worth(self, offer: Offer, alpha: float) -> float:
        """The utility of taking an offer, one of those given."""
        if offer.said is None:
            return offer.sure
        p = self._p(*self._found[offer.said]) if self._weights else offer.sure
        return p - alpha * offer.price

    def gain(self, best: Offer, p: float, price: float, work: float, alpha: float) -> float:
        """What it adds to the ``best`` offer, in utility, to have one more agent draft, which is right with probability
        ``p``: where both are right it says the same, and the cheaper one answers; else it says something else.

        Args:
            price, work: what its answer, and what drafting costs, times alpha.
        """
        if not self._weights or best.said is None:
            return -math.inf
        now, same = self._found[best.said], self._joined(best.said, p)
        told, likely = evidence(p), self._p(*now)
        agreed = self._p(*same, told) - alpha * min(price, best.price)
        kept = self._p(*now, told) - alpha * best.price
        other = self._p(logit(p), told, told) - alpha * price
        both = likely * p
        return both * agreed + (1 - both) * max(kept, other) - (likely - alpha * best.price) - alpha * work

    def shown(self, offer: Offer) -> tuple[float, float, float, float]:
        """What speaks for the answer of an offer, one of those given that have one: what is weighed."""
        assert offer.said is not None
        return self._shown(*self._found[offer.said])

    def _joined(self, said: str, p: float) -> tuple[float, float]:
        surest, told = self._found.get(said, (-math.inf, 0.0))
        return max(surest, logit(p)), told + evidence(p)

    def _shown(self, surest: float, told: float, more: float = 0.0) -> tuple[float, float, float, float]:
        return 1.0, surest, told, -(self._all + more - told)

    def _p(self, surest: float, told: float, more: float = 0.0) -> float:
        """How likely an answer is; ``more`` evidence than is known was found, for it or another one."""
        shown = self._shown(surest, told, more)
        return sigmoid(sum(weight * value for weight, value in zip(self._weights, shown, strict=True)))


def evidence(p: float) -> float:
    """What a draft of which somebody is sure by ``p`` tells: the information of its being wrong, in nats."""
    return -math.log(1 - min(max(p, LEAST), 1 - LEAST))


def sigmoid(x: float) -> float:
    """The probability that has these log-odds."""
    return 0.5 + 0.5 * math.tanh(0.5 * x)


def logit(p: float) -> float:
    """Log-odds, of a probability kept away from 0 and 1."""
    p = min(max(p, LEAST), 1 - LEAST)
    return math.log(p / (1 - p))
