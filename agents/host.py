"""The shell around one node: performs its commands with an engine and a transport, and returns every outcome,
failures included, as an event. Ray and asyncio both use it; all of it runs in one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agents import messages as msg
from agents.assess import Assessor
from agents.engines.base import Engine
from agents.errors import AgentDied, AgentError, BudgetExceeded, QueryTooLong
from agents.node import Node, Settings
from agents.wire import sound, unicode

log = logging.getLogger(__name__)


class Transport(Protocol):
    """How one agent reaches another. Every method raises an AgentError where the peer cannot be reached."""

    async def route(self, agent: str, query: msg.Query) -> msg.Accepted | msg.Rejected: ...

    async def probe(self, agent: str, key: msg.Key) -> bool: ...

    async def cancel(self, agent: str, key: msg.Key) -> None: ...


@dataclass(slots=True)
class _Outbox:
    """An accepted query's pieces, until the owner has pulled the last."""

    pulled: float
    pieces: list[msg.Piece] = field(default_factory=list)
    end: msg.End | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Host:
    """One agent, alive.

    Args:
        lease_s: an answer that nobody pulls for so long is stopped: its owner is gone.
        tick_s: how often what is due is looked for.
    """

    def __init__(
        self,
        node: Node,
        engine: Engine,
        transport: Transport,
        lease_s: float = 15.0,
        tick_s: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.node, self.engine, self.transport, self.clock = node, engine, transport, clock
        self.lease_s, self.tick_s = lease_s, tick_s
        self._askers: dict[msg.Key, list[asyncio.Future[msg.Accepted | msg.Rejected]]] = {}
        self._outboxes: dict[msg.Key, _Outbox] = {}
        self._drafts: dict[msg.Key, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.Task[None] | None = None
        self.dead = asyncio.Event()

    # ------------------------------------------------------------------ what others call

    async def route(self, query: msg.Query) -> msg.Accepted | msg.Rejected:
        """Have the query answered by this agent or by one further on; returns as soon as somebody has begun."""
        self._check()
        asker: asyncio.Future[msg.Accepted | msg.Rejected] = asyncio.get_running_loop().create_future()
        self._askers.setdefault(query.key, []).append(asker)
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick())
        self.step(msg.Asked(query))
        return await asker

    async def pull(self, key: msg.Key, cursor: int, wait_s: float = 5.0) -> msg.Batch | msg.Rejected:
        """The pieces after the first ``cursor`` of an accepted query; waits up to ``wait_s`` for one to come."""
        self._check()
        box = self._outboxes.get(key)
        if box is None:
            return msg.Rejected(key, self.node.card.name, "failed", "it knows nothing of this query")
        self._touch(key)
        if len(box.pieces) <= cursor and box.end is None:
            box.news.clear()
            box.pulled = math.inf  # whoever waits is not gone
            try:
                async with asyncio.timeout(wait_s):
                    await box.news.wait()
            except TimeoutError:
                pass  # an empty batch says that we live
            finally:
                self._touch(key)
            self._check()
        if box.end is not None:
            self._outboxes.pop(key, None)
        return msg.Batch(tuple(box.pieces[cursor:]), box.end)

    async def cancel(self, key: msg.Key) -> None:
        """Give a query up, here and where it was forwarded to."""
        self.step(msg.Cancelled(key))
        self._outboxes.pop(key, None)

    async def probe(self, key: msg.Key) -> bool:
        """Whether this agent still works on a query."""
        self._check()
        return key in self.node.turns or key in self._outboxes

    def step(self, event: msg.NodeEvent) -> None:
        """Give the node an event and perform what it commands."""
        if not self.dead.is_set():
            answered: list[msg.Accepted | msg.Rejected] = []
            for command in self.node.step(event, self.clock()):
                self._perform(command, answered)
            for result in answered:
                self._resolve(result)

    def status(self) -> dict[str, Any]:
        """Facts for ``mesh status``; JSON."""
        node = self.node
        return {
            "in_hand": len(node.turns),
            "drafting": len(node.running),
            "queued": len(node.queue),
            "engine_running": self.engine.running(),
            **self.engine.describe(),
            **node.policy.status(),
        }

    async def healthy(self) -> bool:
        """Whether the engine can still generate."""
        return not self.dead.is_set() and await self.engine.healthy()

    async def serve(self, adapter: Path | None, assessor: Assessor, settings: Settings) -> None:
        """Serve another version of the agent from the next draft on; queries in hand are assessed as they began."""
        await self.engine.load_adapter(adapter)
        self.node.assessor, self.node.settings = assessor, settings

    async def close(self) -> None:
        """End everything; whoever still waits gets AgentDied."""
        self.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.engine.close()

    def kill(self) -> None:
        """Die as a process dies: nothing is finished, nobody is told, callers get AgentDied."""
        self.dead.set()
        for task in self._tasks | ({self._ticking} if self._ticking else set()):
            task.cancel()
        for asker in (asker for askers in self._askers.values() for asker in askers if not asker.done()):
            asker.set_exception(AgentDied(self.node.card.name))
        for box in self._outboxes.values():
            box.news.set()

    # ------------------------------------------------------------------ performing commands

    def _perform(self, command: msg.NodeCommand, answered: list[msg.Accepted | msg.Rejected]) -> None:
        match command:
            case msg.Generate(request):
                self._drafts[request.key] = self._spawn(self._generate(request))
            case msg.Judge(score):
                self._drafts[score.key] = self._spawn(self._score(score))
            case msg.Stop(key):
                if (draft := self._drafts.pop(key, None)) is not None:
                    draft.cancel()
            case msg.Emit(key, piece):
                box = self._outboxes[key]
                box.pieces.append(piece)
                box.news.set()
            case msg.End(key):
                box = self._outboxes[key]
                box.end = command
                box.news.set()
            case msg.Accepted(key, agent):
                if agent == self.node.card.name:
                    self._outboxes.setdefault(key, _Outbox(self.clock()))
                answered.append(command)
            case msg.Rejected():
                answered.append(command)
            case msg.Route(agent, query):
                self._spawn(self._route(agent, query))
            case msg.Probe(agent, key):
                self._spawn(self._probe(agent, key))
            case msg.Cancel(agent, key):
                self._spawn(self._cancel(agent, key))

    def _resolve(self, result: msg.Accepted | msg.Rejected) -> None:
        """Tell whoever asked; the first pieces travel with the acceptance."""
        key, box = result.key, self._outboxes.get(result.key)
        if isinstance(result, msg.Accepted) and box is not None:
            if box.pieces or box.end or key in self.node.turns:
                result = msg.Accepted(key, result.agent, result.hops, msg.Batch(tuple(box.pieces), box.end))
            else:  # asked again, after nobody had pulled the answer in time
                del self._outboxes[key]
                result = msg.Rejected(key, result.agent, "failed", "its answer was given up")
        for asker in self._askers.pop(key, ()):
            if not asker.done():
                asker.set_result(result)

    async def _generate(self, request: msg.Request) -> None:
        key, generation = request.key, request.generation
        finished = False
        try:
            async with contextlib.aclosing(self.engine.generate(request)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    finished = piece.finish is not None
                    self.step(msg.Drafted(key, generation, sound(piece)))
            if not finished:
                raise RuntimeError("the engine's stream ended without a finish")
        except Exception as error:
            self._draft_failed(key, generation, error)
        finally:
            self._drafted(key)

    async def _score(self, request: msg.ScoreRequest) -> None:
        try:
            scores = sound(await self.engine.score(request))
        except Exception as error:
            self._draft_failed(request.key, request.generation, error)
        else:
            self.step(msg.Scored(request.key, request.generation, scores))
        finally:
            self._drafted(request.key)

    def _draft_failed(self, key: msg.Key, generation: int, error: Exception) -> None:
        reasons: dict[type[Exception], str] = {QueryTooLong: "too_long", BudgetExceeded: "budget", AgentDied: "died"}
        reason = reasons.get(type(error), "failed")
        if reason == "failed":
            log.warning("engine of %s failed on query %s: %r", self.node.card.name, key[0], error)
        self.step(msg.DraftFailed(key, generation, reason, unicode(str(error) or repr(error))))

    async def _route(self, agent: str, query: msg.Query) -> None:
        try:
            result = await self.transport.route(agent, query)
        except AgentError as error:
            result = msg.Rejected(query.key, agent, error.reason, str(error))
        except Exception as error:  # nobody else would hear of it
            log.exception("agent %s cannot forward query %s", self.node.card.name, query.id)
            result = msg.Rejected(query.key, agent, "failed", repr(error))
        self.step(result)

    async def _probe(self, agent: str, key: msg.Key) -> None:
        try:
            alive = await self.transport.probe(agent, key)
        except AgentError:
            alive = False
        self.step(msg.Alive(key, agent) if alive else msg.Rejected(key, agent, "stalled"))

    async def _cancel(self, agent: str, key: msg.Key) -> None:
        with contextlib.suppress(AgentError):
            await self.transport.cancel(agent, key)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _drafted(self, key: msg.Key) -> None:
        """The draft that runs now is over: there is nothing to stop any more, unless another has begun since."""
        if self._drafts.get(key) is asyncio.current_task():
            del self._drafts[key]

    async def _tick(self) -> None:
        """Look for what is due while there is anything to look after."""
        while self.node.turns or self._outboxes:
            await asyncio.sleep(self.tick_s)
            try:
                self.step(msg.Tick())
            except Exception:  # a plug-in's; what else is due must not wait for it
                log.exception("agent %s", self.node.card.name)
            for key in self._given_up():
                await self.cancel(key)
        self._ticking = None

    def _touch(self, key: msg.Key) -> None:
        """Somebody pulls an answer; outboxes stand in the order of their last pulls."""
        box = self._outboxes.pop(key, None)
        if box is not None:
            box.pulled = self.clock()
            self._outboxes[key] = box

    def _given_up(self) -> list[msg.Key]:
        """Answers that nobody has pulled for too long; looks no further than the first whose time has not come."""
        longest, over = self.clock() - self.lease_s, list[msg.Key]()
        for key, box in self._outboxes.items():
            if box.pulled < longest:
                over.append(key)
            elif box.pulled < math.inf:
                break
        return over

    def _check(self) -> None:
        if self.dead.is_set():
            raise AgentDied(self.node.card.name)
