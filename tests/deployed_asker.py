"""Asks the mesh that is up, from one of its machines: ``python deployed_asker.py IN OUT PACE_S``.

Each reply is a line of OUT. One question each PACE_S to begin with, ever more slowly as fewer are left, so that some
are left whatever happens meanwhile; once a file OUT.hurry is there, the rest at once, sixteen at a time.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mesh
from agents.errors import MeshError


def main(source: Path, target: Path, pace_s: float) -> None:
    questions = [json.loads(line) for line in source.read_text().splitlines()]
    writing = threading.Lock()
    with mesh.connect() as pool, ThreadPoolExecutor(16) as threads, target.open("w") as out:

        def ask(question: dict[str, Any]) -> None:
            row: dict[str, Any] = {"id": question["id"], "at": time.time()}
            try:
                reply = pool.ask(question["question"], 0.5)
                row |= {"text": reply.text, "agent": reply.agent, "attempts": reply.attempts, "seconds": reply.seconds}
            except MeshError as error:
                row |= {"error": f"{type(error).__name__}: {error}"}
            with writing:
                print(json.dumps(row), file=out, flush=True)

        asked = []
        for left, question in zip(range(len(questions), 0, -1), questions, strict=True):
            asked.append(threads.submit(ask, question))
            until = time.monotonic() + pace_s * len(questions) / left
            while time.monotonic() < until and not Path(f"{target}.hurry").exists():
                time.sleep(min(pace_s, 0.5))
        for each in asked:
            each.result()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
