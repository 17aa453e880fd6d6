"""Processes that compute side by side."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

Key, Found = TypeVar("Key"), TypeVar("Found")

_GIVEN: list[Callable[[Any], Any]] = []  # in a process of ``spread``: what it works out
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # what torch, scikit-learn and numpy go by


@contextlib.contextmanager
def workers(
    processes: int, begin: Callable[..., None] | None = None, *given: Any, fresh: bool = False
) -> Iterator[ProcessPoolExecutor]:
    """Processes that share this machine's cores: together they compute in as many threads as there are cores, since
    more of them would spin while they wait for each other. They end with the one that began them.

    Args:
        begin: called with ``given`` in each process before anything else.
        fresh: a process for each job.
    """
    threads = str(max((os.cpu_count() or 1) // processes, 1))
    usual = {name: os.environ.get(name) for name in THREADS}
    os.environ.update({name: threads for name, before in usual.items() if before is None})
    once = 1 if fresh else None
    try:
        with ProcessPoolExecutor(
            processes, get_context("spawn"), _begin, (begin, *given), max_tasks_per_child=once
        ) as found:
            yield found
    finally:
        for name, before in usual.items():
            if before is None:
                del os.environ[name]


def spread(one: Callable[[Key], Found], keys: Iterable[Key], processes: int) -> Iterator[Found]:
    """``one`` of each key, in their order, worked out in processes; what it holds is sent but once to each of them."""
    if processes == 1:
        yield from map(one, keys)
        return
    with workers(processes, _give, one) as found:
        yield from found.map(_of, keys)


def _give(one: Callable[[Any], Any]) -> None:
    _GIVEN.append(one)


def _of(key: Any) -> Any:
    (one,) = _GIVEN
    return one(key)


def _begin(begin: Callable[..., None] | None, *given: Any) -> None:
    end_with_parent()
    if begin is not None:
        begin(*given)


def end_with_parent() -> None:
    """Have this process end when the one that began it does, though it be killed: else it would work on for nobody."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
