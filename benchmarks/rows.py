"""Recorded outcomes as files: a JSON object a question, and the agents' prices beside them.

A row is ``{"id", "task", "question", "models": {agent: {"score", "response", ...}}}``, or ``"scores": {agent: score}``
where nothing else is known. Other keys of a cell that we know: ``work`` and ``look`` in units of price, ``cost`` of
this call in any unit (``benchmarks/replay.py``), signals, what it ``took`` (``outcomes.TOOK``), and ``beliefs`` by
alpha. ``NAME.prices.json`` tells each agent's ``cost``, or its ``input_price`` and ``output_price``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from agents.errors import ConfigError
from benchmarks.outcomes import TOOK, Floats, Outcomes
from mesh.questions import Question

SIGNALS = ("likelihood", "p_true")
TOKEN_PRICES = ("input_price", "output_price")
DIGITS = 5

Row: TypeAlias = tuple[Question, dict[str, dict[str, Any]]]  # and what each agent did with it


def prices_path(path: Path) -> Path:
    """Where the prices of a file of rows stand."""
    return path.with_name(path.name.removesuffix(".jsonl") + ".prices.json")


def write(outcomes: Outcomes, path: Path, texts: bool = True) -> None:
    """Rows, and prices beside them; without ``texts`` neither questions nor answers are in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for number, question in enumerate(outcomes.questions):
            asked = {"question": question.text} if texts else {}
            cells = {name: _cell(outcomes, agent, number, texts) for agent, name in enumerate(outcomes.agents)}
            row = {"id": question.id, "task": question.task, **asked, "models": cells}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    prices = {name: {"cost": float(cost)} for name, cost in zip(outcomes.agents, outcomes.costs, strict=True)}
    prices_path(path).write_text(json.dumps(prices, indent=1) + "\n", encoding="utf-8")


def _cell(outcomes: Outcomes, agent: int, number: int, texts: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"score": float(outcomes.right[agent, number])}
    if texts:
        told["response"] = outcomes.texts[agent][number]
    measures = {"work": outcomes.work, "look": outcomes.looks, **outcomes.signals, **outcomes.took}
    for name, values in measures.items():
        if values is not None and not math.isnan(values[agent, number]):
            told[name] = round(float(values[agent, number]), DIGITS)
    if outcomes.beliefs:
        known = {f"{alpha:g}": float(values[agent, number]) for alpha, values in outcomes.beliefs.items()}
        told["beliefs"] = {alpha: None if math.isnan(p) else round(p, DIGITS) for alpha, p in known.items()}
    return told


def read(path: Path, questions: Mapping[str, Question] | None = None) -> Outcomes:
    """The outcomes in a file, agents by price. Questions whose text is not in it are looked up in ``questions``, by id.

    Raises:
        ConfigError: names the file, the line and what is wrong there: a row without an agent that others have, a score
            outside [0, 1], no text, an id that stands there twice, or no price.
    """
    found = read_rows(path, questions)
    return as_outcomes(path, found, prices(path, agents_of(found)))


def read_rows(path: Path, questions: Mapping[str, Question] | None = None) -> list[Row]:
    """The rows of a file, as they stand there; see ``read``."""
    found: dict[str, Row] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):  # texts may hold other breaks
        if line.strip():
            try:
                row = _row(json.loads(line), questions or {})
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ConfigError(f"{path}:{number}: broken row: {error!r}") from error
            if row[0].id in found:
                raise ConfigError(f"{path}:{number}: id {row[0].id!r} stands there twice; every id must be unique")
            found[row[0].id] = row
    return list(found.values())


def agents_of(found: Sequence[Row]) -> list[str]:
    """The names of all agents in rows, in order."""
    return sorted({name for _, cells in found for name in cells})


def as_outcomes(path: Path, found: Sequence[Row], costs: Mapping[str, float]) -> Outcomes:
    """Rows of a file as outcomes, agents by their ``costs``. Raises ConfigError for a row without one of them."""
    agents = tuple(sorted(costs, key=lambda name: (costs[name], name)))
    for number, (_, cells) in enumerate(found, start=1):
        if missing := set(agents) - cells.keys():
            raise ConfigError(f"{path}: row {number} has nothing of {', '.join(sorted(missing))}")
    price, work = np.array([costs[name] for name in agents]), column(found, agents, "work")
    return Outcomes(
        tuple(question for question, _ in found),
        agents,
        price,
        column(found, agents, "score"),
        np.where(np.isnan(work), price[:, None], work),  # a price per call, where no work was recorded
        tuple(tuple(str(cells[name].get("response", "")) for _, cells in found) for name in agents),
        {name: column(found, agents, name) for name in SIGNALS},
        {alpha: _beliefs(found, agents, alpha) for alpha in _alphas(found)},
        column(found, agents, "look"),
        {name: values for name in TOOK if not np.isnan(values := column(found, agents, name)).all()},
    )


def column(found: Sequence[Row], agents: Sequence[str], key: str) -> Floats:
    """A number of every cell, (A, Q), NaN where there is none."""
    values = [[cells[name].get(key) for _, cells in found] for name in agents]
    return np.array([[math.nan if value is None else value for value in row] for row in values], dtype=float)


def _row(row: dict[str, Any], known: Mapping[str, Question]) -> Row:
    name = str(row["id"])
    told = row["models"] if "models" in row else {agent: {"score": score} for agent, score in row["scores"].items()}
    for agent, cell in told.items():
        if not 0 <= float(cell["score"]) <= 1:
            raise ValueError(f"the score of {agent!r} is {cell['score']!r}, it must be in [0, 1]")
    if "question" in row:
        return Question(name, str(row["question"]), str(row.get("task", "")), None, None), told
    if name not in known:
        raise ValueError(f"question {name!r} has no text here, nor in the question files that were given")
    return known[name], told


def _alphas(found: Sequence[Row]) -> list[float]:
    told = {alpha for _, cells in found for cell in cells.values() for alpha in cell.get("beliefs", {})}
    return sorted(map(float, told))


def _beliefs(found: Sequence[Row], agents: Sequence[str], alpha: float) -> Any:
    key = f"{alpha:g}"
    told = [[cells[name].get("beliefs", {}).get(key) for _, cells in found] for name in agents]
    return np.array([[math.nan if p is None else p for p in row] for row in told], dtype=float)


def prices(path: Path, agents: Sequence[str]) -> dict[str, float]:
    """Prices in (0, 1]: as told, or input and output price per token together, as shares of the dearest's.

    Raises:
        ConfigError: no file of prices, an agent without one, or a price that is none.
    """
    place = prices_path(path)
    if not place.exists():
        raise ConfigError(f"{path}: its agents' prices are missing; they stand in {place.name}")
    told = json.loads(place.read_text(encoding="utf-8"))
    if unknown := [name for name in agents if name not in told]:
        raise ConfigError(f"{place}: it has no price of {', '.join(unknown)}")
    keys = ("cost",) if all("cost" in told[name] for name in agents) else TOKEN_PRICES
    for name, key in product(agents, keys):
        value = told[name].get(key)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 < value <= (1 if key == "cost" else math.inf)
        ):
            right = "a number in (0, 1]" if key == "cost" else "a number above 0 (or all agents must have a cost)"
            raise ConfigError(f"{place}: {key} of {name!r} is {value!r}; it must be {right}")
    sums = {name: float(sum(told[name][key] for key in keys)) for name in agents}
    return sums if keys == ("cost",) else shares(sums)


def shares(prices: Mapping[str, float]) -> dict[str, float]:
    """Prices as shares of the dearest's."""
    dearest = max(prices.values())
    return {name: price / dearest for name, price in prices.items()}
