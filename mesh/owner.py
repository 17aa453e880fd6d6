"""The caller's side of one query: attempts, the deadline, and what was already emitted; pure, as a node is.

    routing ──Accepted──► pulling ──End──► done
       ▲                     │ the agent died, stalled or broke off
       └──── attempt + 1 ◄───┘   (without the failed; what was emitted is continued)

The first end of the current attempt wins; whatever carries an older attempt is dropped and its agent told to stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec.structs import replace

from agents import messages as msg
from agents.errors import AgentBusy, BudgetExceeded, DeadlineExceeded, MeshError, NoAgentLeft, QueryTooLong
from agents.names import agent_of


class Owner:
    """One query until its end.

    Args:
        query: its first attempt; ``remaining_s`` is the deadline.
        entries: where to begin, the entry agent first, then whom to try without it.
        cards: everyone's card.
        max_attempts: after so many the query fails with NoAgentLeft.
        stall_s: after so long without a word the entry agent is probed.
    """

    def __init__(
        self,
        query: msg.Query,
        entries: Sequence[str],
        cards: Mapping[str, msg.Card],
        max_attempts: int = 4,
        stall_s: float = 30.0,
    ) -> None:
        self.query, self.entries, self.cards = query, tuple(entries), cards
        self.max_attempts, self.stall_s = max_attempts, stall_s
        self._deadline_s, self._max_tokens, self._given = query.remaining_s, query.max_tokens, query.emitted
        self.stage: Literal["routing", "pulling", "done"] = "routing"
        self.text = ""
        self.history: tuple[msg.Hop, ...] = ()  # of earlier attempts
        self._hops: tuple[msg.Hop, ...] = ()  # of this one, up to the agent that accepted
        self._agent = ""  # whom we wait for: the entry agent, then the one that accepted
        self._entry = ""
        self._cursor = self._tokens = 0
        self._start = self._moved = 0.0
        self._first_token: float | None = None

    def step(self, event: msg.OwnerEvent, now: float) -> list[msg.OwnerCommand]:
        """What to do about ``event`` at ``now`` seconds of any steady clock; ends with one ``Done``."""
        if self.stage == "done":
            return self._drop(event)
        match event:
            case msg.Asked():
                self._start = now
                return self._ask(self.entries, self.query, now)
            case msg.Tick():
                return self._tick(now)
            case msg.Cancelled():
                return self._finish(None, now)
            case _ if event.key != self.query.key:
                return self._drop(event)
            case msg.Accepted():
                if self.stage != "routing":
                    return []
                self.stage, self._agent, self._hops, self._moved = "pulling", event.agent, event.hops, now
                return self._take(event.batch or msg.Batch(), now)
            case msg.Pulled():
                self._moved = now
                return self._take(event.batch, now) if self.stage == "pulling" else []
            case msg.Alive():
                self._moved = now
                return []
            case msg.Rejected():
                return self._failed(event, now) if agent_of(event.agent) == agent_of(self._agent) else []

    def _ask(self, candidates: Sequence[str], query: msg.Query, now: float) -> list[msg.OwnerCommand]:
        self._entry = self._agent = candidates[0]
        self.stage, self.query, self._hops, self._cursor, self._moved = "routing", query, (), 0, now
        return [msg.Route(self._entry, query)]

    def _take(self, batch: msg.Batch, now: float) -> list[msg.OwnerCommand]:
        commands: list[msg.OwnerCommand] = []
        for piece in batch.pieces:
            self.text += piece.text
            self._tokens += piece.tokens
            if self._first_token is None and piece.text:
                self._first_token = now - self._start
            commands.append(msg.Emit(self.query.key, piece))
        self._cursor += len(batch.pieces)
        if batch.end is None:
            commands.append(msg.Pull(self._agent, self.query.key, self._cursor))
            return commands
        self._hops += (*batch.end.before, batch.end.hop)
        if batch.end.finish == "failed":
            return commands + self._again(self._hops, batch.end.hop.reason, "", now)
        path = self.history + self._hops
        reply = msg.Reply(
            self.query.id,
            self.text,
            agent_of(self._agent),
            self.query.alpha,
            batch.end.cost,
            sum(hop.full_cost for hop in path),
            path,
            now - self._start,
            self._first_token,
            self.query.attempt,
            batch.end.finish,
            batch.end.alpha,
        )
        self.stage = "done"
        return [*commands, msg.Done(reply)]

    def _failed(self, event: msg.Rejected, now: float) -> list[msg.OwnerCommand]:
        """Whom we waited for is gone, or says that it cannot."""
        hops = self._hops + event.hops
        if all(hop.agent != event.agent for hop in event.hops):
            hops += (msg.Hop(event.agent, "failed", None, now - self._moved, reason=event.reason),)
        return self._again(hops, event.reason, event.detail, now)

    def _again(self, hops: tuple[msg.Hop, ...], reason: str, detail: str, now: float) -> list[msg.OwnerCommand]:
        """The next attempt: without the failed, at the first who has not refused; else the last who has must answer."""
        if reason == "deadline":
            return self._finish(DeadlineExceeded(self._late(), self.text), now)
        goodbye = self._goodbye()
        self.history += hops
        failed = {hop.agent for hop in self.history if hop.verdict == "failed"}
        left = self.cards.keys() - failed
        refused = [hop.agent for hop in self.history if hop.verdict == "refused" and hop.agent in left]
        fresh = [name for name in self.entries if name not in failed and name not in refused]
        if self.query.attempt >= self.max_attempts or not (fresh or refused):
            return goodbye + self._finish(self._error(reason, detail), now)
        chosen = fresh or refused[::-1]
        query = replace(
            self.query,
            attempt=self.query.attempt + 1,
            remaining_s=self._start + self._deadline_s - now,
            max_tokens=max(1, self._max_tokens - self._tokens),
            spent=sum(hop.full_cost for hop in self.history),
            excluded=frozenset(failed.union(refused)) - {chosen[0]},
            emitted=self._given + self.text,
            must_answer=not fresh,
        )
        return goodbye + self._ask(chosen, query, now)

    def _tick(self, now: float) -> list[msg.OwnerCommand]:
        if now - self._start >= self._deadline_s:
            return self._finish(DeadlineExceeded(self._late(), self.text), now)
        if self.stage == "routing" and now - self._moved > self.stall_s:
            self._moved = now
            return [msg.Probe(self._agent, self.query.key)]
        return []

    def _finish(self, error: MeshError | None, now: float) -> list[msg.OwnerCommand]:
        goodbye = self._goodbye()
        self.stage = "done"
        return [*goodbye, msg.Done(error=error)]

    def _goodbye(self) -> list[msg.OwnerCommand]:
        """Tell those of this attempt whom we know of to stop."""
        return [msg.Cancel(name, self.query.key) for name in dict.fromkeys((self._agent, self._entry))]

    def _drop(self, event: msg.OwnerEvent) -> list[msg.OwnerCommand]:
        return [msg.Cancel(event.agent, event.key)] if isinstance(event, msg.Accepted) else []

    def _late(self) -> str:
        return f"query {self.query.id} was not answered within its deadline of {self._deadline_s:g} s"

    def _error(self, reason: str, detail: str) -> MeshError:
        """The error to raise when nobody is left; ``reason`` is the last failure's."""
        reasons = {hop.reason for hop in self.history if hop.verdict == "failed"}
        if reasons == {"too_long"}:
            longest = max(self.cards.values(), key=lambda card: card.context)
            return QueryTooLong(f"{detail}; the longest context is that of {longest.name!r}, {longest.context} tokens")
        if reasons == {"budget"}:
            return BudgetExceeded(f"max_cost {self.query.max_cost}: {detail}; give more, or enter at a cheaper agent")
        if reasons == {"late"}:
            return DeadlineExceeded(f"{self._late()}: {detail}", self.text)
        if reasons <= {"busy", "late"} and reasons:
            return AgentBusy(self._agent, detail or "every queue is full; try again later")
        told = ", ".join(f"{hop.agent} {hop.reason}" for hop in self.history if hop.verdict == "failed")
        return NoAgentLeft(f"nobody could answer query {self.query.id}: {told}; last: {detail or reason}", self.history)
