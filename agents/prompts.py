"""The scenario prompt for any alpha, the refusal sentence and how it is recognised, the self-judge's prompt.

The scenario (DiSRouter, section 3.2) tells the model how much a right answer is worth against its price;
the wording of the template is ours and is the same in training and at inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from agents.messages import Message

REFUSAL = "I don't know!"
Style: TypeAlias = Literal["scenario", "level", "plain"]

_STEM = "i don't know"
_SCENARIO = (
    "Preference alpha = {alpha:.2f} on a scale from 0 (only the quality of the answer counts) to 1 (only its price "
    "counts): {wording} If you are not sure enough that your answer would be right, reply with exactly: " + REFUSAL
)
_WORDINGS = (
    (0.35, "performance first. Answer only what you are very sure of; a stronger model can take the rest."),
    (0.65, "balance. Answer what you are fairly sure of; a stronger model costs more."),
    (1.01, "cost first. Answer whenever you have a fair chance to be right; a stronger model is expensive."),
)
_JUDGE = (
    "Question:\n{question}\n\nProposed answer:\n{answer}\n\n"
    "Is the proposed answer true? Reply with one word, True or False."
)
JUDGEMENTS = ("True", "False")
LEVELS = "ABCDEFGHIJK"  # alpha 0, 0.1, ... 1, for models that read no English


def prompted(messages: Sequence[Message], alpha: float, style: Style) -> tuple[Message, ...]:
    """``messages`` as an agent's model gets them: with the scenario as system text, alpha's level alone, or plain."""
    if style == "plain":
        return tuple(messages)
    if style == "level":
        return (Message("system", LEVELS[round(alpha * (len(LEVELS) - 1))]), *messages)
    scenario = _SCENARIO.format(alpha=alpha, wording=next(text for below, text in _WORDINGS if alpha < below))
    if messages[0].role == "system":
        return (Message("system", f"{messages[0].content}\n\n{scenario}"), *messages[1:])
    return (Message("system", scenario), *messages)


def judging(messages: Sequence[Message], answer: str) -> tuple[Message, ...]:
    """The prompt that asks a model whether its own ``answer`` is true (P(True), Kadavath et al. 2022)."""
    question = next(m.content for m in reversed(messages) if m.role == "user")
    return (Message("user", _JUDGE.format(question=question, answer=answer)),)


def is_refusal(text: str, complete: bool) -> bool | None:
    """Whether an answer that begins with ``text`` is the refusal; None while that cannot be told.

    "I don't know how tall it is" is no refusal: after the words the sentence must end.
    """
    seen = text.lstrip(" \t\n\"'*").replace("\u2019", "'").casefold()
    if len(seen) > len(_STEM):
        return seen.startswith(_STEM) and seen[len(_STEM)] in "!.\n"
    if complete:
        return seen.startswith(_STEM)
    return None if _STEM.startswith(seen) else False
