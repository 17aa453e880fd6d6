"""The decision core of one agent: events in, commands out; no clock, no engine, no network.

A query's turn at an agent goes through these stages:

    queued ──► assessing ──► forwarding ──► (accepted by a peer: over)
                 │    ▲           │ rejected: decide again without that peer
                 │    └───────────┘
                 └──► answering ──► over

Whoever is asked twice for one attempt (because the first asker died) lets both share the one turn, so that no
agent works twice on an attempt and its work is not lost.
"""

from __future__ import annotations

import heapq
import logging
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from msgspec.structs import replace

from agents import messages as msg
from agents.assess import Ask, Assessor, Confidence, Refusal, Session, Verdict, Wait
from agents.beside import Beside, Together
from agents.offers import Offer
from agents.overload import Load, browned
from agents.policies import Answer, Decision, Decline, Draft, Forward, Look, Policy, View
from agents.prompts import REFUSAL, Style, prompted

log = logging.getLogger(__name__)
Out: TypeAlias = list[msg.NodeCommand]  # the commands so far, to which more are added


class Links(Protocol):
    """Who may forward to whom, and everyone's card."""

    @property
    def cards(self) -> Mapping[str, msg.Card]: ...

    def neighbours(self, name: str, down: frozenset[str] = frozenset()) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How one agent works: ``running`` drafts at once, ``waiting`` more in its queue (full means busy).

    After ``stall_s`` without a sign of life from its engine or a peer it gives that one up. ``brownout`` is how far
    alpha rises towards 1 while it has all in hand that it may.
    """

    prompt: Style = "scenario"
    temperature: float = 0.0
    seed: int = 0
    running: int = 32
    waiting: int = 256
    stall_s: float = 30.0
    brownout: float = 0.0


@dataclass(slots=True)
class Turn:
    """One query at this agent. The token counts are what it spent on it since its last hop was written down;
    ``live`` says whether its engine works for it right now.
    """

    query: msg.Query
    since: float
    deadline: float
    moved: float
    path: tuple[msg.Hop, ...]
    offers: tuple[Offer, ...] = ()
    stage: Literal["queued", "assessing", "waiting", "forwarding", "answering"] = "queued"
    session: Session | None = None
    prompt: tuple[msg.Message, ...] = ()
    generation: int = 0
    draft: list[msg.Piece] = field(default_factory=list)
    prompt_tokens: int = 0
    generated_tokens: int = 0
    confidence: float | None = None
    drafted: float | None = None
    looked: bool = False
    checking: bool = False
    refused: bool = False
    forced: bool = False
    judged: bool = False
    live: bool = False
    accepted: bool = False
    too_long: bool = False
    reason: str = ""
    peer: str = ""
    beside: Beside | None = None
    started: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether there is a draft, from beginning to end."""
        return bool(self.draft) and self.draft[-1].finish is not None


class Node(Together):
    """One agent's decisions.

    Args:
        card: what it tells others of itself.
        links: whom it may forward to; replaced by a ``Rewired`` event.
        policy: answers, forwards or declines.
        assessor: judges itself.
        checker: judges its answer once that is drafted, for policies that want to know (None: nobody does).
    """

    def __init__(
        self,
        card: msg.Card,
        links: Links,
        policy: Policy,
        assessor: Assessor,
        settings: Settings | None = None,
        checker: Assessor | None = None,
    ) -> None:
        self.card, self.links, self.policy, self.assessor, self.checker = card, links, policy, assessor, checker
        self.settings = settings or Settings()
        self.turns: dict[msg.Key, Turn] = {}
        self.running: set[msg.Key] = set()
        self.queue: deque[msg.Key] = deque()
        self.down: frozenset[str] = frozenset()
        self._settled: dict[msg.Key, msg.Accepted | msg.Rejected] = {}
        self._expiry: list[tuple[float, msg.Key]] = []
        self.load = Load()

    def step(self, event: msg.NodeEvent, now: float) -> list[msg.NodeCommand]:
        """What to do about ``event``, at ``now`` seconds of any steady clock."""
        commands: list[msg.NodeCommand] = []
        self._handle(event, now, commands)
        while self.queue and len(self.running) < self.settings.running:
            turn = self.turns.get(self.queue.popleft())
            if turn is not None and turn.stage == "queued":
                try:
                    self._start(turn, now, commands)
                except Exception as error:
                    self._plugin_failed(turn, error, now, commands)
        return commands

    def _handle(self, event: msg.NodeEvent, now: float, out: Out) -> None:
        try:
            _HANDLERS[type(event)](self, event, now, out)
        except Exception as error:
            self._plugin_failed(self.turns.get(_key_of(event)), error, now, out)

    def _plugin_failed(self, turn: Turn | None, error: Exception, now: float, out: Out) -> None:
        """A plug-in raised: that costs the query, not the agent."""
        if turn is None:
            raise error
        log.error("agent %s gives query %s up", self.card.name, turn.query.id, exc_info=error)
        self._reject(turn, "failed", repr(error), now, out)

    # ------------------------------------------------------------------ a query comes

    def _asked(self, event: msg.Asked, now: float, out: Out) -> None:
        query, limits = event.query, self.settings
        ahead = len(self.queue) + (len(self.running) >= limits.running)
        if query.key in self._settled:
            out.append(self._settled[query.key])
        elif query.key in self.turns:
            if self.turns[query.key].query.aside and not query.aside:
                self._released(self.turns[query.key], query, now, out)
            elif self.turns[query.key].accepted:
                out.append(msg.Accepted(query.key, self.card.name, self.turns[query.key].path))
        elif query.remaining_s <= 0:
            out.append(msg.Rejected(query.key, self.card.name, "deadline"))
        elif late := self.load.late(query.remaining_s, ahead, limits.running, now):
            out.append(msg.Rejected(query.key, self.card.name, "late", late))
        elif len(self.turns) >= limits.running + limits.waiting and not self._gave_way(query.priority, now, out):
            out.append(msg.Rejected(query.key, self.card.name, "busy", f"{len(self.turns)} queries in hand"))
        else:
            if limits.brownout:
                brown = limits.brownout, len(self.turns) - limits.running, limits.waiting
                query = replace(query, alpha=browned(query.alpha, *brown))
            self.turns[query.key] = Turn(query, now, now + query.remaining_s, now, query.path, query.offers)
            self.queue.append(query.key)

    def _gave_way(self, priority: int, now: float, out: Out) -> bool:
        """Whether a query in the queue was given up for one of this priority: the last of the lowest."""
        queued = [self.turns[key] for key in reversed(self.queue) if key in self.turns]
        lowest = min(queued, key=lambda turn: turn.query.priority, default=None)
        if lowest is None or lowest.query.priority >= priority:
            return False
        self.queue.remove(lowest.query.key)
        self._reject(lowest, "busy", "it gave way to a query of higher priority", now, out)
        return True

    def _start(self, turn: Turn, now: float, out: Out) -> None:
        query = turn.query
        if late := self.load.late(turn.deadline - now, 0, 1, now):
            self._reject(turn, "late", late, now, out)
            return
        self.running.add(query.key)
        turn.moved = turn.started = now
        choice = query.may_decline or bool(query.offers or query.aside == "vote" or self._peers(turn, self.card.cost))
        back = self.policy.staged and turn.judged
        if query.must_answer or not (choice or back) or not self.policy.assesses:
            turn.forced = self.policy.assesses
            self._generate(turn, out)
            return
        turn.stage = "assessing"
        if self.policy.staged:
            self._decide(turn, now, out)
        else:
            self._look(turn, now, out)

    def _look(self, turn: Turn, now: float, out: Out) -> None:
        query = turn.query
        turn.prompt = prompted(query.messages, self.assessor.told(query.alpha), self.settings.prompt)
        turn.session, turn.looked = self.assessor.begin(query, turn.prompt), True
        if turn.session.opening is None:
            self._generate(turn, out)
        else:
            self._verdict(turn, turn.session.opening, now, out)

    def _check(self, turn: Turn, out: Out) -> None:
        """Draft the answer itself, and judge it."""
        assert self.checker is not None
        turn.prompt, turn.checking = turn.query.messages, True
        turn.session = self.checker.begin(turn.query, turn.prompt)
        self._generate(turn, out)

    def _generate(self, turn: Turn, out: Out) -> None:
        """Start a draft: one to assess, or the answer itself, for which the refusal will not do. The scenario is for
        deciding: a model that has it before it, and may not refuse, answers worse than without.
        """
        query, left = turn.query, self._budget(turn)
        assessing = turn.stage == "assessing"
        if not assessing:
            turn.stage = "answering"
        request = msg.Request(
            query.key,
            turn.generation + 1,
            turn.prompt if assessing else query.messages,
            query.max_tokens,
            query.emitted,
            "" if assessing and not turn.checking else REFUSAL,
            None if left is None else left / self.card.cost * self.card.mean_work,
            self.settings.temperature,
            self._seed(query),
        )
        turn.generation, turn.draft, turn.live = request.generation, [], True
        out.append(msg.Generate(request))

    # ------------------------------------------------------------------ the engine answers

    def _drafted(self, event: msg.Drafted, now: float, out: Out) -> None:
        turn = self.turns.get(event.key)
        if turn is None or turn.generation != event.generation or event.key not in self.running:
            return
        piece = event.piece
        turn.moved = now
        turn.live = piece.finish is None
        turn.prompt_tokens += piece.prompt_tokens
        turn.generated_tokens += piece.tokens
        if turn.stage == "answering":
            turn.draft.append(piece)
            self._give(turn, 1, now, out)
        else:
            assert turn.session is not None
            turn.draft.append(piece)
            self._verdict(turn, turn.session.feed(piece), now, out)

    def _scored(self, event: msg.Scored, now: float, out: Out) -> None:
        turn = self.turns.get(event.key)
        if turn is None or turn.generation != event.generation or turn.stage != "assessing":
            return
        assert turn.session is not None
        turn.moved, turn.live = now, False
        turn.prompt_tokens += event.scores.prompt_tokens
        self._verdict(turn, turn.session.scored(event.scores), now, out)

    def _verdict(self, turn: Turn, verdict: Verdict, now: float, out: Out) -> None:
        match verdict:
            case Wait():
                if not turn.draft:  # the opening scores left it open: draft
                    self._generate(turn, out)
            case Ask(messages, continuations):
                turn.live = True
                seed = self._seed(turn.query)
                out.append(msg.Judge(msg.ScoreRequest(turn.query.key, turn.generation, messages, continuations, seed)))
            case Confidence(p):
                sure = None if p is None else float(p)
                turn.confidence, turn.drafted = (turn.confidence, sure) if turn.checking else (sure, turn.drafted)
                turn.judged = True
                self._decide(turn, now, out)
            case Refusal():
                turn.refused = turn.judged = True
                self._decide(turn, now, out)

    def _draft_failed(self, event: msg.DraftFailed, now: float, out: Out) -> None:
        turn = self.turns.get(event.key)
        if turn is None or turn.generation != event.generation or event.key not in self.running:
            return
        turn.live &= event.reason == "stalled"
        self._hop(turn, "failed", now, event.reason)
        if turn.accepted:
            self._end(turn, "failed", turn.path[-1], out)
            return
        self._free(turn, out)
        turn.too_long |= event.reason == "too_long"
        turn.judged = False
        self._hand_over(turn, event, now, out)

    def _hand_over(self, turn: Turn, failure: msg.DraftFailed | msg.Rejected, now: float, out: Out) -> None:
        """Our own engine is of no use for this query: whoever else there is must do."""
        peers = () if turn.query.aside else self._peers(turn)
        if peers and self._closes(turn, Forward(peers[0].name), now, out):
            return
        if peers:
            self._forward(turn, peers[0].name, now, out)
        else:
            self._reject(turn, failure.reason, failure.detail, now, out)

    # ------------------------------------------------------------------ decide

    def _decide(self, turn: Turn, now: float, out: Out) -> None:
        peers, query = self._peers(turn), turn.query
        if turn.beside is not None and turn.beside.closing is not None:
            return
        if not (peers or query.may_decline or query.offers or query.aside == "vote"):
            self._carry_out(turn, Answer(), peers, now, out)
            return
        draft = "".join(piece.text for piece in turn.draft) if turn.whole else None
        seen = turn.confidence, turn.refused, peers, self._budget(turn), self._seed(query), turn.looked, draft
        text = next((m.content for m in reversed(query.messages) if m.role == "user"), "") if self.policy.staged else ""
        view = View(self.card, query.alpha, *seen, text, turn.offers, turn.drafted, query.id, **self._company(turn))
        self._carry_out(turn, self.policy.decide(view), peers, now, out)

    def _carry_out(self, turn: Turn, decision: Decision, peers: Sequence[msg.Card], now: float, out: Out) -> None:
        query, decision = turn.query, self._once(turn, decision)
        turn.reason = decision.reason if isinstance(decision, Decline) else ""
        if self._of_others(turn, decision, peers, now, out):
            return
        if isinstance(decision, Look | Draft):
            done = turn.looked if isinstance(decision, Look) else self.checker is None or turn.whole
            if done:
                self._carry_out(turn, Answer(), peers, now, out)
            elif isinstance(decision, Look):
                self._look(turn, now, out)
            else:
                self._check(turn, out)
        elif isinstance(decision, Decline) and query.offers:
            turn.offers = decision.offers
            self._leave(turn, now, out)
            self._reject(turn, "handed back", "", now, out)
        elif isinstance(decision, Decline) and query.may_decline:
            self._decline(turn, now, out)
        elif not isinstance(decision, Forward):
            self._answer(turn, now, out)
        elif any(decision.peer == card.name for card in peers):
            if turn.stage in ("assessing", "waiting"):
                self._leave(turn, now, out)
            peer = decision.peer if turn.beside else self.load.instead(decision.peer, peers, now)
            self._forward(turn, peer, now, out, decision.offers)
        else:
            raise ValueError(
                f"policy {type(self.policy).__name__} of {self.card.name!r} forwards to {decision.peer!r}, "
                f"not one of {[card.name for card in peers]}"
            )

    def _leave(self, turn: Turn, now: float, out: Out) -> None:
        """It is for others to answer."""
        self.load.held(now - turn.started, now)
        self._free(turn, out)
        self._hop(turn, "refused", now, "" if turn.judged else "not tried")

    def _answer(self, turn: Turn, now: float, out: Out) -> None:
        """Give the draft as the answer where there is one worth it; else draft again, refusal excluded."""
        key, draft = turn.query.key, turn.draft
        turn.forced = turn.refused or turn.stage == "forwarding"
        if draft and not turn.refused and (turn.whole or turn.live):
            turn.stage = "answering"
            self._give(turn, len(draft), now, out)
        elif key in self.running:
            if turn.live:
                out.append(msg.Stop(key))
            turn.stage = "answering"
            self._generate(turn, out)
        else:  # back from a peer that failed: wait for a free place
            turn.stage, turn.query = "queued", replace(turn.query, must_answer=True)
            self.queue.appendleft(key)

    def _forward(self, turn: Turn, peer: str, now: float, out: Out, offers: tuple[Offer, ...] = ()) -> None:
        turn.stage, turn.peer, turn.moved = "forwarding", peer, now
        out.append(msg.Route(peer, self._onward(turn, now, path=turn.path, offers=offers)))

    def _onward(self, turn: Turn, now: float, **changes: Any) -> msg.Query:
        """The query as the next agent gets it."""
        return replace(turn.query, hops_left=turn.query.hops_left - 1, remaining_s=turn.deadline - now, **changes)

    def _decline(self, turn: Turn, now: float, out: Out) -> None:
        out.append(msg.Accepted(turn.query.key, self.card.name, turn.path))
        self._hop(turn, "declined", now, turn.reason)
        self._end(turn, "declined", turn.path[-1], out)

    # ------------------------------------------------------------------ a peer answers

    def _peer_accepted(self, event: msg.Accepted, now: float, out: Out) -> None:
        turn = self.turns.get(event.key)
        if turn is None:
            kept = self._settled.get(event.key)
            if kept is not None and kept.agent != event.agent:  # nobody waits for it any more
                out.append(msg.Cancel(event.agent, event.key))
        elif not self._heard(turn, event, now, out) and turn.stage == "forwarding":
            self._settle(turn, replace(event, hops=self._joined(turn, event.hops)), out)

    def _peer_rejected(self, event: msg.Rejected, now: float, out: Out) -> None:
        turn = self.turns.get(event.key)
        if event.reason in ("busy", "late"):
            self.load.refused(event.agent, now)
        if turn is None or self._heard(turn, event, now, out):
            return
        if turn.stage != "forwarding" or turn.peer != event.agent:
            return
        hops = event.hops
        if all(hop.agent != event.agent for hop in hops):
            hops = (*hops, msg.Hop(event.agent, "failed", None, now - turn.moved, reason=event.reason))
        turn.path += hops
        if event.reason == "deadline":
            self._reject(turn, event.reason, event.detail, now, out)
        elif self.policy.staged:  # it may want to know more, for which there must be a place
            turn.stage, turn.offers = "queued", event.offers or turn.offers
            self.queue.appendleft(turn.query.key)
        elif turn.judged:
            self._decide(turn, now, out)
        else:
            self._hand_over(turn, event, now, out)

    def _alive(self, event: msg.Alive, now: float, out: Out) -> None:
        turn = self.turns.get(event.key)
        if turn is not None and turn.peer == event.agent:
            turn.moved = now

    def _peer_down(self, event: msg.PeerDown, now: float, out: Out) -> None:
        self.down |= {event.agent}
        for turn in list(self.turns.values()):
            asked = turn.beside is not None and event.agent in turn.beside.pending
            if asked or (turn.stage == "forwarding" and turn.peer == event.agent):
                self._handle(msg.Rejected(turn.query.key, event.agent, "died"), now, out)

    def _peer_up(self, event: msg.PeerUp, now: float, out: Out) -> None:
        self.down -= {event.agent}

    def _rewired(self, event: msg.Rewired, now: float, out: Out) -> None:
        self.links = event.links
        self.card = event.links.cards.get(self.card.name, self.card)

    def _outcome(self, event: msg.Outcome, now: float, out: Out) -> None:
        if self.policy.learns:
            try:
                self.policy.learn(event)
            except Exception:  # the query has its answer, and nobody waits for this
                log.exception("the policy of agent %s learns nothing of query %s", self.card.name, event.query_id)

    # ------------------------------------------------------------------ time and cancellation

    def _cancelled(self, event: msg.Cancelled, now: float, out: Out) -> None:
        turn = self.turns.get(event.key)
        if turn is not None:
            self._give_up(turn, "cancelled", now, out)

    def _tick(self, event: msg.Tick, now: float, out: Out) -> None:
        for turn in list(self.turns.values()):
            key, quiet = turn.query.key, now - turn.moved > self.settings.stall_s
            if now >= turn.deadline:
                self._give_up(turn, "deadline", now, out)
            elif quiet and turn.stage == "forwarding":
                turn.moved = now
                out.append(msg.Probe(turn.peer, key))
            elif quiet and key in self.running:
                self._draft_failed(msg.DraftFailed(key, turn.generation, "stalled"), now, out)
            elif turn.beside is not None:
                self._overdue(turn, now, out)
        while self._expiry and now >= self._expiry[0][0]:
            self._settled.pop(heapq.heappop(self._expiry)[1], None)

    def _give_up(self, turn: Turn, reason: str, now: float, out: Out) -> None:
        if reason == "cancelled" and self._quits(turn, now, out):
            return
        if turn.stage == "forwarding":
            out.append(msg.Cancel(turn.peer, turn.query.key))
        if turn.accepted:
            self._hop(turn, "failed", now, reason)
            self._end(turn, "failed", turn.path[-1], out)
        else:
            self._reject(turn, reason, "", now, out)

    # ------------------------------------------------------------------ the small pieces

    def _emit(self, turn: Turn, piece: msg.Piece, now: float, out: Out) -> None:
        if not turn.accepted:
            turn.accepted = True
            out.append(msg.Accepted(turn.query.key, self.card.name, turn.path))
        out.append(msg.Emit(turn.query.key, piece))
        if piece.finish is not None:
            self.load.held(now - turn.started, now)
            self._hop(turn, "answered", now, turn.reason or ("forced" if turn.forced else ""))
            self._end(turn, piece.finish, turn.path[-1], out)

    def _end(self, turn: Turn, finish: msg.Finish, hop: msg.Hop, out: Out) -> None:
        out.append(msg.End(turn.query.key, finish, hop, self.card.cost, alpha=turn.query.alpha))
        self._free(turn, out)
        self._remember(turn, msg.Accepted(turn.query.key, self.card.name, turn.path[:-1]))

    def _reject(self, turn: Turn, reason: str, detail: str, now: float, out: Out) -> None:
        self._free(turn, out)
        self._dismiss(turn, out)
        if turn.prompt_tokens or turn.generated_tokens:
            self._hop(turn, "failed", now, reason)
        hops = turn.path[len(turn.query.path) :]
        self._settle(turn, msg.Rejected(turn.query.key, self.card.name, reason, detail, hops, turn.offers), out)

    def _settle(self, turn: Turn, result: msg.Accepted | msg.Rejected, out: Out) -> None:
        out.append(result)
        self._remember(turn, result)

    def _remember(self, turn: Turn, result: msg.Accepted | msg.Rejected) -> None:
        del self.turns[turn.query.key]
        self._settled[turn.query.key] = replace(result, batch=None) if isinstance(result, msg.Accepted) else result
        heapq.heappush(self._expiry, (turn.deadline + self.settings.stall_s, turn.query.key))  # who asks may be late

    def _free(self, turn: Turn, out: Out) -> None:
        """Give the engine's place back; stop what it still does for this turn."""
        self.running.discard(turn.query.key)
        if turn.live:
            turn.live = False
            out.append(msg.Stop(turn.query.key))

    def _hop(self, turn: Turn, verdict: Any, now: float, reason: str = "") -> None:
        """Write down what this agent did for the query so far."""
        spent = self.card.full_cost(turn.prompt_tokens, turn.generated_tokens)
        tokens = (turn.prompt_tokens, turn.generated_tokens)
        sure = turn.confidence if turn.drafted is None else turn.drafted
        hop = msg.Hop(self.card.name, verdict, sure, now - turn.since, *tokens, spent, reason)
        turn.path += (hop,)
        turn.since, turn.prompt_tokens, turn.generated_tokens = now, 0, 0

    def _budget(self, turn: Turn) -> float | None:
        """What is left of ``max_cost``, in full cost."""
        query = turn.query
        if query.max_cost is None:
            return None
        spent = self.card.full_cost(turn.prompt_tokens, turn.generated_tokens)
        lent = 0.0 if turn.beside is None else turn.beside.lent
        return query.max_cost - query.spent - spent - lent - sum(hop.full_cost for hop in turn.path)

    def _peers(self, turn: Turn, reserve: float = 0.0) -> tuple[msg.Card, ...]:
        """Whom this query may be forwarded to: none down, visited, too dear after ``reserve``, or too short."""
        query, cards = turn.query, self.links.cards
        if query.hops_left <= 0:
            return ()
        visited = {self.card.name, *[hop.agent for hop in turn.path]}
        down = self.down.union(query.excluded, [hop.agent for hop in turn.path if hop.verdict == "failed"])
        left = self._budget(turn)
        if turn.too_long:
            down |= {name for name, card in cards.items() if card.context <= self.card.context}
        names = self.links.neighbours(self.card.name, down - {self.card.name})
        peers = [cards[name] for name in names if name not in visited]
        paid = () if turn.beside is None else (*turn.beside.pending, *turn.beside.held)
        return tuple(peer for peer in peers if left is None or peer.cost <= left - reserve or peer.name in paid)

    def _seed(self, query: msg.Query) -> int:
        return zlib.crc32(f"{self.settings.seed}:{self.card.name}:{query.seed}".encode())


def _key_of(event: msg.NodeEvent) -> msg.Key:
    return event.query.key if isinstance(event, msg.Asked) else getattr(event, "key", ("", 0))


_HANDLERS: dict[type[Any], Callable[..., None]] = {
    msg.Asked: Node._asked,
    msg.Drafted: Node._drafted,
    msg.Scored: Node._scored,
    msg.DraftFailed: Node._draft_failed,
    msg.Accepted: Node._peer_accepted,
    msg.Rejected: Node._peer_rejected,
    msg.Alive: Node._alive,
    msg.Cancelled: Node._cancelled,
    msg.Tick: Node._tick,
    msg.PeerDown: Node._peer_down,
    msg.PeerUp: Node._peer_up,
    msg.Rewired: Node._rewired,
    msg.Outcome: Node._outcome,
}
