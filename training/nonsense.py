"""What nobody asks: an agent is taught to refuse it at any preference, and then refuses more of what it never saw.

Outlier exposure (Hendrycks et al. 2019, arXiv 1812.04606): noise made of what one knows stands for all that one does
not.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from string import ascii_lowercase, digits

from mesh.questions import Question

TRIES = 100  # for each, before a pool is taken for one that understands anything
_WORD = re.compile("[a-z]+", re.IGNORECASE)


def nonsense(questions: Sequence[Question], count: int, pattern: str, seed: int = 0) -> tuple[Question, ...]:
    """``count`` different questions without an answer, or what there is.

    They are made of ``questions``, of those that begin with each word (or with none) as often: this word is exchanged
    for another string of letters, some of its letters are, all characters change places, or nothing is left. None
    matches ``pattern``, which is that of a pool's ``understands``.
    """
    rng = random.Random(f"nonsense:{seed}")
    readable = re.compile(pattern)
    forms: dict[str, list[Question]] = {}
    for question in questions:
        forms.setdefault("".join(_WORD.findall(question.text)[:1]), []).append(question)
    kinds = list(forms.values())
    found: dict[str, Question] = {}
    for _ in range(TRIES * count):
        if len(found) == count:
            break
        model = rng.choice(rng.choice(kinds))
        text = rng.choice((_renamed, _misspelt, _shuffled, _replaced))(model.text, rng)
        if readable.fullmatch("".join(text.split()).lower()) is None:
            found.setdefault(text, Question(text, text, model.task, None, None))  # it is put as that task is
    return tuple(found.values())


def _renamed(text: str, rng: random.Random) -> str:
    return _WORD.sub(_word(rng), text, count=1) if _WORD.search(text) else f"{_word(rng)} {text}"


def _misspelt(text: str, rng: random.Random) -> str:
    first = _WORD.search(text)
    if first is None:
        return _renamed(text, rng)
    changed = [rng.choice(ascii_lowercase) if rng.random() < 0.5 else letter for letter in first[0]]
    return text[: first.start()] + "".join(changed) + text[first.end() :]


def _shuffled(text: str, rng: random.Random) -> str:
    return "".join(rng.sample(text, len(text)))


def _replaced(text: str, rng: random.Random) -> str:
    characters = rng.choice((ascii_lowercase, digits))
    return f"{_word(rng)} {''.join(rng.choices(characters, k=rng.randint(1, max(2, len(text)))))}{text[-1]}"


def _word(rng: random.Random) -> str:
    return "".join(rng.choices(ascii_lowercase, k=rng.randint(2, 10)))
