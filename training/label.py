"""What an agent should have said, by its own experience: an answer of its own, or that it does not know.

DiSRouter, section 3.3: at preference alpha it should refuse where its competence is below 1 - alpha, and where nothing
it said was right. Here alpha is drawn from all of [0, 1], and a target is always the agent's own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from agents.errors import ConfigError
from agents.prompts import REFUSAL, Style
from mesh.questions import Question
from training.sample import Experience

SIZE = 10_000
REHEARSAL = 0.5
NONSENSE = 0.1
ONCE = 0.75  # of the lessons, where more questions were answered once than several times
TRIES = 100  # draws for each lesson, before too few of one kind are taken for what there is
_ROUNDING = 1e-9  # 0.3 of right answers are not below 1 - 0.7


@dataclass(frozen=True, slots=True)
class Lesson:
    """What to say to a question at a preference; ``alpha`` is None where it must be answered in any case.
    ``competence`` and ``forced`` are those of the experience that it comes from.
    """

    question: Question
    alpha: float | None
    target: str
    competence: float = 0.0
    forced: bool = False

    @property
    def refuses(self) -> bool:
        """Whether the lesson is to refuse."""
        return self.target.startswith(REFUSAL)


def should_refuse(competence: float, alpha: float) -> bool:
    """Whether an agent that is right so often should leave the question to others at this preference."""
    return competence == 0 or competence < 1 - alpha - _ROUNDING


def reason(one: Experience, style: Style | None) -> str:
    """What a refusal says besides: what kind of question it is, and in how many tenths of its tries it failed."""
    if style is None:
        return ""
    kind, tenths = one.question.task.rpartition("/")[2], round(10 * (1 - one.competence))
    return f"{kind}{tenths}" if style == "level" else f" {kind}: wrong in {tenths} of 10 tries."


def lessons(
    experience: Sequence[Experience],
    size: int = SIZE,
    alphas: Sequence[float] | None = None,
    rehearsal: float = REHEARSAL,
    seed: int = 0,
    reasons: Style | None = None,
    others: Sequence[Experience] = (),
    nonsense: Sequence[Question] = (),
) -> list[Lesson]:
    """``size`` lessons, of those of ``experience`` half refusals; fewer where an agent knows too much, or too little.

    Args:
        alphas: the preferences to draw from; None: any in [0, 1].
        rehearsal: so many more, as a share of ``size``, of the answers that it gives when it must and that are right,
            asked without a preference: else it forgets some of that. (Samples that happened to be right would teach it
            anew what it can not do, at the expense of what it can.)
        reasons: have refusals say what is asked and how hard it is, in the words of models that are told alpha so.
        others: more questions, each answered once. Half of the rehearsals are of these: the same few would be learnt
            by heart; and where no reasons are to be given ``ONCE`` of the lessons, see ``_of_one_answer``.
        nonsense: questions to refuse at any preference, in ``NONSENSE`` times as many lessons more.

    Raises:
        ConfigError: there is nothing to refuse, or nothing to answer.
    """
    rng = random.Random(f"lessons:{seed}")
    kinds: dict[bool, list[Lesson]] = {True: [], False: []}
    once = others if reasons is None else ()
    share = ONCE if once else 0.0
    each = round(size * (1 - share)) // 2
    for _ in range(TRIES * size if experience else 0):
        one, alpha = rng.choice(experience), _preference(alphas, rng)
        refuse = should_refuse(one.competence, alpha)
        if len(kinds[refuse]) < each:
            target = REFUSAL + reason(one, reasons) if refuse else rng.choice(one.own_right)
            kinds[refuse].append(Lesson(one.question, alpha, target, one.competence, one.forced))
        if all(len(kind) == each for kind in kinds.values()):
            break
    fewest = min(map(len, kinds.values()))
    if not fewest:
        what = "refuse" if not kinds[True] else "answer"
        raise ConfigError(f"experience: of {len(experience)} questions there is none that the agent should {what}")
    drawn = kinds[True][:fewest] + kinds[False][:fewest]
    drawn += _of_one_answer(once, round(len(drawn) * share / (1 - share)), alphas, rng)
    able, more = (
        [Lesson(one.question, None, one.answer, one.competence, True) for one in ones if one.forced]
        for ones in (experience, others)
    )
    count = len(drawn) * rehearsal
    for source in [able, more] if more else [able]:
        drawn += rng.choices(source, k=round(count / (2 if more else 1))) if source else []
    drawn += _of_nonsense(nonsense, size, alphas, REFUSAL, rng)
    rng.shuffle(drawn)
    return drawn


def _of_one_answer(
    experience: Sequence[Experience], size: int, alphas: Sequence[float] | None, rng: random.Random
) -> list[Lesson]:
    """Lessons of questions that were answered once, as they come: answer what was right, refuse what was wrong.

    What was right is taken with probability alpha, what was wrong with 1 - alpha. Among questions that it cannot tell
    apart and of which it gets a share p right, p * alpha are then to be answered and (1 - p) * (1 - alpha) to be
    refused, so that it switches at p = 1 - alpha, as it does where its competence is known (Elkan 2001, "The
    Foundations of Cost-Sensitive Learning").
    """
    drawn: list[Lesson] = []
    for _ in range(TRIES * size):
        one, alpha = rng.choice(experience), _preference(alphas, rng)
        if rng.random() < (alpha if one.forced else 1 - alpha):
            drawn.append(Lesson(one.question, alpha, one.answer if one.forced else REFUSAL, one.competence, one.forced))
        if len(drawn) == size:
            break
    return drawn


def _of_nonsense(
    questions: Sequence[Question], size: int, alphas: Sequence[float] | None, target: str, rng: random.Random
) -> list[Lesson]:
    drawn = rng.choices(questions, k=round(size * NONSENSE)) if questions else ()
    return [Lesson(question, _preference(alphas, rng), target) for question in drawn]


def _preference(alphas: Sequence[float] | None, rng: random.Random) -> float:
    return rng.random() if alphas is None else rng.choice(alphas)


def choices(
    experience: Sequence[Experience],
    size: int = SIZE,
    alphas: Sequence[float] | None = None,
    rehearsal: float = REHEARSAL,
    seed: int = 0,
    nonsense: Sequence[Question] = (),
) -> list[Lesson]:
    """``size`` questions to answer or to refuse, each at a preference, in the proportion in which they come: an agent
    that meets what it can do more often than it comes grows too sure of it. They have no target; ``alphas``,
    ``rehearsal`` and ``nonsense`` as in ``lessons``.

    Raises:
        ConfigError: there are none.
    """
    if not experience:
        raise ConfigError("experience: there is no question to choose at")
    rng = random.Random(f"choices:{seed}")

    def met(one: Experience, alpha: float | None) -> Lesson:
        return Lesson(one.question, alpha, "", one.competence, one.forced)

    able = [one for one in experience if one.forced]
    drawn = [met(one, _preference(alphas, rng)) for one in rng.choices(experience, k=size)]
    drawn += [met(one, None) for one in (rng.choices(able, k=round(size * rehearsal)) if able else ())]
    drawn += _of_nonsense(nonsense, size, alphas, "", rng)
    rng.shuffle(drawn)
    return drawn
