"""Lab questions such as no agent was trained on: longer ones of the tasks it knows, and tasks that it does not."""

from __future__ import annotations

import random
from collections.abc import Callable
from string import ascii_lowercase, digits

from mesh.questions import Question

Task = Callable[[random.Random], tuple[str, str]]


def _number(rng: random.Random, size: int) -> int:
    return rng.randrange(10 ** (size - 1), 10**size)


def _text(rng: random.Random, characters: str, low: int, high: int) -> str:
    return "".join(rng.choices(characters, k=rng.randint(low, high)))


def _sum(rng: random.Random) -> tuple[str, str]:
    a, b = _number(rng, 5), _number(rng, rng.randint(1, 5))
    return f"{a}+{b}=", str(a + b)


def _difference(rng: random.Random) -> tuple[str, str]:
    a, b = _number(rng, 5), _number(rng, rng.randint(1, 5))
    return f"{a}-{b}=", str(a - b)


def _product(rng: random.Random) -> tuple[str, str]:
    a, b = _number(rng, 4), _number(rng, rng.randint(1, 2))
    return f"{a}*{b}=", str(a * b)


def _remainder(rng: random.Random) -> tuple[str, str]:
    a, b = _number(rng, 5), rng.randint(2, 39)
    return f"{a}%{b}=", str(a % b)


def _sort(rng: random.Random) -> tuple[str, str]:
    given = _text(rng, digits, 14, 16)
    return f"sort {given}=", "".join(sorted(given))


def _count(rng: random.Random) -> tuple[str, str]:
    few = rng.sample(digits, 3)
    given = _text(rng, "".join(few), 15, 18)
    return f"count {few[0]} in {given}=", str(given.count(few[0]))


def _reverse(rng: random.Random) -> tuple[str, str]:
    given = _text(rng, ascii_lowercase, 14, 16)
    return f"reverse {given}=", given[::-1]


def _largest(rng: random.Random) -> tuple[str, str]:
    given = _text(rng, digits, 3, 12)
    return f"largest {given}=", max(given)


def _double(rng: random.Random) -> tuple[str, str]:
    given = _text(rng, ascii_lowercase, 2, 6)
    return f"double {given}=", given * 2


LONGER: dict[str, Task] = {
    "add": _sum,
    "subtract": _difference,
    "multiply": _product,
    "modulo": _remainder,
    "sort": _sort,
    "count": _count,
    "reverse": _reverse,
}
UNSEEN: dict[str, Task] = {"largest": _largest, "double": _double}


def questions(tasks: dict[str, Task], count: int, seed: int) -> list[Question]:
    """``count`` different questions, each task as often."""
    rng = random.Random(f"unseen:{seed}")
    found: dict[str, Question] = {}
    while len(found) < count:
        for name, task in tasks.items():
            text, answer = task(rng)
            found.setdefault(text, Question(text, text, f"lab/{name}", None, answer))
    return list(found.values())[:count]
