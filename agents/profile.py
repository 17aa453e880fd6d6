"""Profiles: what an agent knows of itself beforehand, and tells those who may forward to it. Pure.

From a question's text alone follows how likely the agent is right (``prior``), and from that what it is worth to ask it
(``value``): its reservation value, at which one would as soon have that much for sure as go and see what it can do
(Weitzman 1979, "Optimal Search for the Best Alternative"). Each agent learns its own from its own record, so that
nobody has to learn anything anew when another one comes or goes.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from msgspec import DecodeError, Struct, ValidationError
from msgspec import json as codec

from agents.errors import ConfigError
from agents.offers import logit, sigmoid

BUCKETS = 8192  # of hashed features, a byte each
MOST = 2000  # characters of a text that are read, half of them from either end
GRAM, ENDS, LONG = 4, 6, 32

Curve = tuple[tuple[float, ...], tuple[float, ...]]  # knots: p, and the value there


@lru_cache(maxsize=4096)
def features(text: str) -> tuple[int, ...]:
    """What stands in a text, where, and how often, as numbers below ``BUCKETS``: character n-grams, its length, the
    characters at either end, and how many of each there are; these also together with its first word.
    """
    text = text.lower()
    if len(text) > MOST:
        text = text[: MOST // 2] + text[-MOST // 2 :]
    ends = f"^{text}$"
    word = text.split()[0] if text[:1].isalpha() else "".join("0" if c.isdigit() else c for c in text[:ENDS])
    size = size_of(text)
    found = {ends[i : i + n] for n in range(1, GRAM + 1) for i in range(len(ends) - n + 1)}
    found |= {f"size {size}", f"{word} size {size}", f"{word} kinds {len(set(text))} {size}"}
    for character in set(text):
        count = min(text.count(character), LONG)
        found |= {f"{character} times {count}", f"{word} {character} times {count}"}
    for i in range(min(ENDS, len(text))):
        found |= {f"{word} {i} {text[i]}", f"{word} {-1 - i} {text[-1 - i]}"}
    return tuple(sorted({zlib.crc32(each.encode()) % BUCKETS for each in found}))


def weighed(text: str, weights: bytes, scale: float, bias: float) -> float:
    """A probability that is logistic in the weights of a text's features, see ``Profile``."""
    found = features(text)
    total = sum(weights[number] for number in found) - 128 * len(found)
    return sigmoid(bias + scale * total / math.sqrt(len(found)))


def size_of(text: str) -> int:
    """Its length, on a scale that is logarithmic from ``LONG`` characters on."""
    return len(text) if len(text) <= LONG else LONG + round(2 * math.log2(len(text) / LONG))


class Profile(Struct, frozen=True, gc=False):
    """One agent's profile.

    The prior is logistic in the mean weight of a text's features, weighed by the root of their number: ``weights`` are
    ``BUCKETS`` bytes, each less 128 and times ``scale``. ``looked``, ``drafted`` and ``both`` mix the prior with what
    the agent says of itself before it drafts, of its draft, or both (``mixed``).

    Values are by ``alphas``, a curve each: of letting it draft at once, or look first, by the prior (without looks:
    none), and what it is worth once it has looked, by the mixed probability. ``price`` is what an answer costs once it
    is there, ``work`` what drafting does, both times alpha. ``agreed`` weighs what drafts tell of each other (see
    ``agents.offers.Ballots``; empty: nothing).
    """

    weights: bytes
    scale: float
    bias: float
    looked: tuple[float, ...]
    drafted: tuple[float, ...]
    both: tuple[float, ...]
    alphas: tuple[float, ...]
    drafting: tuple[Curve, ...]
    looking: tuple[Curve, ...]
    after: tuple[Curve, ...]
    price: float
    work: float = 0.0
    agreed: tuple[float, ...] = ()

    def prior(self, text: str) -> float:
        """How likely its answer to this is right."""
        return weighed(text, self.weights, self.scale, self.bias)

    def value(self, prior: float, alpha: float) -> tuple[float, bool]:
        """What it is worth to ask it, and whether it should look first."""
        draft = self._at(self.drafting, prior, alpha)
        look = self._at(self.looking, prior, alpha) if self.looking else -math.inf
        return max(draft, look), look > draft

    def once_looked(self, prior: float, p: float | None, alpha: float) -> tuple[float, float]:
        """What it is worth once it has looked and says ``p`` (None: it refused), and how likely it then is right."""
        sure = mixed(self.looked, prior, p)
        return self._at(self.after, sure, alpha), sure

    def once_drafted(self, prior: float, p: float | None) -> float:
        """How likely its draft is right, of which it says ``p``."""
        return mixed(self.drafted, prior, p)

    def once_both(self, prior: float, looked: float | None, p: float | None) -> float:
        """How likely its draft is right, of which it says ``p``, and said ``looked`` before there was one."""
        return mixed(self.both, prior, looked, p)

    def _at(self, curves: tuple[Curve, ...], p: float, alpha: float) -> float:
        return between(self.alphas, curves, alpha, lambda curve: height(curve, p))

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a file. Raises ConfigError that names it, and the key."""
        try:
            profile = codec.decode(Path(path).read_bytes(), type=cls)
        except (OSError, DecodeError, ValidationError) as error:
            raise ConfigError(f"profile {path}: {error}") from error
        curves = {len(profile.alphas), len(profile.drafting), len(profile.after), len(profile.looking or profile.after)}
        right = len(profile.weights) == BUCKETS and len(curves) == 1 and profile.alphas
        if not right or len(profile.agreed) not in (0, 4):
            raise ConfigError(
                f"profile {path}: it must have {BUCKETS} weights, a curve of each kind for each alpha, and for "
                "what drafts tell of each other four weights or none"
            )
        return profile

    def written(self) -> bytes:
        """The file that ``load`` reads: JSON."""
        return codec.encode(self) + b"\n"


def mixed(weights: tuple[float, ...], *given: float | None) -> float:
    """Several probabilities of one thing made one: logistic in their log-odds, which ``basis`` bends."""
    return sigmoid(sum(weight * value for weight, value in zip(weights, basis(*given), strict=True)))


def basis(*given: float | None) -> list[float]:
    """What ``mixed`` weighs: one, and of each probability its log-odds, those above 0 and above 3, and whether there is
    none.
    """
    found = [1.0]
    for p in given:
        odds = 0.0 if p is None else logit(p)
        found += [odds, max(odds, 0.0), max(odds - 3, 0.0), float(p is None)]
    return found


def height(curve: Curve, x: float) -> float:
    """The height at ``x`` of a line through knots, flat beyond its ends."""
    xs, ys = curve
    i = bisect_right(xs, x)
    if i in (0, len(xs)):
        return ys[max(i - 1, 0)]
    weight = (x - xs[i - 1]) / (xs[i] - xs[i - 1])
    return ys[i - 1] * (1 - weight) + ys[i] * weight


def between(
    alphas: tuple[float, ...], curves: tuple[Curve, ...], alpha: float, value: Callable[[Curve], float]
) -> float:
    """What curves, one for each of ``alphas``, are worth at ``alpha``: on a line between the two that are nearest."""
    return sum(share * value(curves[place]) for place, share in near(alphas, alpha))


@lru_cache(maxsize=256)
def near(alphas: tuple[float, ...], alpha: float) -> tuple[tuple[int, float], ...]:
    """The places of the two of ``alphas`` between which ``alpha`` lies, and how near each is, in all 1; beyond all of
    them, and at one of them, that one alone.
    """
    above = bisect_right(alphas, alpha)
    if above in (0, len(alphas)):
        return ((max(above - 1, 0), 1.0),)
    weight = (alpha - alphas[above - 1]) / (alphas[above] - alphas[above - 1])
    return tuple((place, share) for place, share in ((above - 1, 1 - weight), (above, weight)) if share > 0)
