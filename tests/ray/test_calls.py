"""What becomes of a call when the Ray task that made it is cancelled, as Serve does with a client's that went away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import ray

from agents.actor import call
from tests.ray.conftest import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]


class Called:
    def __init__(self) -> None:
        self.begun, self.ended = 0, list[str]()

    async def work(self) -> None:
        self.begun += 1
        try:
            await asyncio.sleep(2)
            self.ended.append("done")
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise

    async def seen(self) -> tuple[int, list[str]]:
        return self.begun, self.ended


class Caller:
    async def ours(self, actor: Any) -> None:
        await call(actor, "work")

    async def rays(self, actor: Any) -> None:
        await actor.work.remote()


@pytest.mark.parametrize(("how", "end"), [("ours", "done"), ("rays", "cancelled")])
def test_it_goes_on(how: str, end: str) -> None:
    """Ours, that is: should Ray's own do so too one day, ``call`` is needed no more."""
    called, caller = (ray.remote(each).options(num_cpus=0).remote() for each in (Called, Caller))
    try:
        task = getattr(caller, how).remote(called)
        assert until(lambda: ray.get(called.seen.remote()) == (1, []))
        ray.cancel(task)
        with pytest.raises(ray.exceptions.TaskCancelledError):
            ray.get(task)
        assert until(lambda: ray.get(called.seen.remote()) == (1, [end]))
    finally:
        ray.kill(called)
        ray.kill(caller)
