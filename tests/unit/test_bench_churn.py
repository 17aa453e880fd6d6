"""The churn benchmark counts what it says: every end, calm and not, and when a fault was routed around."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from agents.errors import NoAgentLeft
from agents.messages import Hop, Reply
from benchmarks import churn
from benchmarks.churn import Asked, Course, figures, outcome, routed_around
from benchmarks.churn_faults import KINDS, schedule


def test_a_schedule_has_every_kind_equally_often_and_follows_from_its_seed() -> None:
    kinds = schedule(90, "1")
    assert {kind: kinds.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 10)
    assert kinds == schedule(90, "1") != schedule(90, "2")


def ended(text: str = "", error: BaseException | None = None) -> Future[Reply]:
    future: Future[Reply] = Future()
    if error is None:
        future.set_result(Reply("1", text, "a", 0.5, 0.1, 0.1, (Hop("a", "answered"),), 1.0))
    else:
        future.set_exception(error)
    return future


@pytest.mark.parametrize(
    ("future", "how"),
    [
        (ended("the answer to x"), "answered"),
        (ended("the answer to xthe answer to x"), "duplicates"),
        (ended("the answer to"), "lost"),
        (ended("the answer to y"), "lost"),
        (ended(error=NoAgentLeft("nobody")), "NoAgentLeft"),
        (ended(error=ZeroDivisionError()), "lost"),
        (Future(), "lost"),
    ],
)
def test_how_a_query_ended(future: Future[Reply], how: str) -> None:
    assert outcome(future, "x") == how


def course() -> Course:
    """100 calm queries of 0.1 s; then a fault that makes those of the next 2 s take 3 s, and one that harms nobody."""
    calm = [Asked(number / 10, number / 10 + 0.1, "answered") for number in range(100)]
    slow = [Asked(10 + number / 10, 13 + number / 10, "answered") for number in range(20)]
    rest = [Asked(12 + number / 10, 12.1 + number / 10, "answered") for number in range(78)]
    bad = [Asked(19.0, 19.1, "NoAgentLeft"), Asked(19.0, 19.1, "lost")]
    return Course((*calm, *slow, *rest, *bad), ((10.0, "killed"), (15.0, "cut")), 1, ("added: no place",))


def test_figures() -> None:
    told = figures([course(), course()])
    assert (told["asked"], told["answered"], told["clear_errors"], told["lost"]) == (400, 396, 2, 2)
    assert (told["duplicates"], told["hung"], told["errors"]) == (0, 2, {"NoAgentLeft": 2})
    assert told["faults"] == {"killed": 2, "cut": 2}
    assert told["p99_ratio"] == pytest.approx(30.0)
    assert told["route_around_s"] == {"cut": 0.0, "killed": 1.9}
    assert told["refused_changes"] == ["added: no place"] * 2


def test_a_fault_is_looked_at_until_the_next() -> None:
    one = Course((Asked(1.0, 9.0, "answered"), Asked(3.0, 9.0, "answered")), ((0.0, "killed"), (2.0, "cut")))
    assert routed_around([one], 1.0) == {"cut": 1.0, "killed": 1.0}


def test_pieces_are_kept_and_found_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lived: list[tuple[int, str]] = []

    def live_through(queries: int, seed: str) -> Course:
        lived.append((queries, seed))
        return course()

    monkeypatch.setattr(churn, "live_through", live_through)
    first: Any = churn.measure(401, 7, pieces=2, only=1, work=tmp_path)
    both: Any = churn.measure(401, 7, pieces=2, work=tmp_path)
    assert lived == [(201, "7 1"), (200, "7 2")]
    assert (first["pieces"], first["asked"]) == (1, 200)
    assert (both["pieces"], both["asked"]) == (2, 400)
