from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.engines import guard

psutil = pytest.importorskip("psutil")
SLEEP = [sys.executable, "-c", "import time; time.sleep(100)"]
PARENT = """
import subprocess, sys, time
from agents.engines.guard import Guard
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
guard = Guard()
guard.watch([child.pid])
print(child.pid, guard.pid, flush=True)
time.sleep(100)
"""


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_close_kills_only_what_the_last_line_named() -> None:
    kept, killed = subprocess.Popen(SLEEP), subprocess.Popen(SLEEP)
    try:
        watching = guard.Guard()
        watching.watch([kept.pid, killed.pid])
        watching.watch([killed.pid])
        watching.close()
        assert killed.wait(5) == -9
        assert kept.poll() is None
    finally:
        for process in (kept, killed):
            process.kill()
            process.wait()


def test_children_die_with_a_parent_that_is_killed() -> None:
    root = Path(guard.__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=root, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert all(psutil.pid_exists(pid) for pid in pids)
        parent.kill()
        assert wait_for(lambda: not any(_alive(pid) for pid in pids))


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
