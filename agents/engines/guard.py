"""Ends a process's children when it is gone, even by kill -9, which leaves it no time to do so itself.

``Guard`` starts this file as a small process of its own, which reads lines of process ids from a pipe. When its
parent dies or closes the pipe, what the last line named is killed. (Linux could send a signal by itself, but
only when the *thread* that made a child ends, and not to grandchildren.)
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterable, Iterator

POLL_S = 0.5


class Guard:
    """Watches over the child processes of this one."""

    def __init__(self) -> None:
        # -I: this folder holds modules named as libraries. A session of its own: Ctrl-C is for its parent.
        command = [sys.executable, "-I", __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    def watch(self, pids: Iterable[int]) -> None:
        """From now on these are killed, and no others."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(sorted(pids)).encode() + b"\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """Kill what is still there of them; returns when that is done."""
        self._process.communicate()


def main() -> None:
    import psutil  # type: ignore[import-untyped]

    watched: dict[int, psutil.Process] = {}
    for line in _lines(os.getppid()):
        pids = json.loads(line)
        watched = {pid: process for pid, process in watched.items() if pid in pids}
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                watched.setdefault(pid, psutil.Process(pid))
    for process in watched.values():
        # psutil compares start times: another process that got the id is left alone
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _lines(parent: int) -> Iterator[bytes]:
    """Lines from stdin, until it ends or the parent is gone: a fork of the parent may hold the pipe open."""
    seen = b""
    while os.getppid() == parent:
        if select.select([0], [], [], POLL_S)[0]:
            read = os.read(0, 65536)
            if not read:
                return
            *lines, seen = (seen + read).split(b"\n")
            yield from lines


if __name__ == "__main__":
    main()
