"""What became of the last queries, for all replicas together: traces, feedback, and the page's list.

No text is in it: neither what was asked nor what was answered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from agents.errors import MeshClosed
from agents.messages import Reply
from mesh.ingress.wire import about

KEPT = 10_000
SUFFIX = "/@ledger"


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


class Ledger:
    """The last queries, the newest last.

    Args:
        kept: how many.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept, self._records = kept, dict[str, Record]()

    async def write(self, record: Record) -> None:
        """Remember a query."""
        self._records[record.id] = record
        while len(self._records) > self._kept:
            self._records.pop(next(iter(self._records)))

    async def find(self, identity: str) -> Record | None:
        """The query of that id, where it is among the last."""
        return self._records.get(identity)

    async def judge(self, identity: str, right: bool) -> None:
        """Remember whether a reply was right."""
        if record := self._records.get(identity):
            self._records[identity] = replace(record, right=right)

    async def last(self, count: int, key: str | None) -> list[Record]:
        """The last ``count`` queries, the newest first; only those of ``key`` where it is one."""
        mine: Sequence[Record] = [each for each in self._records.values() if key in (None, each.key)]
        return list(mine[: -count - 1 : -1])


class Books(Protocol):
    """A ledger, here or elsewhere."""

    async def write(self, record: Record) -> None:
        """Remember a query."""
        ...

    async def find(self, identity: str) -> Record | None:
        """The query of that id, where it is among the last."""
        ...

    async def judge(self, identity: str, right: bool) -> None:
        """Remember whether a reply was right."""
        ...

    async def last(self, count: int, key: str | None) -> list[Record]:
        """The last ``count`` queries, the newest first; only those of ``key`` where it is one."""
        ...


class SharedLedger:
    """The ledger of a mesh on Ray, an actor that goes with the mesh."""

    def __init__(self, mesh: str) -> None:
        self._name, self._actor = mesh + SUFFIX, None

    async def write(self, record: Record) -> None:
        """Send it off; nobody waits for it."""
        with contextlib.suppress(MeshClosed):
            self._handle().write.remote(record)

    async def find(self, identity: str) -> Record | None:
        found: Record | None = await self._reach(self._handle().find.remote(identity))
        return found

    async def judge(self, identity: str, right: bool) -> None:
        await self._reach(self._handle().judge.remote(identity, right))

    async def last(self, count: int, key: str | None) -> list[Record]:
        records: list[Record] = await self._reach(self._handle().last.remote(count, key))
        return records

    def _handle(self) -> Any:
        import ray

        from agents.actor import NAMESPACE

        if self._actor is None:
            try:
                self._actor = ray.get_actor(self._name, namespace=NAMESPACE)
            except ValueError:
                raise MeshClosed(f"the mesh of {self._name!r} is down, or not served") from None
        return self._actor

    async def _reach(self, call: Awaitable[Any]) -> Any:
        from ray.exceptions import RayActorError

        try:
            return await call
        except RayActorError:
            self._actor = None
            raise MeshClosed(f"the ledger {self._name!r} is gone; it will be back, without what it knew") from None
