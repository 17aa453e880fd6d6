"""The lab's questions: seven tasks whose answers can be computed, asked at four sizes each.

What a question looks like stands in ``EXAMPLES``. Sizes run from what the smallest model learns to what the
largest one often gets wrong. The generator is frozen, so that nobody can tune how hard the lab is once methods are
compared on it: ``tests/unit/test_lab_questions.py`` holds it to a checksum.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from string import ascii_lowercase, digits
from typing import Literal, TypeAlias

from mesh.questions import Question, place

Part: TypeAlias = Literal["train", "validation", "test"]
Task: TypeAlias = Callable[[random.Random, int], tuple[str, str]]

EXAMPLES = ("37+58=", "204-315=", "23*7=", "1024%7=", "sort 31415=", "count 7 in 37747=", "reverse mesh=")
FAMILIES: dict[str, tuple[str, ...]] = {
    "numbers": ("add", "subtract", "multiply", "modulo"),
    "lists": ("sort", "count"),
    "strings": ("reverse",),
}
SHARES: dict[Part, float] = {"validation": 0.2, "test": 0.1, "train": 0.7}
LEVELS = 4
SHORT = 4  # characters: "3+5=" and its like are so few that they belong to every part, as a times table does
TRIES = 1000  # to find one more question of a task and level that may have no more


def questions(count: int, part: Part = "test", seed: int = 0) -> list[Question]:
    """``count`` different questions of one part; a question's id is its text. Each task at each level comes as often,
    until it has no more: there are but a few hundred of one digit.
    """
    rng = random.Random(f"lab:{seed}:{part}")
    cells = [(task, level) for task in TASKS for level in range(LEVELS)]
    found: dict[str, Question] = {}
    while len(found) < count:
        rng.shuffle(cells)
        for task, level in cells[: count - len(found)]:
            for _ in range(TRIES):
                text, answer = TASKS[task](rng, level)
                kept = len(text) > SHORT or rng.random() < SHARES[part]  # else most would be short ones
                if kept and text not in found and belongs(text, part):
                    found[text] = _question(task, text, answer)
                    break
    return list(found.values())


def stream(part: Part, seed: int = 0, weights: Mapping[str, float] | None = None) -> Iterator[Question]:
    """Questions without end to learn from, which may repeat; ``weights`` tell how often each task is drawn, default:
    all as often. Short ones, which every part has all of, come more often than they are drawn.
    """
    rng = random.Random(f"lab:{seed}:{part}")
    names = [*TASKS]
    shares = [weights.get(name, 0.0) for name in names] if weights else [1.0] * len(names)
    while True:
        (task,) = rng.choices(names, shares)
        text, answer = TASKS[task](rng, rng.randrange(LEVELS))
        if belongs(text, part):
            yield _question(task, text, answer)


def belongs(text: str, part: Part) -> bool:
    """Whether a question is of a part, by a hash of its text: validation is what ``mesh.questions.split`` calls so.
    So, short ones apart, no model is tested on what it was trained on, whatever the seeds.
    """
    if len(text) <= SHORT:
        return True
    begin = 0.0
    for name, share in SHARES.items():
        if begin <= place(text) < begin + share:
            return name == part
        begin += share
    raise AssertionError(f"the shares sum to {begin}, not to 1")


def _question(task: str, text: str, answer: str) -> Question:
    return Question(text, text, f"lab/{task}", None, answer)


def _number(rng: random.Random, most_digits: int) -> int:
    """A number of up to so many digits, each length as likely."""
    size = 1 + _below(rng, most_digits)
    least = 10 ** (size - 1) if size > 1 else 0
    return least + _below(rng, 10**size - least)


def _below(rng: random.Random, end: int) -> int:
    """The number that ``rng.randrange(end)`` gives, drawn as that draws it and sooner."""
    bits = end.bit_length()
    while (drawn := rng.getrandbits(bits)) >= end:
        pass
    return drawn


def _text(rng: random.Random, characters: str, size: int) -> str:
    return "".join(rng.choices(characters, k=size))


def _add(rng: random.Random, level: int) -> tuple[str, str]:
    a, b = _number(rng, level + 1), _number(rng, level + 1)
    return f"{a}+{b}=", str(a + b)


def _subtract(rng: random.Random, level: int) -> tuple[str, str]:
    a, b = _number(rng, level + 1), _number(rng, level + 1)
    return f"{a}-{b}=", str(a - b)


def _multiply(rng: random.Random, level: int) -> tuple[str, str]:
    first, second = ((1, 1), (2, 1), (2, 2), (3, 2))[level]
    a, b = _number(rng, first), _number(rng, second)
    return f"{a}*{b}=", str(a * b)


def _modulo(rng: random.Random, level: int) -> tuple[str, str]:
    a, b = _number(rng, level + 1), 2 + _below(rng, (8, 8, 18, 38)[level])
    return f"{a}%{b}=", str(a % b)


def _sort(rng: random.Random, level: int) -> tuple[str, str]:
    given = _text(rng, digits, 2 + 3 * level + rng.randint(0, 2))
    return f"sort {given}=", "".join(sorted(given))


def _count(rng: random.Random, level: int) -> tuple[str, str]:
    few = rng.sample(digits, 3)
    given = _text(rng, "".join(few), 3 + 3 * level + rng.randint(0, 2))
    return f"count {few[0]} in {given}=", str(given.count(few[0]))


def _reverse(rng: random.Random, level: int) -> tuple[str, str]:
    given = _text(rng, ascii_lowercase, 2 + 3 * level + rng.randint(0, 2))
    return f"reverse {given}=", given[::-1]


TASKS: dict[str, Task] = {
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "modulo": _modulo,
    "sort": _sort,
    "count": _count,
    "reverse": _reverse,
}
