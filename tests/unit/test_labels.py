"""From samples to lessons: competence, the switch point at 1 - alpha, balance, and that a run can go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agents.engines.scripted import ScriptedEngine
from agents.errors import ConfigError, MeshError
from agents.messages import Piece, Request
from agents.prompts import REFUSAL, is_refusal
from mesh.config import MeshConfig, load
from mesh.questions import Question
from training.label import NONSENSE, Lesson, choices, lessons, should_refuse
from training.sample import Experience, experience, once, sample


def known(right: int, of: int = 10, id: str = "q") -> Experience:
    answers = tuple(f"right {n}" if n < right else f"wrong {n}" for n in range(of))
    flags = tuple(n < right for n in range(of))
    return Experience(Question(id, "?", answer="right"), answers, flags, "usual", right * 2 > of)


@pytest.mark.parametrize(
    ("right", "alpha", "refuses"),
    [
        (0, 1.0, True),  # nothing right to say, whatever it is worth
        (10, 0.0, False),
        (9, 0.0, True),
        (8, 0.2, False),  # 0.8 is not below 1 - 0.2
        (7, 0.2, True),
        (5, 0.5, False),
        (4, 0.5, True),
        (3, 0.7, False),  # 1 - 0.7 is 0.30000000000000004
        (1, 0.8, True),
        (2, 0.8, False),
    ],
)
def test_the_switch_point_is_one_minus_alpha(right: int, alpha: float, refuses: bool) -> None:
    assert should_refuse(known(right).competence, alpha) is refuses


def test_half_are_refusals_and_targets_are_the_agents_own_right_answers() -> None:
    experience = [known(right, id=str(right)) for right in range(11)]
    drawn = lessons(experience, 400, rehearsal=0, seed=3)
    assert Counter(lesson.refuses for lesson in drawn) == {True: 200, False: 200}
    for lesson in drawn:
        right = int(lesson.question.id)
        assert lesson.alpha is not None
        assert lesson.refuses is should_refuse(right / 10, lesson.alpha)
        assert lesson.refuses or lesson.target in [f"right {n}" for n in range(right)]
        assert 0 <= lesson.alpha <= 1
    assert len({lesson.alpha for lesson in drawn}) > 390
    assert drawn == lessons(experience, 400, rehearsal=0, seed=3)
    assert drawn != lessons(experience, 400, rehearsal=0, seed=4)


def test_alphas_may_be_given() -> None:
    drawn = lessons([known(5)], 60, (0.2, 0.8), rehearsal=0)
    assert {(lesson.alpha, lesson.refuses) for lesson in drawn} == {(0.2, True), (0.8, False)}


def test_fewer_where_there_is_less_to_refuse() -> None:
    sure = [known(10, id=str(n)) for n in range(999)]
    drawn = lessons([*sure, known(0, id="never")], 1000, rehearsal=0)
    assert 2 <= len(drawn) < 1000
    assert sum(lesson.refuses for lesson in drawn) == len(drawn) / 2


@pytest.mark.parametrize(("experience", "what"), [([known(0)], "answer"), ([known(10)], "refuse"), ([], "refuse")])
def test_nothing_of_one_kind_is_an_error(experience: list[Experience], what: str) -> None:
    with pytest.raises(ConfigError, match=f"none that the agent should {what}"):
        lessons(experience, 10, alphas=(0.5,))


class Dice(ScriptedEngine):
    """Says 1, 2 or 3, as the request's seed has it, and counts how often it was asked."""

    asked = 0

    async def generate(self, request: Request) -> AsyncIterator[Piece]:
        Dice.asked += 1
        yield Piece(str(1 + request.seed % 3), 1, -0.1, 3, "stop")


def dice(**settings: Any) -> MeshConfig:
    agent = {"name": "dice", "cost": 0.1, "engine": {"kind": "tests.unit.test_labels:Dice"}, "prompt": "plain"}
    return load({"name": "dice", "runtime": "local", "agents": [{**agent, **settings}]})


ASKED = [Question(str(n), f"what is {n}?", "lab/any", None, "1") for n in range(30)]


def test_sampling_grades_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    Dice.asked = 0
    seen: list[tuple[int, int]] = []
    first = sample(dice(), "dice", ASKED, tmp_path, samples=6, progress=lambda *told: seen.append(told))
    assert Dice.asked == 210  # six times, and once as it must answer in its mesh
    assert seen[-1] == (210, 210)
    for one in first:
        assert len(one.answers) == 6
        assert one.right == tuple(answer == "1" for answer in one.answers)
        assert one.competence == one.answers.count("1") / 6
    assert len({one.forced for one in first}) == 2  # each question throws for itself
    assert 0 < sum(one.competence for one in first) < 30
    (tmp_path / "5.jsonl").unlink()
    assert sample(dice(), "dice", ASKED, tmp_path, samples=6) == first
    assert Dice.asked == 240
    assert REFUSAL not in {answer for one in first for answer in one.answers}


class Flaky(Dice):
    """Breaks on one question until it is mended."""

    mended = False

    async def generate(self, request: Request) -> AsyncIterator[Piece]:
        if not Flaky.mended and "what is 7?" in request.messages[-1].content:
            raise RuntimeError("out of memory")
        async for piece in super().generate(request):
            yield piece


def test_samples_that_failed_are_told_and_asked_again(tmp_path: Path) -> None:
    flaky = dice(engine={"kind": "tests.unit.test_labels:Flaky"})
    with pytest.raises(MeshError, match=r"3 of 90 samples of 'dice' failed; first: .*out of memory"):
        sample(flaky, "dice", ASKED, tmp_path, samples=2)
    Flaky.mended, Dice.asked = True, 0
    assert [len(one.answers) for one in sample(flaky, "dice", ASKED, tmp_path, samples=2)] == [2] * 30
    assert Dice.asked == 3


def test_sampling_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown agent 'other'; there are dice"):
        sample(dice(), "other", ASKED, tmp_path)
    with pytest.raises(ConfigError, match="'x' has no answer"):
        sample(dice(), "dice", [Question("x", "why?")], tmp_path)
    with pytest.raises(ConfigError, match=r"has no forced.jsonl; `mesh train sample` fills such a folder"):
        experience(tmp_path, ASKED)


def test_a_lesson_knows_whether_it_refuses() -> None:
    assert Lesson(ASKED[0], 0.5, REFUSAL).refuses
    assert not Lesson(ASKED[0], 0.5, "1").refuses


@pytest.mark.parametrize(("style", "said"), [("level", "any7"), ("scenario", " any: wrong in 7 of 10 tries.")])
def test_a_refusal_may_say_what_is_hard(style: Any, said: str) -> None:
    hard = known(3)
    hard = Experience(Question("q", "?", "lab/any", None, "right"), hard.answers, hard.right, "wrong", False)
    drawn = lessons([hard], 20, (0.2, 0.9), rehearsal=0, reasons=style)
    assert {lesson.target for lesson in drawn if lesson.refuses} == {REFUSAL + said}
    assert Counter(lesson.refuses for lesson in drawn) == {True: 10, False: 10}
    assert is_refusal(REFUSAL + said, True)


def test_lessons_remember_what_they_come_from() -> None:
    drawn = lessons([known(9, id="a"), known(2, id="b")], 40, rehearsal=0.5)
    assert {(lesson.question.id, lesson.competence, lesson.forced) for lesson in drawn} == {
        ("a", 0.9, True),
        ("b", 0.2, False),
    }


def test_what_is_rehearsed_is_the_answer_that_it_gives_when_it_must() -> None:
    drawn = lessons([known(9, id="able"), known(4, id="lucky"), known(0, id="lost")], 200, rehearsal=1.0)
    told = {(lesson.question.id, lesson.target) for lesson in drawn if lesson.alpha is None}
    assert told == {("able", "usual")}  # the others are wrong then
    assert sum(lesson.alpha is None for lesson in drawn) == 200


def answered_once(right: bool, id: str) -> Experience:
    return Experience(Question(id, "?", answer="right"), ("other",), (right,), "other", right)


def test_three_quarters_of_what_is_taught_and_half_of_what_is_rehearsed_are_others() -> None:
    others = [answered_once(n % 2 == 0, f"o{n}") for n in range(50)]
    sampled = [known(9, id="able"), known(0, id="lost")]
    drawn = lessons(sampled, 200, rehearsal=1.0, others=others)
    taught = Counter(lesson.question.id[0] == "o" for lesson in drawn if lesson.alpha is not None)
    assert taught == {True: 150, False: 50}
    assert Counter(lesson.target for lesson in drawn if lesson.alpha is None) == {"usual": 100, "other": 100}
    for lesson in drawn:
        if lesson.question.id[0] == "o":
            assert lesson.refuses is not lesson.forced
            assert lesson.target in (REFUSAL, "other")
    told_why = lessons(sampled, 200, rehearsal=0, reasons="level", others=others)
    assert {lesson.question.id for lesson in told_why} == {"able", "lost"}  # once is not how often it fails


@pytest.mark.parametrize(("alpha", "p"), [(0.2, 0.8), (0.5, 0.5), (0.9, 0.1), (0.3, 0.5)])
def test_of_questions_answered_once_the_switch_point_is_one_minus_alpha(alpha: float, p: float) -> None:
    """Of alike questions of which a share p is right, as many lessons are to answer as p * alpha, to refuse as
    (1 - p) * (1 - alpha).
    """
    alike = [answered_once(n < 10 * p, f"o{n}") for n in range(10)]
    drawn = lessons([known(10, id="able"), known(0, id="lost")], 40_000, (alpha,), 0, others=alike)
    found = Counter(lesson.refuses for lesson in drawn if lesson.question.id[0] == "o")
    answer, refuse = p * alpha, (1 - p) * (1 - alpha)
    assert found.total() == 30_000
    assert found[False] / found.total() == pytest.approx(answer / (answer + refuse), abs=0.012)  # 4 standard errors


def test_lessons_end_where_no_preference_lets_them_be_drawn() -> None:
    alike = [answered_once(True, "right")]
    drawn = lessons([known(10, id="able"), known(0, id="lost")], 8, (0.0,), 0, others=alike)
    assert {lesson.question.id for lesson in drawn} == {"able", "lost"}


def test_choices_come_as_questions_do() -> None:
    often, rare, lost = known(9, id="often"), known(6, id="rare"), known(0, id="lost")
    drawn = choices([often, often, often, rare, lost], 5000, rehearsal=0.2)
    asked = Counter(lesson.question.id for lesson in drawn if lesson.alpha is not None)
    assert sum(asked.values()) == 5000
    assert asked["often"] == pytest.approx(3000, abs=150)  # 4 standard errors
    assert asked["lost"] == pytest.approx(1000, abs=120)
    kept = [lesson for lesson in drawn if lesson.alpha is None]
    assert len(kept) == 1000
    assert {lesson.question.id for lesson in kept} == {"often", "rare"}  # lost is wrong where it must be answered
    assert 0.45 < sum(lesson.alpha or 0 for lesson in drawn) / 5000 < 0.55
    assert {lesson.alpha for lesson in choices([lost], 20, (0.2,), 0.5)} == {0.2}
    assert drawn == choices([often, often, often, rare, lost], 5000, rehearsal=0.2)
    with pytest.raises(ConfigError, match="no question"):
        choices([], 3)


def test_nonsense_is_refused_at_any_preference() -> None:
    noise = [Question(f"noise{n}", "xqrk 3=") for n in range(9)]
    sampled = [known(9, id="able"), known(0, id="lost")]
    for drawn in (lessons(sampled, 1000, rehearsal=0.5, nonsense=noise), choices(sampled, 1000, nonsense=noise)):
        made = [lesson for lesson in drawn if lesson.question.id.startswith("noise")]
        assert len(made) == round(1000 * NONSENSE)
        assert not any(lesson.forced or lesson.competence for lesson in made)
        told = [lesson.alpha for lesson in made if lesson.alpha is not None]
        assert len(told) == len(made)  # nothing of it is rehearsed
        assert max(told) > 0.95
        assert len(drawn) > len(made) + 1000  # it is taught besides, not instead
    assert {lesson.target for lesson in lessons(sampled, 1000, nonsense=noise) if lesson.question in noise} == {REFUSAL}


def test_others_are_answered_once(tmp_path: Path) -> None:
    Dice.asked = 0
    seen: list[tuple[int, int]] = []
    more = [Question(f"m{n}", f"and {n}?", "lab/any", None, "1") for n in range(20)]
    found = sample(dice(), "dice", ASKED, tmp_path, samples=2, others=more, progress=lambda *told: seen.append(told))
    assert [one.question for one in found] == ASKED
    assert Dice.asked == 110
    assert seen[-1] == (110, 110)
    again = once(tmp_path, [*more, more[0], Question("new", "never asked", "lab/any", None, "1")])
    assert [one.question for one in again] == [*more, more[0]]
    assert all(one.forced is (one.answer == "1") and one.competence == one.forced for one in again)
