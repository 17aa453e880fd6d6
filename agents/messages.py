"""What agents, owners and engines say to each other: frozen values, nothing else.

They are msgspec structs: each hop makes and packs a dozen, which as dataclasses took ten times as long.

A shell (Ray, asyncio, virtual time) turns every outcome into an *event*, gives it to a ``Node`` or an
``Owner`` and performs the *commands* that come back. ``Key`` = (query id, attempt) names one attempt.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import Struct

from agents.offers import Offer
from agents.profile import Profile

Key: TypeAlias = tuple[str, int]
Verdict: TypeAlias = Literal["answered", "refused", "declined", "failed", "cancelled"]
Finish: TypeAlias = Literal["stop", "length", "declined", "failed"]


class _Value(Struct, frozen=True, gc=False):
    """What every message is: it cannot change, so it is in no cycle that Python's collector would have to find."""


# ---------------------------------------------------------------------------------- values


class Message(_Value, frozen=True):
    """One chat message; ``role`` is system, user or assistant."""

    role: str
    content: str


class Card(_Value, frozen=True):
    """What an agent tells those who may forward to it.

    ``cost`` is its price per query in (0, 1]; ``mean_work`` the mean of ``prompt tokens + 4 * generated tokens`` over
    its validation answers; ``context`` the longest prompt plus answer it holds, in tokens; ``learns`` whether its
    policy wants outcomes; ``profile`` what it is good at, where it knows.
    """

    name: str
    cost: float
    mean_work: float = 500.0
    context: int = 1_000_000
    learns: bool = False
    profile: Profile | None = None

    def full_cost(self, prompt_tokens: int, generated_tokens: int) -> float:
        """Price of that much work by this agent: ``cost * (prompt + 4 * generated) / mean_work``."""
        return self.cost * (prompt_tokens + 4 * generated_tokens) / self.mean_work


class Hop(_Value, frozen=True):
    """One agent's part in a query.

    ``reason`` says why it failed (died, stalled, busy, ...), that it was ``forced`` to answer, or was ``not tried``.
    """

    agent: str
    verdict: Verdict
    confidence: float | None = None
    seconds: float = 0.0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    full_cost: float = 0.0
    reason: str = ""


class Query(_Value, frozen=True):
    """A query on its way. ``path`` holds the hops of this attempt; ``spent`` the full cost of earlier ones.

    ``remaining_s`` travels instead of a deadline, so that no two clocks need to agree. ``emitted`` is
    text that the caller has seen already and that the next agent continues. All that is random about a query
    follows from its ``seed`` and the agent's own, not from its id. To who made ``offers`` before it may come back.
    ``meshes`` are the names of other meshes that it has come through. Who is asked ``aside`` works beside others, see
    ``agents.beside``. Where a queue is full, the lowest ``priority`` gives way (0 low, 1 normal, 2 high).
    """

    id: str
    messages: tuple[Message, ...]
    alpha: float
    attempt: int = 1
    remaining_s: float = 120.0
    hops_left: int = 64
    max_tokens: int = 512
    max_cost: float | None = None
    spent: float = 0.0
    path: tuple[Hop, ...] = ()
    excluded: frozenset[str] = frozenset()
    emitted: str = ""
    must_answer: bool = False
    may_decline: bool = False
    seed: int = 0
    offers: tuple[Offer, ...] = ()
    meshes: tuple[str, ...] = ()
    aside: Literal["", "meanwhile", "vote"] = ""
    priority: int = 1

    @property
    def key(self) -> Key:
        return (self.id, self.attempt)


def given_id(query_id: str) -> str:
    """The caller's own id of a query: what stands before the "#" that makes it one of a kind."""
    return query_id.rpartition("#")[0] or query_id


class Reply(_Value, frozen=True):
    """The answer, who gave it, how the query got there, and what it cost.

    ``cost`` is the executing agent's price per query; ``full_cost`` prices all work done on the way,
    refused drafts and failed attempts included. ``first_token_s`` is None where nothing was streamed. ``alpha_used`` is
    what the answering agent decided by, above ``alpha`` only where a full one browned out. As all messages
    it is a msgspec struct: ``msgspec.to_builtins`` makes a dict of it, ``msgspec.structs.replace`` another one.
    """

    id: str
    text: str
    agent: str
    alpha: float
    cost: float
    full_cost: float
    path: tuple[Hop, ...]
    seconds: float
    first_token_s: float | None = None
    attempts: int = 1
    finish: Finish = "stop"
    alpha_used: float | None = None

    @property
    def confidence(self) -> float | None:
        """The answering agent's own estimate that it is right; None where it gave none."""
        return self.path[-1].confidence

    def __str__(self) -> str:
        steps = " → ".join(_describe(hop) for hop in self.path)
        took = f"cost {self.cost:.2f}, full cost {self.full_cost:.2f}, {self.seconds:.2f} s"
        return f"{self.text}\n\n[{steps}; {took}, alpha {self.alpha:g}]"


def _describe(hop: Hop) -> str:
    sure = "" if hop.confidence is None else f" p={hop.confidence:.2f}"
    why = f" ({hop.reason})" if hop.reason else ""
    return f"{hop.agent} {hop.verdict}{sure}{why}"


# ---------------------------------------------------------------------------------- engines


class Request(_Value, frozen=True):
    """What an engine is asked to generate. ``generation`` tells this draft from earlier ones of the same key.

    ``continued`` is the beginning of the answer, already emitted. ``ban`` is a sentence that must not be the answer
    (the refusal, where one must answer). ``max_work`` bounds ``prompt tokens + 4 * generated tokens``.
    """

    key: Key
    generation: int
    messages: tuple[Message, ...]
    max_tokens: int
    continued: str = ""
    ban: str = ""
    max_work: float | None = None
    temperature: float = 0.0
    seed: int = 0


class Piece(_Value, frozen=True):
    """A piece of a draft: new text, how many tokens it took and the sum of their log-probabilities.

    The first piece tells the prompt's tokens, the last one how the draft finished, and, where other agents made it,
    who did what (``hops``). ``logprob`` is None where the engine gives none.
    """

    text: str
    tokens: int = 1
    logprob: float | None = None
    prompt_tokens: int = 0
    finish: Literal["stop", "length"] | None = None
    hops: tuple[Hop, ...] = ()


class ScoreRequest(_Value, frozen=True):
    """Asks for the log-probability of each of ``continuations`` as the answer to ``messages``."""

    key: Key
    generation: int
    messages: tuple[Message, ...]
    continuations: tuple[str, ...]
    seed: int = 0


class Scores(_Value, frozen=True):
    """Log-probability of every continuation, and the prompt tokens that it took to know them."""

    logprobs: tuple[float, ...]
    prompt_tokens: int = 0


# ---------------------------------------------------------------------------------- events


class Asked(_Value, frozen=True):
    """Somebody asks this agent to route a query."""

    query: Query


class Drafted(_Value, frozen=True):
    """The engine gave the next piece of a draft."""

    key: Key
    generation: int
    piece: Piece


class Scored(_Value, frozen=True):
    """The engine answered a ``Judge`` command."""

    key: Key
    generation: int
    scores: Scores


class DraftFailed(_Value, frozen=True):
    """The engine raised; ``reason`` is failed, died, stalled, too_long or budget."""

    key: Key
    generation: int
    reason: str
    detail: str = ""


class Accepted(_Value, frozen=True, tag=True):
    """An agent has begun to answer: pull its pieces from it. ``hops`` leads up to it, without it."""

    key: Key
    agent: str
    hops: tuple[Hop, ...] = ()
    batch: Batch | None = None


class Rejected(_Value, frozen=True, tag=True):
    """An agent cannot serve a query (also not by others); ``hops`` and ``offers`` tell what was tried and found out."""

    key: Key
    agent: str
    reason: str
    detail: str = ""
    hops: tuple[Hop, ...] = ()
    offers: tuple[Offer, ...] = ()


class Pulled(_Value, frozen=True):
    """What came of a pull: new pieces, and the end if it has come."""

    key: Key
    batch: Batch


class Alive(_Value, frozen=True):
    """A probed peer still works on the query."""

    key: Key
    agent: str


class Cancelled(_Value, frozen=True):
    """The owner wants no answer any more, or nobody pulls it."""

    key: Key


class Tick(_Value, frozen=True):
    """Time passed: expire what is due."""


class PeerDown(_Value, frozen=True):
    """An agent is gone; nothing is forwarded to it until it is up again."""

    agent: str


class PeerUp(_Value, frozen=True):
    """An agent is back."""

    agent: str


class Rewired(_Value, frozen=True, gc=True):
    """The topology or somebody's card has changed; ``links`` is the new state of both (see ``agents.node.Links``)."""

    links: Any


class Outcome(_Value, frozen=True):
    """What became of a query, told along its path; ``right`` is None until somebody knows."""

    query_id: str
    alpha: float
    path: tuple[Hop, ...]
    cost: float
    full_cost: float
    right: bool | None = None


# ---------------------------------------------------------------------------------- commands


class Generate(_Value, frozen=True):
    """Start a draft; every piece comes back as ``Drafted``."""

    request: Request


class Judge(_Value, frozen=True):
    """Score continuations; comes back as ``Scored``."""

    request: ScoreRequest


class Stop(_Value, frozen=True):
    """Stop what the engine does for this key: nobody will read it."""

    key: Key


class Route(_Value, frozen=True):
    """Ask ``agent`` to route the query; comes back as ``Accepted`` or ``Rejected``."""

    agent: str
    query: Query


class Probe(_Value, frozen=True):
    """Ask ``agent`` whether it still works on ``key``; comes back as ``Alive`` or ``Rejected``."""

    agent: str
    key: Key


class Cancel(_Value, frozen=True):
    """Tell ``agent`` to give up ``key``."""

    agent: str
    key: Key


class Emit(_Value, frozen=True):
    """Pass an answer's next piece on to the owner (a node), or to the caller (an owner)."""

    key: Key
    piece: Piece


class End(_Value, frozen=True):
    """The answer is complete, or broke off (``finish`` is failed); ``hop`` and ``cost`` are the agent's own,
    ``before`` is what led up to it since the agent accepted, ``alpha`` what it decided by.
    """

    key: Key
    finish: Finish
    hop: Hop
    cost: float = 0.0
    before: tuple[Hop, ...] = ()
    alpha: float | None = None


class Pull(_Value, frozen=True):
    """Ask the answering agent for the pieces after the first ``cursor``; comes back as ``Pulled``."""

    agent: str
    key: Key
    cursor: int


class Done(_Value, frozen=True, gc=True):  # an error's traceback leads back to it
    """The owner's last command: the reply, or the error to raise."""

    reply: Reply | None = None
    error: Exception | None = None


class Batch(_Value, frozen=True, tag=True):
    """Pieces from a cursor on, and the end where it has come."""

    pieces: tuple[Piece, ...] = ()
    end: End | None = None


News: TypeAlias = PeerDown | PeerUp | Rewired | Outcome
NodeEvent: TypeAlias = Asked | Drafted | Scored | DraftFailed | Accepted | Rejected | Alive | Cancelled | Tick | News
NodeCommand: TypeAlias = Generate | Judge | Stop | Route | Probe | Cancel | Accepted | Rejected | Emit | End
OwnerEvent: TypeAlias = Asked | Accepted | Rejected | Pulled | Alive | Cancelled | Tick
OwnerCommand: TypeAlias = Route | Pull | Probe | Cancel | Emit | Done
