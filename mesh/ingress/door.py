"""One replica's way into the mesh: whoever comes by HTTP or gRPC is let in, asks, and is written down here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from agents.errors import ConfigError, MeshError
from agents.messages import Reply
from mesh.ingress.curves import Curves
from mesh.ingress.errors import Refused, refusal
from mesh.ingress.gate import Gate
from mesh.ingress.keys import ANYBODY, Key, Keys
from mesh.ingress.ledger import Books, Record
from mesh.ingress.limits import Limits
from mesh.ingress.meters import Meters, NoMeters, band, measure
from mesh.ingress.names import Model, read_model
from mesh.ingress.newcomers import check_newcomer
from mesh.ingress.served import ServedMesh
from topologies import TopologyError

log = logging.getLogger(__name__)
_FOR_USERS = (
    *("agent", "state", "cost", "incarnation", "deaths"),
    *("in_hand", "drafting", "queued", "engine_running"),
)
_LAST = 20


@dataclass(frozen=True, slots=True)
class Question:
    """A query that has been read, however it came. ``arrived`` is on ``time.monotonic``'s clock.

    ``options`` are ``Mesh.ask``'s.
    """

    who: Key
    messages: list[dict[str, str]]
    alpha: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    arrived: float = field(default_factory=time.monotonic)
    id: str = field(default_factory=lambda: "chatcmpl-" + os.urandom(16).hex())


class Door:
    """Asks one mesh for everybody who comes.

    Args:
        limits: of the whole server. replicas: among how many it shares them.
        ledger: where queries are written down.
        trust_admins: whether agents that they add may run any code, and send away the server's keys.
        curves: utility over alpha, for the page.
    """

    def __init__(
        self,
        mesh: ServedMesh,
        ledger: Books,
        keys: Keys | None = None,
        limits: Limits | None = None,
        replicas: int = 1,
        meters: Meters | None = None,
        trust_admins: bool = False,
        curves: Curves | None = None,
    ) -> None:
        self.mesh, self.ledger, self.keys = mesh, ledger, keys or Keys()
        self.limits = (limits or Limits()).share(replicas)
        self.gate = Gate(self.limits)
        self.meters: Meters = meters or NoMeters()
        self.trust_admins, self.curves = trust_admins, curves
        self._writing: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------ who comes

    def known(self, key: str | None) -> Key:
        """Whose key it is; anybody's, where there are no keys. Raises Refused (401)."""
        if not self.keys:
            return ANYBODY
        found = self.keys.find(key) if key else None
        if found is None:
            told = "no API key: send `Authorization: Bearer KEY`" if not key else "this API key is not known"
            raise Refused(401, "invalid_api_key", told)
        return found

    def admin(self, who: Key) -> None:
        """Raises Refused (403) for who is none."""
        if who.role != "admin":
            told = "this needs an admin's key" if self.keys else "this needs an admin's key, and the server has no keys"
            raise Refused(403, "admin_only", told)

    # ------------------------------------------------------------------ asking

    async def model(self, name: str) -> Model:
        """What a model's name says. Raises Refused."""
        return read_model(name, await self.agents())

    async def agents(self) -> list[str]:
        """Their names, the cheapest first. Raises MeshClosed."""
        cards = (await self.mesh.members()).cards
        return sorted(cards, key=lambda name: (cards[name].cost, name))

    async def ask(self, question: Question) -> Reply:
        """The whole reply. Raises MeshError."""
        async with self._inside(question, streams=False) as note:
            options = self._options(question)
            note.reply = await self.mesh.aask(question.messages, question.alpha, id=question.id, **options)
        assert note.reply is not None
        return note.reply

    async def stream(self, question: Question) -> AsyncGenerator[str | Reply]:
        """The text as it comes, then the reply; closing it stops the generation. Raises MeshError."""
        async with self._inside(question, streams=True) as note:
            options = self._options(question)
            asked = self.mesh.astream(question.messages, question.alpha, id=question.id, **options)
            async with contextlib.aclosing(asked) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Reply):
                        note.reply = piece
                    yield piece

    def check(self, question: Question) -> None:
        """Raises Refused for what is too much for this server."""
        if len(question.messages) > self.limits.messages:
            told = f"messages: {len(question.messages)} of them; this server takes at most {self.limits.messages}"
            raise Refused(400, "too_many_messages", told, "messages")
        most = question.options.get("max_tokens", 0)
        if isinstance(most, int) and most > self.limits.max_tokens:
            told = f"max_tokens: {most}; it must be at most {self.limits.max_tokens}"
            raise Refused(400, "invalid_value", told, "max_tokens")

    def _options(self, question: Question) -> dict[str, Any]:
        return {"max_tokens": min(self.mesh.config.max_tokens, self.limits.max_tokens), **question.options}

    @contextlib.asynccontextmanager
    async def _inside(self, question: Question, streams: bool) -> AsyncIterator[_Note]:
        """The way in and out: its turn first, and afterwards it is written down what became of it."""
        note = _Note(time.time())
        alpha = self.mesh.config.alpha if question.alpha is None else question.alpha
        try:
            self.check(question)
            async with self.gate.admitted(question.who.name, streams, question.options.get("priority", "normal")):
                self._levels()
                self.meters.observe("mesh_queue_seconds", time.monotonic() - question.arrived, {})
                yield note
        except Exception as error:
            note.ended = refusal(error).code
            raise
        finally:
            self._write_down(question, note, alpha)

    def _write_down(self, question: Question, note: _Note, alpha: float) -> None:
        self._levels()
        if note.reply is not None:
            measure(self.meters, note.reply)
        else:
            legal = isinstance(alpha, float) and 0 <= alpha <= 1
            alpha = alpha if legal else self.mesh.config.alpha
            self.meters.count("mesh_queries", 1, {"ended": note.ended, "alpha": band(alpha)})
        reply = replace(note.reply, text="") if note.reply else None
        record = Record(question.id, question.who.name, note.time, alpha, reply, "" if reply else note.ended)
        task = asyncio.get_running_loop().create_task(self.ledger.write(record))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def _levels(self) -> None:
        self.meters.level("mesh_running", self.gate.running)
        self.meters.level("mesh_waiting", self.gate.waiting)

    # ------------------------------------------------------------------ what one can know

    async def ready(self) -> bool:
        """Whether anybody is there to answer."""
        try:
            directory = await self.mesh.members()
        except MeshError:
            return False
        return any(name not in directory.down for name in directory.cards)

    async def overview(self, who: Key) -> dict[str, Any]:
        """The mesh as it is now: agents with health and load, topology, and the last queries (one's own)."""
        directory, rows = await self.mesh.members(), await self.mesh.rows()
        config, topology = self.mesh.config, directory.topology
        all_of_it = who.role == "admin"
        return {
            "name": config.name,
            "alpha": config.alpha,
            "entry": next(iter(directory.entries()), None),
            "agents": [{key: row[key] for key in row if all_of_it or key in _FOR_USERS} for row in rows],
            "topology": {"kind": config.topology.kind, "neighbours": _edges(directory) if topology else {}},
            "examples": list(config.understands.examples) if config.understands else [],
            "last": [record.told() for record in await self.ledger.last(_LAST, self._seen_by(who))],
        }

    async def trace(self, identity: str, who: Key) -> dict[str, Any]:
        """What became of a query. Raises Refused (404), also for another's."""
        return (await self._record(identity, who)).told()

    async def feedback(self, identity: str, right: bool, who: Key) -> None:
        """Say whether a reply was right; it is learnt from once. Raises Refused: 404, and 409 for a change of mind."""
        record = await self._record(identity, who)
        if record.reply is None:
            raise Refused(404, "no_reply", f"id: {identity[:80]!r} ended with an error, not a reply", "id")
        if record.right not in (None, right):
            told = (
                f"right: {right}; {identity[:80]!r} has been said to be {'right' if record.right else 'wrong'} already"
            )
            raise Refused(409, "judged_already", told, "right")
        if not await self.ledger.judge(identity, right):
            return
        await self.mesh.judge(record.reply, right)
        self.meters.count("mesh_feedback", 1, {"agent": record.reply.agent, "right": str(right).lower()})

    async def add_agent(self, settings: Mapping[str, Any]) -> None:
        """Start one more agent. Raises Refused, ConfigError, PlacementError."""
        if settings.get("name") in await self.agents():
            told = f"name: there is an agent {settings['name']!r} already; choose another name"
            raise Refused(409, "agent_exists", told, "name")
        check_newcomer(settings, self.trust_admins)
        try:
            await self.mesh.join(settings)
        except TopologyError as error:
            raise Refused(400, "invalid_value", str(error)) from None

    async def remove_agent(self, name: str) -> None:
        """End an agent. Raises Refused: 404, and 400 for the last one."""
        there = await self.agents()
        if name not in there:
            told = f"agent: no agent {name[:80]!r}; there are {', '.join(there)}"
            raise Refused(404, "no_such_agent", told, "name")
        try:
            await self.mesh.part(name)
        except ConfigError as error:  # another has just done it
            raise Refused(404, "no_such_agent", str(error), "name") from None
        except TopologyError as error:
            raise Refused(400, "invalid_value", str(error)) from None

    async def _record(self, identity: str, who: Key) -> Record:
        record, key = await self.ledger.find(identity), self._seen_by(who)
        if record is None or key not in (None, record.key):
            raise Refused(404, "no_such_query", f"id: no query {identity[:80]!r} among the last ones", "id")
        return record

    def _seen_by(self, who: Key) -> str | None:
        return None if who.role == "admin" else who.name


@dataclass(slots=True)
class _Note:
    """What became of a query so far; without a reply or an error it was cancelled."""

    time: float
    reply: Reply | None = None
    ended: str = "cancelled"


def _edges(directory: Any) -> dict[str, list[str]]:
    return {name: list(directory.neighbours(name)) for name in directory.cards}


def log_fault(request_id: str, error: BaseException) -> None:
    """A fault of ours, in the log: where, and of what kind; not what it says, which may be somebody's prompt."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    where = " < ".join(f"{os.path.basename(frame.filename)}:{frame.lineno}" for frame in reversed(frames))
    log.error("request %s: %s at %s", request_id, type(error).__name__, where)
