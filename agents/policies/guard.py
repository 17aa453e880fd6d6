"""A guard before a policy: what nobody here can answer is told at the entry, before anybody works on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import DecodeError, Struct, ValidationError
from msgspec import json as codec

from agents.errors import ConfigError
from agents.messages import Outcome
from agents.policies.base import Decision, Decline, Look, Policy, View
from agents.profile import BUCKETS, weighed


class Screen(Struct, frozen=True):
    """Whether a text is of a sort that a pool can and may answer: logistic in the mean weight of its features, as the
    prior of a ``Profile``; it is let in from ``bar`` on. ``training.guard`` learns it.
    """

    weights: bytes
    scale: float
    bias: float
    bar: float

    def inside(self, text: str) -> float:
        """How likely it is one."""
        return weighed(text, self.weights, self.scale, self.bias)

    @classmethod
    def load(cls, path: str | Path) -> Screen:
        """Read a file. Raises ConfigError that names it."""
        try:
            screen = codec.decode(Path(path).read_bytes(), type=cls)
        except (OSError, DecodeError, ValidationError) as error:
            raise ConfigError(f"guard {path}: {error}") from error
        if len(screen.weights) != BUCKETS or not 0 <= screen.bar <= 1:
            raise ConfigError(f"guard {path}: it must have {BUCKETS} weights, and a bar in [0, 1]")
        return screen

    def written(self) -> bytes:
        """The file that ``load`` reads: JSON."""
        return codec.encode(self) + b"\n"


class Guard(Policy):
    """Decline what the ``screen`` keeps out, and leave all else to another policy. Where the caller does not allow that
    anything is declined, the agent answers it itself, as it must: nobody dearer is asked, and the reply's last hop is
    marked as out of domain (GQR-Bench: a router must tell the queries that it can route from those that it must not).

    Args:
        screen: what it goes by; None: nothing is kept out.
        policy, options: of all else, a name in ``POLICIES``.

    Raises:
        ConfigError: the policy is unknown, or an option of it is wrong.
    """

    staged = True

    def __init__(
        self, screen: Screen | None = None, policy: str = "reliability", options: Mapping[str, Any] = {}
    ) -> None:
        from agents.policies import POLICIES

        if policy == "guard" or policy not in POLICIES:
            raise ConfigError(f"policy guard: policy is {policy!r}, it must be another one of {', '.join(POLICIES)}")
        self.screen = screen
        try:
            self.rule = POLICIES[policy](**options)
        except TypeError as error:
            raise ConfigError(f"policy guard: options of {policy!r}: {error}") from None
        self.needs_probability, self.learns = self.rule.needs_probability, self.rule.learns

    def decide(self, view: View) -> Decision:
        fresh = not view.looked and view.draft is None
        if fresh and self.screen is not None and self.screen.inside(view.text) < self.screen.bar:
            return Decline(reason="out of domain")
        if not self.rule.staged and self.rule.assesses and not view.looked:
            return Look()
        return self.rule.decide(view)

    def learn(self, outcome: Outcome) -> None:
        self.rule.learn(outcome)

    def status(self) -> dict[str, Any]:
        return self.rule.status()
