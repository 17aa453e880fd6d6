"""Asking a file of questions: one JSON line a reply, written as it comes; asked again, it goes on where it stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol, TypeAlias

from agents.errors import MeshClosed, MeshError, NotUnderstood, QueryError
from agents.messages import Reply
from mesh.questions import Question, prompt
from mesh.tracing import reply_json

_START = b'{"question": '  # how each line begins: a torn one can be told from somebody else's text


class Asker(Protocol):
    """What answers; a ``Mesh`` is one."""

    def submit(self, query: str, alpha: float, **options: Any) -> Future[Reply]: ...


@dataclass(frozen=True, slots=True)
class Job:
    """One question, to be asked at one alpha."""

    question: Question
    alpha: float

    @property
    def id(self) -> str:
        return f"{self.question.id}@{self.alpha:g}"

    def line(self, outcome: Reply | MeshError) -> dict[str, Any]:
        """What came of it: the reply's fields, or ``error`` and ``why``; ``question`` is the question's id."""
        head = {"question": self.question.id, "id": self.id, "task": self.question.task}
        if isinstance(outcome, Reply):
            return {**head, **reply_json(outcome)}
        return {**head, "alpha": self.alpha, "error": type(outcome).__name__, "why": str(outcome)}


@dataclass(slots=True)
class Tally:
    """What the replies at one alpha add up to; the means are over those answered."""

    asked: int = 0
    errors: int = 0
    sums: Counter[str] = field(default_factory=Counter)
    agents: Counter[str] = field(default_factory=Counter)

    def add(self, line: Mapping[str, Any]) -> None:
        self.asked += 1
        if "error" in line:
            self.errors += 1
            return
        self.agents[line["agent"]] += 1
        for key in ("cost", "full_cost", "seconds"):
            self.sums[key] += line[key]

    def summary(self) -> dict[str, Any]:
        """``n``, ``errors``, the means (None without a reply), and ``share``: how much each agent answered."""
        answered = self.asked - self.errors
        means = {key: self.sums[key] / answered if answered else None for key in ("cost", "full_cost", "seconds")}
        share = {agent: count / answered for agent, count in self.agents.most_common()}
        return {"n": self.asked, "errors": self.errors, **means, "share": share}


class Replies:
    """A file of replies to these questions at these alphas: what is in it, what is missing, and adding to it.

    Replies that are there already are kept. Lines that tell of failures are taken out, since their questions
    are missing; so is a last line that broke off.

    Raises:
        QueryError: the file holds something else; it stays as it is.
    """

    def __init__(self, path: Path, questions: Sequence[Question], alphas: Sequence[float]) -> None:
        self.path, self.questions = path.resolve(), questions
        self.tallies = {alpha: Tally() for alpha in alphas}
        self._answered: set[tuple[str, float]] = set()
        if self.path.is_file():
            self._resume({question.id for question in questions})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab")

    @property
    def found(self) -> int:
        """How many of the replies were in the file."""
        return len(self._answered)

    def missing(self) -> Iterator[Job]:
        """What was not in the file, one alpha after the other."""
        for alpha in self.tallies:
            for question in self.questions:
                if (question.id, alpha) not in self._answered:
                    yield Job(question, alpha)

    def add(self, job: Job, outcome: Reply | MeshError) -> None:
        """Write a line; it stays there whatever happens next."""
        line = job.line(outcome)
        self._file.write(_encoded(line))
        self._file.flush()
        self.tallies[job.alpha].add(line)

    def __enter__(self) -> Replies:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def _resume(self, ids: set[str]) -> None:
        dropped, complete = set(), True
        with self.path.open("rb") as lines:
            for number, raw in enumerate(lines, start=1):
                complete = raw.endswith(b"\n")
                line = _line(raw, complete, f"{self.path}:{number}")
                if line is None:
                    dropped.add(number)
                    continue
                key = (line["question"], line["alpha"])
                if key[0] not in ids or key[1] not in self.tallies:
                    continue
                if "error" in line:
                    dropped.add(number)
                elif key not in self._answered:
                    self._answered.add(key)
                    self.tallies[key[1]].add(line)
        if dropped or not complete:
            self._rewrite(dropped)

    def _rewrite(self, dropped: set[int]) -> None:
        """Leave lines out, and end the last one; at no moment is there less than a whole file."""
        new = self.path.with_name(f"{self.path.name}.tmp")
        with self.path.open("rb") as lines, new.open("wb") as kept:
            for number, raw in enumerate(lines, start=1):
                if number not in dropped:
                    kept.write(raw.rstrip(b"\n") + b"\n")
        os.replace(new, self.path)


Record: TypeAlias = Callable[[Job, Reply | MeshError], None]


def ask_all(mesh: Asker, jobs: Iterable[Job], record: Record, concurrency: int = 16, **options: Any) -> None:
    """Ask every job, ``concurrency`` at a time, and ``record`` what comes of each as it comes.

    ``options`` are those of each query; a ``seed`` among them is that of the whole file, from which each question has
    its own: with one for all, all would draw alike.

    A question that fails is recorded with its error. However this ends, replies that have come are recorded
    and what is still being worked on is cancelled.

    Raises:
        QueryError: an option is wrong, which would fail every question.
        MeshClosed: the mesh was taken down.
    """
    waiting: dict[Future[Reply], Job] = {}
    seed = options.get("seed")
    try:
        for job in jobs:
            if seed is not None:
                options["seed"] = zlib.crc32(f"{seed}:{job.id}".encode())
            try:
                waiting[mesh.submit(prompt(job.question), job.alpha, id=job.id, **options)] = job
            except NotUnderstood as error:
                record(job, error)
            if len(waiting) >= concurrency:
                _settle(waiting, record)
        while waiting:
            _settle(waiting, record)
    finally:
        with _uninterrupted():
            for future, job in waiting.items():
                if not future.cancel() and future.exception() is None:
                    record(job, future.result())


def _settle(waiting: dict[Future[Reply], Job], record: Record) -> None:
    """Wait until something has come; record it, and forget it."""
    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
        outcome = _outcome(future)
        with _uninterrupted():
            record(waiting[future], outcome)
            del waiting[future]


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the end, so that no reply is recorded twice, or half."""
    if threading.current_thread() is not threading.main_thread():  # only that one is interrupted
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    usual = signal.signal(signal.SIGINT, lambda *interrupt: held.append(interrupt))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if held and callable(usual):
            usual(*held[0])


def _outcome(future: Future[Reply]) -> Reply | MeshError:
    try:
        return future.result()
    except MeshError as error:
        if isinstance(error, MeshClosed) or type(error) is QueryError:  # no other question would fare better
            raise
        return error


def _encoded(line: Mapping[str, Any]) -> bytes:
    # half a surrogate pair becomes an escape, which is what JSON has for it
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _line(raw: bytes, complete: bool, place: str) -> dict[str, Any] | None:
    """A line of replies; None for the one that broke off. Raises QueryError where it is something else."""
    try:
        line = json.loads(raw)
    except ValueError:
        line = None
        if not complete and (raw.startswith(_START) or _START.startswith(raw)):
            return None
    if not (isinstance(line, dict) and {"question", "alpha"} <= line.keys() and {"error", "agent"} & line.keys()):
        raise QueryError(f"out: {place} is no reply of `mesh ask --file`; choose another file, or remove that line")
    return line
