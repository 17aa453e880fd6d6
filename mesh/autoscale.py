"""How many replicas an agent has, by how much it has to do: a pure ``wanted()``, and a small loop around it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from agents.errors import MeshError
from mesh.supervisor import Supervisor

log = logging.getLogger(__name__)
_DRAIN_S = 300.0  # what one that is too many may take over its last queries
_Count = Annotated[int, Field(strict=True, ge=1, description="a whole number >= 1")]
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False, description="a number of seconds > 0")]


class Autoscale(BaseModel):
    """Between which numbers an agent's replicas may move, and when.

    One that has more in hand than ``busy`` of its places (``limits.running``, of all replicas) for ``up_after_s`` gets
    as many more as that takes; one that would have less than half of that with one replica less, for ``down_after_s``,
    loses one. An agent that may sleep (``least: 0``) loses its last one when it has had nothing to do for that long.
    Once it is asked, it is started again; until it is up, others stand in for it, as for one that is down.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    least: Annotated[int, Field(strict=True, ge=0, description="a whole number >= 0")] = 1
    most: _Count
    busy: Annotated[float, Field(gt=0, le=10, description="a share of the places, in (0, 10]")] = 0.8
    up_after_s: _Seconds = 3.0
    down_after_s: _Seconds = 60.0


@dataclass(slots=True)
class Pressure:
    """Since when an agent has had too much, or too little, to do."""

    high: float | None = None
    low: float | None = None


def wanted(rules: Autoscale, replicas: int, in_hand: int, places: int, pressure: Pressure, now: float) -> int:
    """How many replicas an agent should have.

    Args:
        in_hand: queries that it works on, or that wait for that, at all ``replicas``.
        places: how many one replica works on at once.
        pressure: carried on from one look to the next.
    """
    share = rules.busy * places
    high, low = in_hand > share * replicas, in_hand < 0.5 * share * (replicas - 1) or not in_hand
    pressure.high = (now if pressure.high is None else pressure.high) if high else None
    pressure.low = (now if pressure.low is None else pressure.low) if low else None
    if pressure.high is not None and now - pressure.high >= rules.up_after_s:
        return max(replicas, min(rules.most, math.ceil(in_hand / share)))
    if pressure.low is not None and now - pressure.low >= rules.down_after_s:
        pressure.low = now  # one at a time
        return max(rules.least, replicas - 1)
    return min(max(replicas, rules.least), rules.most)


async def autoscale(supervisor: Supervisor) -> None:
    """Look at every agent that wants it at each heartbeat, and scale it; never ends. One of which a replica is on its
    way, or waits for a place, is left as it is: more would wait as well.
    """
    pressures: dict[str, Pressure] = {}
    changes: set[asyncio.Task[object]] = set()
    while True:
        await asyncio.sleep(supervisor.heartbeat_s)
        records = supervisor.roll.records
        missed = set() if all(record.seats for record in records.values()) else await _missed(supervisor)
        for name in [name for name, record in records.items() if record.spec.autoscale]:
            try:
                number = await _wanted(supervisor, name, missed, pressures.setdefault(name, Pressure()))
            except MeshError as error:  # a replica died just now
                log.debug("%s is not scaled: %s", name, error)
                continue
            except Exception:  # whatever it is, the others are to be looked at all the same
                log.exception("agent %s is not scaled", name)
                continue
            if name in records and number != len(records[name].seats):
                change = asyncio.ensure_future(supervisor.scale(name, number, _DRAIN_S))
                changes.add(change)  # not awaited: it drains
                change.add_done_callback(changes.discard)
                await asyncio.sleep(0)


async def _missed(supervisor: Supervisor) -> set[str]:
    """Agents that were asked while none of their replicas was there."""
    asked = [supervisor.runtime.missed()]
    asked += [supervisor.runtime.missed(seat.address) for seat in supervisor.roll.seats() if seat.state == "up"]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    return set().union(*(answer for answer in answers if not isinstance(answer, BaseException)))


async def _wanted(supervisor: Supervisor, name: str, missed: Collection[str], pressure: Pressure) -> int:
    """How many replicas this agent should have now. Raises AgentError."""
    record, runtime = supervisor.roll.records[name], supervisor.runtime
    if not record.seats:
        return int(name in missed)
    lost = sum(seat.state == "given up" for seat in record.seats)  # is kept out, and does nothing
    if not record.up or len(record.up) + lost < len(record.seats):
        return len(record.seats)
    rows = await asyncio.gather(*(runtime.status(address) for address in record.up))
    in_hand = sum(row["drafting"] + row["queued"] for row in rows)
    places = record.spec.settings.running
    return lost + wanted(record.spec.autoscale, len(rows), in_hand, places, pressure, time.monotonic())
