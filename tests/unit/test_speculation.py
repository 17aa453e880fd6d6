"""The next agent begins before this one has decided: seconds and costs by hand, on two recorded agents."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agents.errors import QueryError
from agents.messages import Card
from benchmarks.outcomes import Outcomes
from benchmarks.speculation import Pool, compared, figures, measure, rows, seconds
from mesh.questions import Question
from topologies import Cascade

LATENCY_S = 0.001


def two(p: float, drafted: float, count: int = 2) -> Pool:
    """``a`` looks .5 s and drafts 2 s, ``b`` (the last) drafts 3 s, 10 + 4 * 10 of 50 each: full cost .1 and .9.
    ``a`` says ``p`` of itself before, and ``drafted`` of its draft; it is wrong and ``b`` is right.
    """
    questions = tuple(Question(f"q{n}", f"why {n}", "t", None, "x") for n in range(count))
    ones = np.ones(count)
    outcomes = Outcomes(
        questions,
        ("a", "b"),
        np.array([0.1, 0.9]),
        np.array([0 * ones, ones]),
        np.array([0.1 * ones, 0.9 * ones]),
        (("y",) * count, ("x",) * count),
        {"likelihood": np.log(np.array([drafted * ones, 0.99 * ones]))},
        {0.5: np.array([p * ones, ones])},
        np.array([0.02 * ones, ones * np.nan]),
    )
    draft = {"prompt_tokens": 10, "generated_tokens": 10}
    took = {
        "a": {
            "drafts": {q.id: {**draft, "seconds": 2.0} for q in questions},
            "looks": {q.id: {"prompt_tokens": 10, "generated_tokens": 0, "seconds": 0.5} for q in questions},
        },
        "b": {"drafts": {q.id: {**draft, "seconds": 3.0} for q in questions}, "looks": {}},
    }
    cards = {name: Card(name, cost, 50.0) for name, cost in (("a", 0.1), ("b", 0.9))}
    return Pool(outcomes, took, cards, Cascade({"a": 0.1, "b": 0.9}))


def played(pool: Pool, doubt: float) -> dict[str, float]:
    found = figures(pool.play("speculative", {"doubt": doubt}, 0.5), pool.outcomes, 0.5)
    return {**found, "seconds": float(found["seconds"][0])}


def test_what_is_forwarded_has_not_waited_for_the_draft() -> None:
    """One after the other .5 + 2 + 3 s; with b from .5 s on .5 + 3 s. Both have done the same work either way."""
    pool = two(p=0.3, drafted=0.3)
    without, early = played(pool, 0.0), played(pool, 0.5)
    assert without["seconds"] == pytest.approx(5.5, abs=6 * LATENCY_S)
    assert early["seconds"] == pytest.approx(3.5, abs=8 * LATENCY_S)
    for found in (without, early):
        assert found["full_cost"] == pytest.approx(0.02 + 0.1 + 0.9)
        assert (found["forwarded"], found["in_vain"], found["utility"]) == (1, 0, pytest.approx(1 - 0.5 * 0.9))
    told = compared(
        *(figures(pool.play("speculative", {"doubt": doubt}, 0.5), pool.outcomes, 0.5) for doubt in (0.0, 0.5))
    )
    assert told["sooner"] == pytest.approx(2 / 5.5, abs=0.01)
    assert told["full_cost_ratio"] == pytest.approx(1.0)


def test_what_is_begun_in_vain_is_paid_for() -> None:
    """a's draft will do after 2 s, when b has written 6 of 10 tokens: (10 + 4 * 6) / 50 * .9 on top."""
    pool = two(p=0.3, drafted=0.9)
    without, early = played(pool, 0.0), played(pool, 0.5)
    assert (without["full_cost"], early["full_cost"]) == (
        pytest.approx(0.12),
        pytest.approx(0.12 + 0.9 * (10 + 4 * 6) / 50),
    )
    assert (early["forwarded"], early["in_vain"]) == (0, 1)
    assert early["seconds"] - without["seconds"] == pytest.approx(0, abs=4 * LATENCY_S)


def test_bounds_are_chosen_by_what_they_cost() -> None:
    pool = two(p=0.3, drafted=0.3)
    found = measure(pool, pool, [0.5])
    row = found["alphas"]["0.5"]["hopeless"]["0"]
    assert row["doubt"] > 0
    assert row["sooner"] > 0.3
    assert len(rows(found)) == 3
    assert found["alphas"]["0.5"]["hopeless"]["1"]["sooner"] == pytest.approx(0.0)  # nobody drafts who forwards


def test_what_was_not_recorded_is_named(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="has no drafts of 'a'"):
        seconds(tmp_path, ["a"])
    hop = {"agent": "a", "seconds": 1.0}
    (tmp_path / "a.drafts.jsonl").write_text(json.dumps({"question": "q", "path": [{}, hop]}) + "\n")
    assert seconds(tmp_path, ["a"]) == {"a": {"drafts": {"q": hop}, "looks": {}}}
