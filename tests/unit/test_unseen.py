"""Questions that no agent was trained on: their answers by hand, and that they are longer, or of other tasks."""

from __future__ import annotations

from benchmarks.unseen import LONGER, UNSEEN, questions
from training.lab_questions import TASKS
from training.lab_questions import questions as known


def answer(text: str) -> str:
    match text.rstrip("=").split(" "):
        case ["sort", given]:
            return "".join(sorted(given))
        case ["reverse", given]:
            return "".join(reversed(given))
        case ["largest", given]:
            return str(max(map(int, given)))
        case ["double", given]:
            return given + given
        case ["count", digit, "in", given]:
            return str(sum(each == digit for each in given))
        case [sum_]:
            return str(eval(sum_))  # of digits and one operator
    raise AssertionError(text)


def test_answers_are_right() -> None:
    for tasks in (LONGER, UNSEEN):
        asked = questions(tasks, 140, 1)
        assert len({question.text for question in asked}) == 140
        assert all(question.answer == answer(question.text) for question in asked)
        assert {question.task for question in asked} == {f"lab/{name}" for name in tasks}
        assert asked == questions(tasks, 140, 1)
        assert asked != questions(tasks, 140, 2)


def test_longer_is_longer_and_other_tasks_are_others() -> None:
    assert LONGER.keys() == TASKS.keys()
    assert not UNSEEN.keys() & TASKS.keys()
    seen = {question.text for part in ("train", "test") for question in known(3000, part, 1)}
    assert not seen & {question.text for question in questions(LONGER, 300, 1)}
