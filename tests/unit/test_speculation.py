"""The next agent begins before this one has decided: seconds and costs by hand, on two recorded agents."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.errors import ConfigError
from agents.profile import BUCKETS, Profile
from benchmarks.outcomes import Outcomes
from benchmarks.rows import write
from benchmarks.speculation import Pool, compared, figures, measure, of_rows, pool, rows
from mesh.questions import Question

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
    took = {
        "seconds": np.array([2 * ones, 3 * ones]),
        "prompt_tokens": np.array([10 * ones, 10 * ones]),
        "generated_tokens": np.array([10 * ones, 10 * ones]),
        "look_seconds": np.array([0.5 * ones, ones * np.nan]),
        "look_tokens": np.array([10 * ones, ones * np.nan]),
    }
    return pool(replace(outcomes, took=took), {})


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


def test_mean_work_follows_from_what_was_spent() -> None:
    assert {name: card.mean_work for name, card in two(0.3, 0.3).cards.items()} == {"a": 50.0, "b": 50.0}


def test_who_does_not_look_knows_no_more_than_its_profile_reads_in_the_text() -> None:
    """Its belief is of its draft, and must not be told before there is one."""
    cells = two(p=0.3, drafted=0.3)._cells(1, 0.5)
    assert {cell.p for cell in cells.values()} == {0.5}
    prior = Profile(bytes([128] * BUCKETS), 1.0, math.log(3), (), (), (), (), (), (), (), 0.0)
    cells = pool(two(0.3, 0.3).outcomes, {"b": prior})._cells(1, 0.5)
    assert [cell.p for cell in cells.values()] == pytest.approx([0.75, 0.75])


def test_where_nobody_forwards_nothing_is_compared() -> None:
    never = figures(two(p=0.9, drafted=0.9).play("speculative", {"doubt": 0.0}, 0.5), two(0.9, 0.9).outcomes, 0.5)
    told = compared(never, never)
    assert (told["forwarded"], told["sooner"], told["full_cost_ratio"]) == (0.0, None, pytest.approx(1.0))


def test_rows_of_a_file_are_played_as_they_were_recorded(tmp_path: Path) -> None:
    """Seconds and tokens are written with ids alone, and read again; profiles are learnt from the training rows."""
    given = two(p=0.3, drafted=0.3, count=120).outcomes
    took, work, looks = dict(given.took), given.work.copy(), given.looks
    took["generated_tokens"] = took["generated_tokens"].copy()
    took["generated_tokens"][:, 0], work[:, 0] = 20, 0.9 * given.work[:, 0] / 0.5  # one answer is longer
    assert looks is not None
    looks[0, 0] *= 2
    given, path = replace(given, took=took, work=work), tmp_path / "pair.jsonl"
    write(given, path, texts=False)
    asked = "".join(
        json.dumps({"id": q.id, "task": q.task, "question": q.text, "choices": None, "answer": "x"}) + "\n"
        for q in given.questions
    )
    (tmp_path / "asked.jsonl").write_text(asked)
    validation, test = of_rows(path, [str(tmp_path / "asked.jsonl")], [0.5])
    assert len(validation.outcomes) + len(test.outcomes) < 120
    assert (test.outcomes.took["seconds"] == np.array([[2.0], [3.0]])).all()
    assert all(card.profile is not None for card in test.cards.values())
    assert test.play("always", {}, 0.5)[0].seconds == pytest.approx(2.0, abs=4 * LATENCY_S)


def test_what_was_not_recorded_is_named(tmp_path: Path) -> None:
    given = two(p=0.3, drafted=0.3).outcomes
    with pytest.raises(ConfigError, match="seconds was not recorded of every answer"):
        pool(replace(given, took={}), {})
    twice = replace(given, questions=(given.questions[0],) * 2)
    with pytest.raises(ConfigError, match="stands there twice"):
        pool(twice, {})
