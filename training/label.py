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
) -> list[Lesson]:
    """``size`` lessons, half of them refusals; fewer where an agent knows too much, or too little, for that.

    Args:
        alphas: the preferences to draw from; None: any in [0, 1].
        reasons: have refusals say what is asked and how hard it is, in the words of models that are told alpha so.
        rehearsal: so many more, as a share of ``size``, of the answers that it gives when it must and that are right,
            asked without a preference: else it forgets some of that. (Samples that happened to be right would teach it
            anew what it can not do, at the expense of what it can.)
        others: more experience, whose answers half of the rehearsals are: the same few would be learnt by heart.

    Raises:
        ConfigError: there is nothing to refuse, or nothing to answer.
    """
    rng = random.Random(f"lessons:{seed}")
    kinds: dict[bool, list[Lesson]] = {True: [], False: []}
    for _ in range(TRIES * size if experience else 0):
        one = rng.choice(experience)
        alpha = rng.random() if alphas is None else rng.choice(alphas)
        refuse = should_refuse(one.competence, alpha)
        if len(kinds[refuse]) < size // 2:
            target = REFUSAL + reason(one, reasons) if refuse else rng.choice(one.own_right)
            kinds[refuse].append(Lesson(one.question, alpha, target, one.competence, one.forced))
        if all(len(each) == size // 2 for each in kinds.values()):
            break
    fewest = min(map(len, kinds.values()))
    if not fewest:
        what = "refuse" if not kinds[True] else "answer"
        raise ConfigError(f"experience: of {len(experience)} questions there is none that the agent should {what}")
    drawn = kinds[True][:fewest] + kinds[False][:fewest]
    able, more = (
        [Lesson(one.question, None, one.answer, one.competence, True) for one in ones if one.forced]
        for ones in (experience, others)
    )
    for source in [able, more] if more else [able]:
        count = round(2 * fewest * rehearsal / (2 if more else 1))
        drawn += rng.choices(source, k=count) if source else []
    rng.shuffle(drawn)
    return drawn


def choices(
    experience: Sequence[Experience],
    size: int = SIZE,
    alphas: Sequence[float] | None = None,
    rehearsal: float = REHEARSAL,
    seed: int = 0,
) -> list[Lesson]:
    """``size`` questions to answer or to refuse, each at a preference, in the proportion in which they come: an agent
    that meets what it can do more often than it comes grows too sure of it. They have no target; ``alphas`` and
    ``rehearsal`` as in ``lessons``.

    Raises:
        ConfigError: there are none.
    """
    if not experience:
        raise ConfigError("experience: there is no question to choose at")
    rng = random.Random(f"choices:{seed}")

    def met(one: Experience, alpha: float | None) -> Lesson:
        return Lesson(one.question, alpha, "", one.competence, one.forced)

    able = [one for one in experience if one.forced]
    drawn = [
        met(one, rng.random() if alphas is None else rng.choice(alphas)) for one in rng.choices(experience, k=size)
    ]
    drawn += [met(one, None) for one in (rng.choices(able, k=round(size * rehearsal)) if able else ())]
    rng.shuffle(drawn)
    return drawn
