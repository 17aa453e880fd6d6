"""A mesh on real Ray while something breaks every few seconds: is every query answered once, or refused clearly?"""

from __future__ import annotations

import json
import signal
import statistics
import sys
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents.errors import MeshError
from agents.messages import Reply
from benchmarks.churn_faults import KINDS, Faults, Nodes, schedule
from mesh.client import Mesh

RATE = 25.0  # queries a second
CALM = 0.1  # share of the queries that are asked before the first fault
QUERIES_A_FAULT = 84  # one every three seconds or so
DEADLINE_S = 30.0
GRACE_S = 30.0  # what ends later than this after its deadline counts as hung
SLOW = 2.0  # a query that takes so many times the calm p99 has met a fault
CORE = ("first", "second", "third", "last")
ANSWER = "the answer to {query}"


@dataclass(frozen=True, slots=True)
class Asked:
    """One query: when it was asked and had ended, in seconds since the first, and how: answered, lost, duplicates (its
    answer came twice), or the name of the error.
    """

    at: float
    ended: float
    outcome: str


@dataclass(frozen=True, slots=True)
class Course:
    """What happened to one mesh: its queries, and when which fault was done to it. JSON, as a dict."""

    asked: tuple[Asked, ...]
    faults: tuple[tuple[float, str], ...]
    hung: int = 0
    refused_changes: tuple[str, ...] = ()

    @classmethod
    def read(cls, told: dict[str, Any]) -> Course:
        """From what ``dataclasses.asdict`` made of it."""
        asked, faults = (Asked(**one) for one in told.pop("asked")), ((at, kind) for at, kind in told.pop("faults"))
        return cls(tuple(asked), tuple(faults), told["hung"], tuple(told["refused_changes"]))


def settings(name: str) -> dict[str, Any]:
    """An agent of the pool: it answers, or refuses and forwards, after some tens of milliseconds."""
    costs = dict(zip(CORE, (0.1, 0.3, 0.5, 0.9), strict=True))
    engine = {"kind": "scripted", "answer": ANSWER, "pieces": 4, "delay_s": 0.03, "piece_s": 0.03}
    refuse = {"first": 0.5, "second": 0.5, "last": 0.0}.get(name, 0.3)
    return {"name": name, "cost": costs.get(name, 0.4), "engine": {**engine, "refuse": refuse}, "num_gpus": 0}


def pool() -> dict[str, Any]:
    """Four agents of two replicas each, in a mesh; queues are short, and silence is noticed soon."""
    return {
        "name": "churn",
        "topology": "mesh",
        "entry": CORE[0],
        "agents": [{**settings(name), "replicas": 2} for name in CORE],
        "limits": {"running": 16, "waiting": 16, "stall_s": 1.5, "lease_s": 5.0, "heartbeat_s": 1.0},
        "max_attempts": 8,
        "deadline_s": DEADLINE_S,
    }


def measure(queries: int, seed: int, pieces: int = 1, only: int | None = None, work: Path | None = None) -> Any:
    """Ask so many while faults are done to the mesh, in ``pieces`` one after the other, each on a cluster of its own;
    what the RESULT line holds.

    Args:
        only: this piece alone, from 1; the result is of those that are there.
        work: folder where pieces that are done are kept, and found again.
    """
    courses = []
    for piece in range(1, pieces + 1):
        file = work and work / f"{seed}-{queries}-{piece}of{pieces}.json"
        if file is not None and file.exists():
            courses.append(Course.read(json.loads(file.read_text())))
        elif only in (None, piece):
            courses.append(live_through(queries // pieces + (piece <= queries % pieces), f"{seed} {piece}"))
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(asdict(courses[-1])))
    return {"bench": "churn", "seed": seed, "pieces": len(courses), **figures(courses)}


def live_through(queries: int, seed: str) -> Course:
    """A mesh on a cluster of its own, asked and harmed from its first query to its last."""
    from mesh.running import connect, down, up

    nodes = Nodes()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else its nodes would outlive it; Ray has set another
    try:
        name = up(pool()).name
        with connect(name) as mesh:
            mesh.ask_many([f"warm up {number}" for number in range(100)], concurrency=8)
            faults = Faults(mesh, nodes, settings, CORE, seed)
            course = run(mesh, faults, queries, seed)
            assert mesh.ask("And now?").text == ANSWER.format(query="And now?")
        down(name)
        return course
    finally:
        nodes.shutdown()


def run(mesh: Mesh, faults: Faults, queries: int, seed: str) -> Course:
    """Ask one every ``1 / RATE`` seconds; once it has been calm for ``CALM`` of them, with a fault every
    ``QUERIES_A_FAULT``.
    """
    begin, calm = time.monotonic(), int(CALM * queries)
    kinds = schedule(max(len(KINDS), -(-(queries - calm) // QUERIES_A_FAULT)), seed)
    every, begun = (queries - calm) / len(kinds), 0
    asked: list[tuple[float, Future[Reply]]] = []
    ended: dict[int, float] = {}
    for number in range(queries):
        time.sleep(max(0.0, begin + number / RATE - time.monotonic()))
        if number >= calm + every * begun and begun < len(kinds):
            faults.do(kinds[begun])
            begun += 1
        future = mesh.submit(f"question {number}", id=str(number))
        asked.append((time.monotonic() - begin, future))
        future.add_done_callback(lambda _, number=number: ended.setdefault(number, time.monotonic() - begin))
    faults.healed()
    hung = _unended([future for _, future in asked] + faults.fillers)
    rows = tuple(
        Asked(at, ended.get(number, float("inf")), outcome(future, f"question {number}"))
        for number, (at, future) in enumerate(asked)
    )
    done = tuple(sorted((at - begin, kind) for at, kind in faults.done))
    return Course(rows, done, hung, tuple(faults.failures))


def outcome(future: Future[Reply], question: str) -> str:
    """How a query has ended."""
    if not future.done():
        return "lost"
    error = future.exception()
    if error is not None:
        return type(error).__name__ if isinstance(error, MeshError) else "lost"
    text, wanted = future.result().text, ANSWER.format(query=question)
    if text == wanted:
        return "answered"
    return "duplicates" if text.count(wanted) > 1 else "lost"


def figures(courses: list[Course]) -> dict[str, Any]:
    """Counts of how queries ended, latencies while calm and while not, and how fast each kind was routed around."""
    ends = Counter(one.outcome for course in courses for one in course.asked)
    calm, stormy = list[float](), list[float]()
    for course in courses:
        for one in course.asked:
            if one.outcome == "answered":
                (calm if one.ended < course.faults[0][0] else stormy).append(one.ended - one.at)
    errors = {kind: count for kind, count in ends.items() if kind not in ("answered", "lost", "duplicates")}
    return {
        "asked": sum(ends.values()),
        "answered": ends["answered"],
        "clear_errors": sum(errors.values()),
        "lost": ends["lost"],
        "duplicates": ends["duplicates"],
        "hung": sum(course.hung for course in courses),
        "faults": dict(Counter(kind for course in courses for _, kind in course.faults)),
        "p99_ratio": round(_p99(stormy) / _p99(calm), 2),
        "route_around_s": routed_around(courses, SLOW * _p99(calm)),
        "p50_s": {"calm": round(statistics.median(calm), 3), "faults": round(statistics.median(stormy), 3)},
        "p99_s": {"calm": round(_p99(calm), 3), "faults": round(_p99(stormy), 3)},
        "errors": errors,
        "refused_changes": [told for course in courses for told in course.refused_changes],
    }


def routed_around(courses: list[Course], limit: float) -> dict[str, float]:
    """Median over the faults of each kind: seconds from the fault until queries are answered within ``limit`` seconds
    from then on; looked for until the next fault.
    """
    until: dict[str, list[float]] = {}
    for course in courses:
        ends = [at for at, _ in course.faults[1:]] + [float("inf")]
        for (at, kind), end in zip(course.faults, ends, strict=True):
            slow = [one.at for one in course.asked if at <= one.at < end and one.ended - one.at > limit]
            until.setdefault(kind, []).append(max(slow, default=at) - at)
    return {kind: round(statistics.median(each), 2) for kind, each in sorted(until.items())}


def _unended(futures: list[Future[Reply]]) -> int:
    """How many have not ended although their time is over."""
    until = time.monotonic() + DEADLINE_S + GRACE_S
    while (left := sum(not future.done() for future in futures)) and time.monotonic() < until:
        time.sleep(0.1)
    return left


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(0.99 * (len(seconds) - 1))]
