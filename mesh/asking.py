"""Drives one owner in real time: performs its commands over a runtime, returns every outcome as an event."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from msgspec.structs import replace

from agents import messages as msg
from agents.errors import AgentError, MeshError
from mesh.owner import Owner
from mesh.runtimes.base import Runtime

PULL_WAIT_S = 5.0
T = TypeVar("T")


async def ask(
    owner: Owner,
    runtime: Runtime,
    put: Callable[[str], object],
    partings: set[asyncio.Task[None]],
    tick_s: float = 0.25,
) -> msg.Reply:
    """Give ``put`` the answer's text, piece by piece; returns the reply.

    Cancelling it cancels the query and stops whoever works on it, or begins to just then; ``partings`` holds the
    messages that say so, until they have arrived.

    Raises:
        MeshError: what ``Owner`` gave up with.
    """
    waiting: set[asyncio.Task[msg.OwnerEvent]] = set()
    events: list[msg.OwnerEvent] = [msg.Asked(owner.query)]
    ticked = time.monotonic()
    try:
        while True:
            for event in events:
                for command in owner.step(event, time.monotonic()):
                    if isinstance(command, msg.Emit):
                        if command.piece.text:
                            put(command.piece.text)
                    elif isinstance(command, msg.Done):
                        if command.error is not None:
                            raise command.error
                        assert command.reply is not None
                        return command.reply
                    elif isinstance(command, msg.Cancel):
                        _keep(_stop(runtime, command), partings)
                    else:
                        waiting.add(asyncio.create_task(_perform(runtime, command)))
            finished, waiting = await asyncio.wait(waiting, timeout=tick_s, return_when=asyncio.FIRST_COMPLETED)
            events = [task.result() for task in finished]
            if not finished or time.monotonic() - ticked >= tick_s:
                ticked = time.monotonic()
                events.append(msg.Tick())
    finally:
        for command in owner.step(msg.Cancelled(owner.query.key), time.monotonic()):  # nothing, where it is done
            if isinstance(command, msg.Cancel):
                _keep(_stop(runtime, command), partings)
        for task in waiting:
            _keep(_hear_out(owner, runtime, task), partings)


async def _perform(runtime: Runtime, command: msg.OwnerCommand) -> msg.OwnerEvent:
    match command:
        case msg.Route(agent, query):
            return await _reach(agent, query.key, runtime.route(agent, query))
        case msg.Pull(agent, key, cursor):
            batch = await _reach(agent, key, runtime.pull(agent, key, cursor, PULL_WAIT_S))
            if isinstance(batch, msg.Batch):
                return msg.Pulled(key, batch)
            return replace(batch, agent=runtime.blamed(agent))
        case msg.Probe(agent, key):
            alive = await _reach(agent, key, runtime.probe(agent, key))
            if alive is True:
                return msg.Alive(key, agent)
            return alive if isinstance(alive, msg.Rejected) else msg.Rejected(key, agent, "stalled")
    raise AssertionError(f"no command of an owner: {command}")


async def _reach(agent: str, key: msg.Key, call: Coroutine[Any, Any, T]) -> T | msg.Rejected:
    """What an agent answers; a rejection where it cannot be reached."""
    try:
        return await call
    except AgentError as error:
        return msg.Rejected(key, agent, error.reason, str(error))


async def _stop(runtime: Runtime, command: msg.Cancel) -> None:
    await _reach(command.agent, command.key, runtime.cancel(command.agent, command.key))


async def _hear_out(owner: Owner, runtime: Runtime, task: asyncio.Task[msg.OwnerEvent]) -> None:
    """Whoever had accepted before it could hear of the end is told to stop."""
    with contextlib.suppress(MeshError):
        for command in owner.step(await task, time.monotonic()):
            if isinstance(command, msg.Cancel):
                await _stop(runtime, command)


def _keep(work: Coroutine[Any, Any, None], partings: set[asyncio.Task[None]]) -> None:
    """Have it done without waiting for it."""
    task = asyncio.create_task(work)
    partings.add(task)
    task.add_done_callback(partings.discard)
