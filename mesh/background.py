"""An event loop in a thread of its own, where a mesh lives, and what callers on other threads wait for there."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

import uvloop

from agents.errors import MeshClosed

T = TypeVar("T")


def closed(mesh: str) -> MeshClosed:
    """What is raised to whoever asks a mesh that is closed."""
    return MeshClosed(f"mesh {mesh!r} is closed; to go on asking, make a new one or connect again")


class Background:
    """Runs coroutines for other threads; what still runs when it is closed ends with MeshClosed.

    Args:
        mesh: the name for threads and errors.
    """

    def __init__(self, mesh: str) -> None:
        self._mesh, self._pid, self._closed = mesh, os.getpid(), False
        self._lock = threading.Lock()
        self._work: set[asyncio.Task[Any]] = set()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"mesh {mesh}", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> Future[T]:
        """Run ``work(*args)``; cancelling the future cancels it. Raises MeshClosed, also in a fork."""
        if self._pid != os.getpid():
            raise MeshClosed(f"mesh {self._mesh!r} did not come along through fork(): make a new one, or connect again")
        with self._lock:  # else the loop may end meanwhile, and nobody would ever hear
            if self._closed:
                raise closed(self._mesh)
            return asyncio.run_coroutine_threadsafe(self._until_closed(work, *args), self._loop)

    def call(self, work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Run ``work(*args)``, and wait for what it returns."""
        return self.result(self.submit(work, *args))

    def result(self, future: Future[T]) -> T:
        """Wait for a future; one that its caller no longer waits for, after Ctrl-C, is cancelled."""
        try:
            self.check_thread()
            return future.result()
        finally:
            future.cancel()

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Cancel all work, run ``last``, and end the thread; does nothing in a fork, which has no such thread."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._closed = True
        try:
            asyncio.run_coroutine_threadsafe(self._shut(last), self._loop).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def check_thread(self) -> None:
        """Raises RuntimeError in the thread of the mesh, which must not wait for itself."""
        if threading.current_thread() is self._thread:  # a future's callback: what it waits for would never come
            raise RuntimeError("this thread is the mesh's own and must not wait for it: use submit, or another thread")

    async def _until_closed(self, work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        task: asyncio.Task[Any] | None = asyncio.current_task()
        assert task is not None
        self._work.add(task)
        try:
            return await work(*args)
        except asyncio.CancelledError:
            if task not in self._work:  # it was close() that cancelled
                raise closed(self._mesh) from None
            raise
        finally:
            self._work.discard(task)

    async def _shut(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        work, self._work = self._work, set()
        await _end(work)
        try:
            await last()
        finally:
            await _end(asyncio.all_tasks() - {asyncio.current_task()})


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel them, and let them clean up."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
