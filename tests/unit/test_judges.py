"""Judges from outside: each learns a rule that can be seen in the questions, and says probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.judges import JUDGES
from benchmarks.judges.base import cell
from mesh.questions import Question
from training.lab_questions import questions
from training.scores import auroc


@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_learns_what_length_and_task_tell(name: str) -> None:
    """The agent of this test is right on short questions of two tasks, and nine times in ten wrong elsewhere."""
    rng = np.random.default_rng(0)

    def right(asked: list[Question]) -> list[bool]:
        return [(q.task in ("lab/add", "lab/sort") and len(q.text) < 10) or bool(rng.random() < 0.1) for q in asked]

    known, asked = questions(1500, "train", 3), questions(400, "test", 3)
    judge = JUDGES[name]()
    judge.fit(known, right(known))
    p = judge.predict(asked)
    assert p.shape == (400,)
    assert ((p >= 0) & (p <= 1)).all()
    area = auroc(p.tolist(), right(asked))
    assert area is not None
    assert area > 0.75  # chance is .5 with a standard error of .03


def test_lookup_draws_rare_cells_to_their_task() -> None:
    judge = JUDGES["lookup"]()
    known = [Question(str(n), "1+1=", "lab/add", None, "2") for n in range(8)]
    judge.fit([*known, Question("x", "11+1=", "lab/add", None, "12")], [True] * 8 + [False])
    task = (8 + 4 * (8 / 9)) / 13
    rare, unknown = judge.predict([Question("y", "22+1=", "lab/add"), Question("z", "?", "lab/none")])
    assert rare == pytest.approx((0 + 4 * task) / 5)
    assert unknown == pytest.approx(8 / 9)


def test_cells() -> None:
    assert cell(Question("a", "1+1=", "lab/add")) == "lab/add:4"
    assert cell(Question("a", "x" * 100, "drop")) == "drop:128"
