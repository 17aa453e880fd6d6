"""What became of the last queries, for all replicas together: traces, feedback, and the page's list.

No text is in it: neither what was asked nor what was answered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct
from msgspec.msgpack import Decoder
from msgspec.structs import replace

from agents.errors import MeshClosed
from agents.messages import Reply
from agents.wire import pack
from mesh.ingress.wire import about

KEPT = 10_000
SUFFIX = "/@ledger"
CALLS = 20_000  # of Ray's and Serve's own bounds, so that ours are the ones that callers meet
_ANSWER_S = 5.0


class Record(Struct, frozen=True):
    """One query: whose (a key's name), when (seconds since the epoch), and its reply without the text, or its error."""

    id: str
    key: str
    time: float
    alpha: float
    reply: Reply | None = None
    error: str = ""
    right: bool | None = None

    def told(self) -> dict[str, Any]:
        """As JSON."""
        known = about(self.reply) if self.reply else {"id": self.id, "alpha": self.alpha, "error": self.error}
        return {**known, "time": self.time, "right": self.right}


_read = Decoder(list[Record]).decode


class Books(Protocol):
    """The last queries, here or elsewhere."""

    async def write(self, record: Record) -> None:
        """Remember a query."""
        ...

    async def find(self, identity: str) -> Record | None:
        """The query of that id, where it is among the last."""
        ...

    async def judge(self, identity: str, right: bool) -> bool:
        """Remember whether a reply was right; False where that had been said before, and counts."""
        ...

    async def last(self, count: int, key: str | None) -> list[Record]:
        """The last ``count`` queries, the newest first; only those of ``key`` where it is one."""
        ...


class Ledger:
    """``Books`` in this process.

    Args:
        kept: how many.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept, self._records = kept, dict[str, Record]()  # the newest last

    async def write(self, record: Record) -> None:
        self._records[record.id] = record
        while len(self._records) > self._kept:
            self._records.pop(next(iter(self._records)))

    async def find(self, identity: str) -> Record | None:
        return self._records.get(identity)

    async def judge(self, identity: str, right: bool) -> bool:
        record = self._records.get(identity)
        if record is None or record.right is not None:
            return False
        self._records[identity] = replace(record, right=right)
        return True

    async def last(self, count: int, key: str | None) -> list[Record]:
        mine: Sequence[Record] = [each for each in self._records.values() if key in (None, each.key)]
        return list(mine[: -count - 1 : -1])


class LedgerActor(Ledger):
    """A ledger that replicas write to over Ray."""

    async def take(self, records: bytes) -> None:
        """Remember several, packed."""
        for record in _read(records):
            await self.write(record)


def open_ledger(mesh: str) -> Any:
    """The ledger of a mesh that is up, an actor; ``mesh down`` ends it with the rest."""
    import ray

    from agents.actor import NAMESPACE
    from mesh.runtimes.ray import ON_HEAD

    options = {"name": mesh + SUFFIX, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
    options["resources"] = ON_HEAD  # as the server: no other machine's loss takes what it knows along
    return ray.remote(LedgerActor).options(**options, num_cpus=0, max_restarts=-1, max_concurrency=CALLS).remote()


class SharedLedger:
    """The ledger of a mesh on Ray. Every method raises MeshClosed where it is gone, or silent for seconds."""

    def __init__(self, mesh: str) -> None:
        self._mesh, self._actor = mesh, None
        self._unsent: list[Record] = []
        self._sending = False

    async def write(self, record: Record) -> None:
        """Send it; while others are on their way it waits, and goes with all that have come meanwhile."""
        self._unsent.append(record)
        if self._sending:
            return
        self._sending = True
        try:
            while self._unsent:
                records, self._unsent = self._unsent, []
                with contextlib.suppress(MeshClosed):
                    await self._reach("take", pack(records))
        finally:
            self._sending = False

    async def find(self, identity: str) -> Record | None:
        found: Record | None = await self._reach("find", identity)
        return found

    async def judge(self, identity: str, right: bool) -> bool:
        first: bool = await self._reach("judge", identity, right)
        return first

    async def last(self, count: int, key: str | None) -> list[Record]:
        records: list[Record] = await self._reach("last", count, key)
        return records

    async def _reach(self, method: str, *args: Any) -> Any:
        """Call it; where it is gone since, as after `mesh down` and `mesh up`, the new one."""
        from ray.exceptions import RayActorError

        from agents.actor import call

        for _ in range(2):
            handle = self._handle()
            try:
                async with asyncio.timeout(_ANSWER_S):
                    return await call(handle, method, *args)
            except RayActorError:
                self._actor = None
            except TimeoutError:
                raise MeshClosed(f"the ledger of mesh {self._mesh!r} does not answer") from None
        raise MeshClosed(f"the ledger of mesh {self._mesh!r} is gone; it will be back, without what it knew")

    def _handle(self) -> Any:
        from mesh.running import running

        if self._actor is None:
            if self._mesh not in running():  # else one would be left that belongs to nothing
                raise MeshClosed(f"mesh {self._mesh!r} is down")
            self._actor = open_ledger(self._mesh)
        return self._actor
