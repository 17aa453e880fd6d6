"""What a policy sees and what it may decide."""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import Struct

from agents.errors import ConfigError
from agents.messages import Card, Outcome
from agents.offers import Offer


class View(Struct, frozen=True):
    """All that one agent knows about one query.

    ``confidence`` is the calibrated probability that the agent's own answer would be right (None where its
    assessor gives none), ``refused`` whether it said the refusal sentence. ``neighbours`` are those it may
    forward to, in the topology's order: none that is down, visited, too dear or too short of context.
    ``budget`` is what is left of ``max_cost`` (None: unbounded). Whatever a policy does at random follows from
    ``seed``, which is the query's and the agent's. ``id`` is the query's; its outcome names it by
    ``given_id``.

    The rest is for policies that are ``staged``: whether the agent has ``looked``, what it has drafted (None: nothing)
    and how sure it is of that (``drafted``); ``text`` is the question, ``offers`` are what others found out, and what
    this agent did when it passed the query on; those before it are of agents to whom it may go back. ``aside`` says
    that the agent is asked beside others: then it answers by itself or not at all. ``together`` says that it has asked
    others at once, of whom ``asked`` still work and ``votes`` are the answers of those who have answered.
    """

    agent: Card
    alpha: float
    confidence: float | None
    refused: bool
    neighbours: tuple[Card, ...]
    budget: float | None = None
    seed: int = 0
    looked: bool = True
    draft: str | None = None
    text: str = ""
    offers: tuple[Offer, ...] = ()
    drafted: float | None = None
    id: str = ""
    aside: bool = False
    together: bool = False
    asked: tuple[str, ...] = ()
    votes: tuple[Offer, ...] = ()


class Look(Struct, frozen=True):
    """Assess oneself, then decide again; for policies that are ``staged``."""


class Draft(Struct, frozen=True):
    """Draft the answer, and judge it where the agent can; then decide again. For policies that are ``staged``."""


class Ask(Struct, frozen=True):
    """Have ``peers`` of the view's neighbours begin, all at once, and go on with ``then``, or wait for them where that
    is None. For policies that are ``staged``, once a query.

    With ``vote`` they say what they would answer, or that they would not; else they begin for the case that the query
    is forwarded to one of them. The policy decides again as each has answered, and ``within_s`` later at the latest.
    """

    peers: tuple[str, ...]
    then: Look | Draft | None = None
    vote: bool = False
    within_s: float = 30.0


class Wait(Struct, frozen=True):
    """Wait for more of those who were asked at once."""


class Answer(Struct, frozen=True):
    """Answer it oneself."""


class Forward(Struct, frozen=True):
    """Forward it to ``peer``, one of the view's neighbours; with ``offers``, the peer may hand it back if it cannot
    do better than these.
    """

    peer: str
    offers: tuple[Offer, ...] = ()


class Decline(Struct, frozen=True):
    """Nobody from here on should answer it: it is handed back, with all ``offers``, to those who made some, or to the
    caller where that one allows it, with the ``reason``; else the agent must answer.
    """

    offers: tuple[Offer, ...] = ()
    reason: str = ""


Decision: TypeAlias = Look | Draft | Ask | Wait | Answer | Forward | Decline


class Policy:
    """One decision rule. ``assesses`` is False where the decision needs no self-assessment,
    ``needs_probability`` True where it needs a confidence, ``learns`` True where it wants outcomes, ``staged`` True
    where it decides before there is any assessment, and asks for what it wants to know.
    """

    assesses: bool = True
    staged: bool = False
    needs_probability: bool = False
    learns: bool = False

    def decide(self, view: View) -> Decision:
        """Decide about one query; the same view gives the same decision."""
        raise NotImplementedError

    def learn(self, outcome: Outcome) -> None:
        """Hear what became of a query that went through this agent."""

    def status(self) -> dict[str, Any]:
        """Facts for ``mesh status``; JSON."""
        return {}


def pass_on(view: View) -> Decision:
    """Forward to the topology's first choice; decline where there is nobody."""
    return Forward(view.neighbours[0].name) if view.neighbours else Decline()


def number(what: str, value: float, low: float, high: float = float("inf"), above: bool = False) -> float:
    """An option of a policy, where it is a number from ``low`` (``above``: above it) to ``high``.

    Args:
        what: policy and option, as an error names them.

    Raises:
        ConfigError: it is none, or out of bounds; says what it must be.
    """
    a_number = isinstance(value, int | float) and not isinstance(value, bool)
    if a_number and low <= value <= high and (value > low or not above):
        return value
    lowest = f"{'above' if above else '>='} {low:g}"
    bounds = f"in {'(' if above else '['}{low:g}, {high:g}]" if high < float("inf") else lowest
    raise ConfigError(f"policy {what} is {value!r}, it must be a number {bounds}")
