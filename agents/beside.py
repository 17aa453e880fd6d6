"""Several agents at once for one query: who is asked beside an agent, what comes of it, and what that costs. Pure.

Who is asked beside others answers by itself or not at all, and accepts only once its answer is whole: so whoever asked
knows what it says and what it cost before it chooses. Where it would pass the query on it says so (a ``vote``), or
keeps it until it is asked again as agents usually are (``meanwhile``), which also frees what it has drafted by then.
Those who are not chosen are told to stop, and say what they have spent: nobody's work is left out of the full cost, and
each was lent a share of the budget, so that all together stay within it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any

from msgspec.structs import replace

from agents import messages as msg
from agents.names import agent_of
from agents.offers import Offer, comes_to
from agents.policies import Answer, Ask, Decision, Decline, Draft, Forward, Look, Wait

REPORT_S = 1.0  # who was told to stop has so long to say what it has spent


@dataclass(slots=True)
class Beside:
    """Who works beside an agent on a query.

    ``mark`` is where that agent stands in the paths they were given, ``pending`` what each was lent (in full cost),
    ``held`` the whole answers that have come. ``closing`` is what was decided and waits until all who are not needed
    have said what they spent, ``until`` when nobody is waited for any longer, ``late`` that this time has come,
    ``quits`` that the query is given up once they have.
    """

    mark: int
    until: float
    pending: dict[str, float] = field(default_factory=dict)
    held: dict[str, msg.Accepted] = field(default_factory=dict)
    closing: Decision | None = None
    late: bool = False
    quits: bool = False

    @property
    def lent(self) -> float:
        """What others may have spent, beyond what stands in the path."""
        spent = fsum(hop.full_cost for answer in self.held.values() for hop in self.lost(answer))
        return fsum(self.pending.values()) + spent

    def lost(self, answer: msg.Accepted) -> tuple[msg.Hop, ...]:
        """What was done for an answer that is not taken."""
        return (*answer.hops[self.mark + 1 :], replace(_last(answer), verdict="cancelled"))

    def votes(self, alpha: float) -> tuple[Offer, ...]:
        """What the answers that have come say."""
        return tuple(_vote(name, answer, alpha) for name, answer in self.held.items())


class Together:
    """The part of a node that asks several agents at once."""

    card: msg.Card
    _budget: Any
    _decide: Any
    _carry_out: Any
    _leave: Any
    _free: Any
    _settle: Any
    _peers: Any
    _emit: Any
    _reject: Any
    _onward: Any
    policy: Any
    queue: Any

    # ------------------------------------------------------------------ who is asked beside others

    def _pass(self, turn: Any, now: float, out: list[Any]) -> None:
        """Asked beside others, it would not answer: it says so, or keeps the query until it is released."""
        if turn.query.aside == "vote":
            self._leave(turn, now, out)
            self._reject(turn, "refused", "", now, out)
        else:
            self._free(turn, out)
            turn.stage = "waiting"

    def _released(self, turn: Any, query: msg.Query, now: float, out: list[Any]) -> None:
        """It was asked beside others, and now it is for this agent to see to the query."""
        turn.path = query.path + turn.path[len(turn.query.path) :]
        turn.query, turn.moved = query, now
        if turn.stage == "answering":
            self._give(turn, len(turn.draft), now, out)
        elif turn.stage == "waiting":
            turn.stage = "queued" if self.policy.staged else "assessing"
            if self.policy.staged:
                self.queue.appendleft(query.key)
            else:
                self._decide(turn, now, out)

    def _give(self, turn: Any, count: int, now: float, out: list[Any]) -> None:
        """Emit the last ``count`` pieces; beside others nothing before all are there."""
        if turn.query.aside and not turn.whole:
            return
        for piece in turn.draft if turn.query.aside else turn.draft[-count:]:
            self._emit(turn, piece, now, out)

    # ------------------------------------------------------------------ who asks them

    def _company(self, turn: Any) -> Mapping[str, Any]:
        """What a view tells of those who are asked beside others."""
        beside, aside = turn.beside, bool(turn.query.aside)
        if beside is None:
            return {"aside": aside} if aside else {}
        asked = () if beside.late else tuple(beside.pending)
        return {"aside": aside, "asked": asked, "votes": beside.votes(turn.query.alpha), "together": True}

    def _once(self, turn: Any, decision: Decision) -> Decision:
        """What is decided, where others were asked already, or may not be."""
        if isinstance(decision, Ask) and (turn.beside is not None or turn.query.aside == "vote"):
            return decision.then or Decline()
        return decision

    def _of_others(self, turn: Any, decision: Decision, peers: Sequence[msg.Card], now: float, out: list[Any]) -> bool:
        """Whether that was all that is to be done now: others are asked, waited for, told to stop, or taken."""
        if isinstance(decision, Wait) and turn.beside is not None and turn.beside.pending:
            return True
        if isinstance(decision, Ask):
            self._ask_beside(turn, decision, peers, now, out)
            return True
        if turn.query.aside and not isinstance(decision, Look | Draft | Answer):
            self._pass(turn, now, out)
            return True
        return self._closes(turn, decision, now, out)

    def _ask_beside(self, turn: Any, ask: Ask, peers: Sequence[msg.Card], now: float, out: list[Any]) -> None:
        """Ask those of ``ask.peers`` that the budget allows all together, and go on with ``ask.then``."""
        query, left, known = turn.query, self._budget(turn), {card.name: card for card in peers}
        total = self.card.cost if ask.then is not None else 0.0
        chosen = []
        for card in (known[name] for name in ask.peers if name in known):
            if left is None or total + card.cost <= left:
                chosen.append(card)
                total += card.cost
        turn.beside = Beside(len(turn.path), now + ask.within_s)
        aside = "vote" if ask.vote else "meanwhile"
        path = (*turn.path, msg.Hop(self.card.name, "refused", turn.confidence, reason="meanwhile"))
        spent = query.spent + fsum(hop.full_cost for hop in turn.path)
        for card in chosen:
            share = 0.0 if left is None else left * card.cost / total
            turn.beside.pending[card.name] = share
            bound = None if left is None else spent + share
            asked = self._onward(turn, now, path=path, offers=(), aside=aside, max_cost=bound)
            out.append(msg.Route(card.name, asked))
        if ask.then is not None:
            self._carry_out(turn, ask.then, peers, now, out)
            return
        self._free(turn, out)
        turn.stage = "waiting"
        if chosen:
            turn.moved = now
        else:
            self._decide(turn, now, out)

    def _heard(self, turn: Any, event: msg.Accepted | msg.Rejected, now: float, out: list[Any]) -> bool:
        """Whether this was of somebody asked beside; then it is seen to."""
        name, beside = agent_of(event.agent), turn.beside
        if beside is None or beside.pending.pop(name, None) is None:
            return False
        if isinstance(event, msg.Accepted):
            beside.held[name] = event
        else:
            turn.path += _reported(event, name)
        self._go_on(turn, now, out)
        return True

    def _go_on(self, turn: Any, now: float, out: list[Any]) -> None:
        """Something has come that was waited for."""
        beside = turn.beside
        if beside.quits and not beside.pending:
            self._reject(turn, "cancelled", "", now, out)
        elif beside.closing is None:
            if turn.stage == "waiting":
                self._decide(turn, now, out)
        elif not beside.pending.keys() - {_peer(beside.closing)}:
            decision, beside.closing = beside.closing, None
            peers = self._peers(turn)
            if _peer(decision) in {"", *(card.name for card in peers)}:
                self._carry_out(turn, decision, peers, now, out)
            else:  # whom it was to go to is of no use any more
                self._decide(turn, now, out)

    def _closes(self, turn: Any, decision: Decision, now: float, out: list[Any]) -> bool:
        """Whether that is all that is to be done now: others were told to stop, or somebody's answer is taken."""
        beside = turn.beside
        if beside is None or isinstance(decision, Look | Draft):
            return False
        peer = _peer(decision)
        if others := beside.pending.keys() - {peer}:
            beside.closing, beside.until = decision, now + REPORT_S
            out += [msg.Cancel(name, turn.query.key) for name in beside.pending if name in others]
            return True
        taken = beside.held.pop(peer, None)
        self._drop(turn, out)
        beside.pending.clear()  # it is asked once more, as agents usually are
        if taken is None:
            return False
        self._leave(turn, now, out)
        self._settle(turn, replace(taken, hops=self._joined(turn, taken.hops)), out)
        return True

    def _joined(self, turn: Any, hops: tuple[msg.Hop, ...]) -> tuple[msg.Hop, ...]:
        """The way to who was asked beside, with what this agent did in place of the mark that stood for it."""
        at = -1 if turn.beside is None else turn.beside.mark
        if 0 <= at < len(hops) and (hops[at].agent, hops[at].reason) == (self.card.name, "meanwhile"):
            joined: tuple[msg.Hop, ...] = turn.path + hops[at + 1 :]
            return joined
        return hops

    def _overdue(self, turn: Any, now: float, out: list[Any]) -> None:
        """Nobody is waited for any longer whose time is up."""
        beside = turn.beside
        if now < beside.until:
            return
        if beside.closing is not None:
            for name in [name for name in beside.pending if name != _peer(beside.closing)]:
                self._heard(turn, msg.Rejected(turn.query.key, name, "stalled"), now, out)
        elif turn.stage == "waiting" and not beside.late:
            beside.late = True
            self._decide(turn, now, out)

    def _quits(self, turn: Any, now: float, out: list[Any]) -> bool:
        """Whether an agent that is told to stop waits until those it has asked itself have said what they spent."""
        beside = turn.beside
        if not turn.query.aside or beside is None or not beside.pending:
            return False
        if not beside.quits:
            beside.quits, beside.closing, beside.until = True, Wait(), now + REPORT_S
            self._free(turn, out)
            out += [msg.Cancel(name, turn.query.key) for name in beside.pending]
        return True

    def _dismiss(self, turn: Any, out: list[Any]) -> None:
        """The query is over here: nobody need work on it beside any more."""
        if (beside := turn.beside) is not None:
            out += [msg.Cancel(name, turn.query.key) for name in beside.pending]
            self._drop(turn, out)
            turn.beside = None

    def _drop(self, turn: Any, out: list[Any]) -> None:
        """No answer that has come is taken any more: what was done for it is told."""
        for answer in turn.beside.held.values():
            turn.path += turn.beside.lost(answer)
            out.append(msg.Cancel(answer.agent, turn.query.key))
        turn.beside.held.clear()


def _peer(decision: Decision) -> str:
    return decision.peer if isinstance(decision, Forward) else ""


def _last(answer: msg.Accepted) -> msg.Hop:
    """What whoever answered did for that."""
    if answer.batch is None or answer.batch.end is None:  # asked twice, it keeps no answer
        return msg.Hop(agent_of(answer.agent), "answered")
    return answer.batch.end.hop


def _vote(name: str, answer: msg.Accepted, alpha: float) -> Offer:
    batch, sure = answer.batch or msg.Batch(), _last(answer).confidence
    text = "".join(piece.text for piece in batch.pieces)
    price = batch.end.cost if batch.end is not None else 0.0
    return Offer(name, 0.5 if sure is None else sure, alpha * price, comes_to(text))


def _reported(event: msg.Rejected, name: str) -> tuple[msg.Hop, ...]:
    """What somebody did who did not answer; nothing, where it was told to stop before it began."""
    hops = tuple(replace(hop, verdict="cancelled") if hop.reason == "cancelled" else hop for hop in event.hops)
    if event.reason == "cancelled" or any(hop.agent == name for hop in hops):
        return hops
    return (*hops, msg.Hop(name, "failed", reason=event.reason))
