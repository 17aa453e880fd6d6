"""Recorded outcomes as files: a JSON object a question, and the agents' prices beside them.

A row is ``{"id", "task", "question", "models": {agent: {"score", "response", ...}}}``, or ``"scores": {agent: score}``
where nothing else is known. Other keys of a cell that we know: ``work`` and ``look`` in units of price, ``seconds``,
``tokens``, ``prompt_tokens``, signals, and ``beliefs`` by alpha. ``NAME.prices.json`` tells each agent's ``cost``, or
its ``input_price`` and ``output_price``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.errors import ConfigError
from benchmarks.outcomes import Outcomes
from mesh.questions import Question

SIGNALS = ("likelihood", "p_true")
DIGITS = 5


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
    measures = {"work": outcomes.work, "look": outcomes.looks, **outcomes.signals}
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
            outside [0, 1], no text, or no price.
    """
    found: list[tuple[Question, dict[str, dict[str, Any]]]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                found.append(_row(json.loads(line), questions or {}))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ConfigError(f"{path}:{number}: broken row: {error!r}") from error
    costs = _costs(path, sorted({name for _, cells in found for name in cells}))
    agents = tuple(sorted(costs, key=lambda name: (costs[name], name)))
    for number, (_, cells) in enumerate(found, start=1):
        if missing := set(agents) - cells.keys():
            raise ConfigError(f"{path}: row {number} has nothing of {', '.join(sorted(missing))}")
    price = np.array([costs[name] for name in agents])

    def column(key: str, default: float = math.nan) -> Any:
        values = [[cells[name].get(key) for _, cells in found] for name in agents]
        return np.array([[default if value is None else value for value in row] for row in values], dtype=float)

    work = column("work")
    return Outcomes(
        tuple(question for question, _ in found),
        agents,
        price,
        column("score"),
        np.where(np.isnan(work), price[:, None], work),  # a price per call, where no work was recorded
        tuple(tuple(str(cells[name].get("response", "")) for _, cells in found) for name in agents),
        {name: column(name) for name in SIGNALS},
        {alpha: _beliefs(found, agents, alpha) for alpha in _alphas(found)},
        column("look"),
    )


def _row(row: dict[str, Any], known: Mapping[str, Question]) -> tuple[Question, dict[str, dict[str, Any]]]:
    name = str(row["id"])
    told = row["models"] if "models" in row else {agent: {"score": score} for agent, score in row["scores"].items()}
    for agent, cell in told.items():
        if not 0 <= float(cell["score"]) <= 1:
            raise ValueError(f"the score of {agent!r} is {cell['score']!r}, it must be in [0, 1]")
    if "question" not in row:
        return known[name], told
    return Question(name, str(row["question"]), str(row.get("task", "")), None, None), told


def _alphas(found: Sequence[tuple[Question, dict[str, dict[str, Any]]]]) -> list[float]:
    told = {alpha for _, cells in found for cell in cells.values() for alpha in cell.get("beliefs", {})}
    return sorted(map(float, told))


def _beliefs(found: Sequence[tuple[Question, dict[str, dict[str, Any]]]], agents: Sequence[str], alpha: float) -> Any:
    key = f"{alpha:g}"
    told = [[cells[name].get("beliefs", {}).get(key) for _, cells in found] for name in agents]
    return np.array([[math.nan if p is None else p for p in row] for row in told], dtype=float)


def _costs(path: Path, agents: Sequence[str]) -> dict[str, float]:
    """Prices in (0, 1]: as told, or input and output price per token together, as shares of the dearest's."""
    place = prices_path(path)
    if not place.exists():
        raise ConfigError(f"{path}: its agents' prices are missing; they stand in {place.name}")
    told = json.loads(place.read_text(encoding="utf-8"))
    if unknown := [name for name in agents if name not in told]:
        raise ConfigError(f"{place}: it has no price of {', '.join(unknown)}")
    prices = {name: told[name] for name in agents}
    if all("cost" in price for price in prices.values()):
        return {name: float(price["cost"]) for name, price in prices.items()}
    sums = {name: price["input_price"] + price["output_price"] for name, price in prices.items()}
    return {name: value / max(sums.values()) for name, value in sums.items()}
