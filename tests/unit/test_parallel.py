"""Processes side by side: they share the cores, and end with whoever began them."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from benchmarks.parallel import spread, workers

BEGINS = """
import os, time
from benchmarks.parallel import workers

if __name__ == "__main__":
    with workers(1) as found:
        print(found.submit(os.getpid).result(), flush=True)
        found.submit(time.sleep, 600)
        time.sleep(600)
"""


def test_a_worker_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "begins.py"
    script.write_text(BEGINS)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)
        parent.send_signal(signal.SIGKILL)
        until = time.monotonic() + 20
        while _lives(worker):
            assert time.monotonic() < until, f"process {worker} lives on"
            time.sleep(0.05)


def test_what_is_spread_comes_back_in_order() -> None:
    """Of one process or of several; an error is the caller's."""
    for processes in (1, 2):
        assert [*spread(partial(pow, 2), range(6), processes)] == [1, 2, 4, 8, 16, 32]
        with pytest.raises(ValueError, match="math domain error"):
            list(spread(math.sqrt, [4, -1], processes))


def test_each_computes_in_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    with workers(2) as found:
        assert found.submit(os.getenv, "OMP_NUM_THREADS").result() == "3"
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    with workers(2) as found:
        assert found.submit(os.getenv, "OMP_NUM_THREADS").result() == "5"
    assert os.environ["OMP_NUM_THREADS"] == "5"


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
