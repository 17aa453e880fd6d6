"""``Mesh``: many agents as one thing you can ask."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import queue
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from agents.errors import AgentError, MeshError, QueryError
from agents.messages import Outcome, Query, Reply, given_id
from agents.spec import AgentSpec
from mesh.asking import ask as ask_owner
from mesh.assemble import agent_spec, agent_specs, models_folder
from mesh.background import Background, closed
from mesh.config import AgentConfig, MeshConfig, load, with_overrides
from mesh.control import Control, open_control
from mesh.owner import Owner
from mesh.query import Asked, checked_query, flag, whole
from mesh.tracing import Trace
from mesh.versions import read_version

T = TypeVar("T")
_KEPT = 10_000  # replies remembered for feedback
_GOODBYE_S = 1.0  # how long close() waits until agents have heard that their work is not wanted


class Mesh:
    """A pool of agents that route queries among themselves.

    >>> with Mesh.from_yaml("scripted") as mesh:
    ...     reply = mesh.ask("What is 2 + 2?", alpha=0.5)

    Every method exists as a plain call, safe from any thread; ``aask`` and ``astream`` are for asyncio. Asking
    starts the mesh where ``start`` was not called.

    Args:
        config: a checked configuration; ``from_yaml`` makes one.
        models_dir: where models are looked for by their ``local_name`` before the hub; default ``MESH_MODELS``.
        control: opens the hold on a mesh that runs already (see ``mesh.connect``); None: start one of one's own.
    """

    def __init__(
        self,
        config: MeshConfig,
        models_dir: str | Path | None = None,
        control: Callable[[], Coroutine[Any, Any, Control]] | None = None,
    ) -> None:
        self.config, self.models_dir = config, models_folder(models_dir)
        self._trace = Trace(config.trace if control is None else None)  # a running mesh has its own
        self._background: Background | None = None
        self._control: Control | None = None
        self._connect = control
        self._lock = threading.RLock()
        self._closed = False
        self._partings: set[asyncio.Task[None]] = set()  # cancellations on their way
        self._replies: dict[str, Reply] = {}

    @classmethod
    def from_yaml(
        cls, source: str | Path | Mapping[str, Any], models_dir: str | Path | None = None, **overrides: Any
    ) -> Mesh:
        """A mesh from a YAML file, a ready pool's name, or the same as a mapping; ``overrides`` replace its settings.

        Raises:
            ConfigError: tells every wrong key, its value, its line, and what would be right.
        """
        config = load(source)
        return cls(with_overrides(config, **overrides) if overrides else config, models_dir)

    # ------------------------------------------------------------------ life

    def start(self) -> Mesh:
        """Start every agent and wait until all can answer; does nothing on a started mesh.

        Raises:
            PlacementError, ConfigError: an agent cannot start, and why.
        """
        with self._lock:
            if self._closed:
                raise closed(self.config.name)
            if self._control is None:
                if self._connect is None:
                    specs = agent_specs(self.config, self.models_dir)  # what is wrong there leaves nothing to close
                self._open(self._connect or (lambda: open_control(self.config, specs, self._trace)))
        return self

    def close(self) -> None:
        """End what this object started: every agent of its own, nothing of a mesh that it is connected to.

        Whoever still waits for a reply gets MeshClosed.
        """
        with self._lock:
            if self._closed:
                return
            if self._background is not None:
                self._background.check_thread()
            self._closed = True
        try:
            if self._background is not None:
                self._background.close(self._end)
        finally:
            self._trace.close()

    def __enter__(self) -> Mesh:
        return self.start()

    def __exit__(self, *raised: object) -> None:
        self.close()

    # ------------------------------------------------------------------ asking

    def ask(self, query: Asked, alpha: float | None = None, **options: Any) -> Reply:
        """Ask, and wait for the reply.

        Args:
            query: a text, or chat messages ``{"role": ..., "content": ...}`` of which the last is the user's.
            alpha: preference in [0, 1]: 0 wants the best answer, 1 the cheapest; default: the configuration's.
            max_tokens: bounds the answer. deadline_s: bounds the wait. max_cost: bounds the full cost.
            entry: where to begin instead of the entry agent. may_decline: "nobody here knows" is a legal reply.
            max_hops: how often it may be forwarded; with 0 the first agent has to answer, and one named as ``entry``
                has no stand-in either.
            priority: low, normal or high: where a queue is full, the lowest gives way.
            id: the query's id. seed: what randomness follows from; default: the query's text.

        Raises:
            QueryError: the query, alpha or an option is wrong.
            DeadlineExceeded, NoAgentLeft, AgentBusy: nobody could answer in time, or at all.
        """
        return self._call(self._ask, *self._begin(query, alpha, **options))

    def submit(self, query: Asked, alpha: float | None = None, **options: Any) -> Future[Reply]:
        """Ask, and get a future; cancelling it stops whoever works on the query."""
        return self._submit(self._ask, *self._begin(query, alpha, **options))

    async def aask(self, query: Asked, alpha: float | None = None, **options: Any) -> Reply:
        """``ask`` for asyncio; cancelling the task stops whoever works on the query."""
        checked = await self._begun(query, alpha, **options)
        return await asyncio.wrap_future(self._submit(self._ask, *checked))

    def ask_many(
        self, queries: Iterable[Asked], alpha: float | None = None, concurrency: int = 64, **options: Any
    ) -> list[Reply | MeshError]:
        """Ask all of them, ``concurrency`` at a time; the replies in order, an error in place of one that failed."""
        checked_query("options are wrong for every query, or for none", self._options(alpha, options))
        self.start()
        places = threading.Semaphore(whole("concurrency", concurrency, 1))
        futures: list[Future[Reply]] = []
        try:
            for query in queries:
                places.acquire()
                try:
                    future = self.submit(query, alpha, **options)
                except MeshError as error:
                    future = Future()
                    future.set_exception(error)
                future.add_done_callback(lambda _: places.release())
                futures.append(future)
            return [_outcome(future) for future in futures]
        finally:
            for future in futures:
                future.cancel()  # interrupted: nobody wants them any more

    def stream(self, query: Asked, alpha: float | None = None, **options: Any) -> Iterator[str | Reply]:
        """The answer's text piece by piece as it comes, then the ``Reply``; breaking off cancels the query."""
        checked = self._begin(query, alpha, **options)
        pieces: queue.SimpleQueue[str | Reply | None] = queue.SimpleQueue()
        ended = self._pump(pieces.put, *checked)
        try:
            while (piece := pieces.get()) is not None:
                yield piece
            ended.result()
        finally:
            ended.cancel()

    async def astream(self, query: Asked, alpha: float | None = None, **options: Any) -> AsyncGenerator[str | Reply]:
        """``stream`` for asyncio."""
        checked = await self._begun(query, alpha, **options)
        pieces: asyncio.Queue[str | Reply | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def put(piece: str | Reply | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        ended = self._pump(put, *checked)
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            ended.result()
        finally:
            ended.cancel()

    def feedback(self, reply_id: str, right: bool) -> None:
        """Say whether a reply was right: agents on its path that learn hear of it.

        Raises:
            QueryError: no such reply among the last ten thousand, or ``right`` is neither True nor False.
        """
        reply = self._replies.get(reply_id)
        if reply is None:
            told = f"reply_id: {reply_id!r}; it must be the id of one of the last {_KEPT} replies of this mesh"
            raise QueryError(told)
        running, right = self._running, flag("right", right)
        self._trace("feedback", id=reply_id, right=right)
        self._call(self._tell_path, running, reply, right)

    # ------------------------------------------------------------------ agents

    def add_agent(self, agent: AgentConfig | Mapping[str, Any]) -> None:
        """Start one more agent, which joins the topology. Raises ConfigError, PlacementError."""
        self._call(self.start()._running.add, self._spec(agent))

    def remove_agent(self, name: str, drain_s: float = 0.0) -> None:
        """End an agent, which leaves the topology; it has ``drain_s`` to answer what it has in hand, and others answer
        the rest. Raises ConfigError for an unknown one.
        """
        self._call(self.start()._running.remove, name, drain_s)

    def scale_agent(self, name: str, replicas: int, drain_s: float = 60.0) -> None:
        """Have so many replicas of an agent share its queries; those that are too many answer what they have in hand,
        for at most ``drain_s``. Returns when new ones are up, or wait for a place: ``status`` tells.

        Raises:
            ConfigError: there is no such agent.
        """
        self._call(self.start()._running.scale, name, whole("replicas", replicas, 1), drain_s)

    def upgrade_agent(self, agent: AgentConfig | Mapping[str, Any], drain_s: float = 60.0) -> None:
        """Put another model, policy or price in an agent's place: its new replicas start beside the old ones, take what
        comes once all are well, and the old ones answer what they have in hand, for at most ``drain_s``.

        Raises:
            ConfigError, PlacementError: it cannot start, or there is no such agent; nothing has changed.
        """
        self._call(self.start()._running.upgrade, self._spec(agent), drain_s)

    def update_agent(self, name: str, adapter: str | Path | None) -> None:
        """Have an agent serve another adapter (None: its bare model), with the calibration that training has put beside
        it; nobody's query is lost, and an agent that is started again comes back with it.

        Raises:
            AdapterError: it does not fit its model; nothing has changed. ConfigError: no such agent.
        """
        self._call(self.start()._running.update, name, read_version(adapter))

    def rollback_agent(self, name: str) -> None:
        """Have an agent serve what it served before its last update. Raises ConfigError where there was none."""
        self._call(self.start()._running.update, name, None)

    def status(self) -> list[dict[str, Any]]:
        """One row an agent: name, state, cost, GPUs, pid, queries in hand and queued, what its engine says."""
        return self._call(self.start()._running.status)

    # ------------------------------------------------------------------ within

    @property
    def _running(self) -> Control:
        if self._control is None or self._closed:
            raise closed(self.config.name)
        return self._control

    def _open(self, control: Callable[[], Coroutine[Any, Any, Control]]) -> None:
        self._background = Background(self.config.name)
        try:
            self._control = self._call(control)
        except BaseException:
            self.close()
            raise
        here = weakref.ref(self)  # closed before Ray's own exit, which was registered earlier: else Ray comes back
        atexit.register(lambda: mesh.close() if (mesh := here()) else None)

    def _submit(self, work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> Future[T]:
        assert self._background is not None
        return self._background.submit(work, *args)

    def _call(self, work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        assert self._background is not None
        return self._background.call(work, *args)

    async def _end(self) -> None:
        """The last that happens: agents hear which work is not wanted any more, then one's own are ended."""
        if self._partings:
            await asyncio.wait(self._partings, timeout=_GOODBYE_S)
        if self._control is not None:
            await self._control.close()

    def _pump(self, put: Callable[[str | Reply | None], object], query: Query, entry: str | None) -> Future[None]:
        """Give ``put`` every piece, then None; cancelling what comes back cancels the query."""

        async def pump() -> None:
            put(await self._ask(query, entry, put))

        ended = self._submit(pump)
        ended.add_done_callback(lambda _: put(None))
        return ended

    async def _ask(self, query: Query, entry: str | None, put: Callable[[str], object] = lambda _: None) -> Reply:
        """The reply; ``put`` is given its text piece by piece."""
        running, limits = self._running, self.config.limits
        directory = await running.directory()
        if entry is not None and entry not in list(directory.cards):  # it may be anything, also unhashable
            raise QueryError(f"entry: unknown agent {entry!r}; there are {', '.join(directory.cards)}")
        entries = directory.entries(entry, alone=not query.hops_left)
        owner = Owner(query, entries, directory.cards, self.config.max_attempts, limits.stall_s)
        name = given_id(query.id)
        self._trace("asked", id=name, alpha=query.alpha)
        try:
            reply = replace(await ask_owner(owner, running.runtime, put, self._partings, limits.tick_s), id=name)
            self._remember(reply)
            await self._tell_path(running, reply, None)
            return reply
        except asyncio.CancelledError:
            self._trace("cancelled", id=name)
            raise
        except Exception as error:
            self._trace("failed", id=name, error=type(error).__name__, why=str(error))
            raise

    def _remember(self, reply: Reply) -> None:
        self._trace("answered", reply)
        self._replies[reply.id] = reply
        while len(self._replies) > _KEPT:
            self._replies.pop(next(iter(self._replies)))

    async def _tell_path(self, running: Control, reply: Reply, right: bool | None) -> None:
        """Tell those on the path that learn what became of the query."""
        cards = (await running.directory()).cards
        for name in dict.fromkeys(hop.agent for hop in reply.path if hop.agent in cards and cards[hop.agent].learns):
            outcome = Outcome(reply.id, reply.alpha, reply.path, reply.cost, reply.full_cost, right)
            with contextlib.suppress(AgentError):  # it died since: it has nothing to learn
                await running.runtime.tell(name, outcome)

    def _begin(self, query: Asked, alpha: float | None, **options: Any) -> tuple[Query, str | None]:
        checked = self._query(query, alpha, **options)
        self.start()
        return checked

    async def _begun(self, query: Asked, alpha: float | None, **options: Any) -> tuple[Query, str | None]:
        checked = self._query(query, alpha, **options)
        await self._up()
        return checked

    async def _up(self) -> None:
        if self._control is None:  # else no thread: those of asyncio's pool may all be taken
            await asyncio.to_thread(self.start)

    def _spec(self, agent: AgentConfig | Mapping[str, Any]) -> AgentSpec:
        """All it takes to build one more agent. Raises ConfigError."""
        settings = agent.model_dump(exclude_unset=True) if isinstance(agent, AgentConfig) else agent
        checked = load({"name": self.config.name, "seed": self.config.seed, "agents": [settings]}).agents[0]
        return agent_spec(self.config, checked, self.models_dir)

    def _query(self, query: Asked, alpha: float | None, **options: Any) -> tuple[Query, str | None]:
        checked, entry = checked_query(query, self._options(alpha, options))
        self.config.check_understood(checked.messages[-1].content)
        return checked, entry

    def _options(self, alpha: float | None, options: Mapping[str, Any]) -> dict[str, Any]:
        defaults = {key: getattr(self.config, key) for key in ("alpha", "deadline_s", "max_tokens")}
        return {**defaults, **options, **({} if alpha is None else {"alpha": alpha})}


def _outcome(future: Future[Reply]) -> Reply | MeshError:
    try:
        return future.result()
    except MeshError as error:
        return error
