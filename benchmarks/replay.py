"""Recorded outcomes as a pool, ``--pool replay:FILE``: its rows in parts, and where each number of cost comes from.

An agent's price, by which the cost of an answer counts, stands in ``NAME.prices.json``; where there is no such file it
is what its calls cost in the mean over the training rows. The full cost of a call is its ``work`` (``mesh record``
writes that), or its ``cost``, in whatever unit, as a share of that mean and times the price; where neither was recorded
it is the price, whatever the question. A column of these that never changes was not measured call by call, and is
refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from agents.errors import ConfigError, QueryError
from benchmarks.outcomes import Floats, Ints, Outcomes
from benchmarks.rows import Row, agents_of, as_outcomes, column, prices, prices_path, read_rows, shares
from mesh.questions import Question, by_id, find_questions, place

PREFIX = "replay:"
BY_CALL = ("cost", "work", "look")  # columns that claim to be measured call by call
VALIDATION, TEST = 0.2, 0.5  # an id's place below the first: validation; below the second: test; else training
LEAST = 20  # rows of each part


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """A recorded pool.

    Args:
        train, validation, test: which part a question is in follows from its id alone.
        cost_source: of ``cost``, ``full_cost`` and ``look`` where that number comes from.
    """

    name: str
    train: Outcomes
    validation: Outcomes
    test: Outcomes
    cost_source: dict[str, str]

    @property
    def parts(self) -> dict[str, int]:
        """How many rows each part has."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}

    @property
    def has(self) -> dict[str, bool]:
        """Of what only some recordings have, whether this one does: drafts, signals of these, confidences."""
        drafts = any(text for texts in self.train.texts for text in texts)
        signals = {name: not np.isnan(values).all() for name, values in self.train.signals.items()}
        return {"drafts": drafts, **signals, "confidences": bool(self.test.beliefs)}


def load(path: Path, texts: Sequence[str] = (), tasks: bool = True) -> Replay:
    """Read a recorded pool.

    Args:
        path: rows, as ``benchmarks/rows.py`` reads them; a file, or a name in MESH_DATA.
        texts: question files, or names in MESH_DATA, for rows that have ids only.
        tasks: whether everybody, baselines and ours alike, may read the name of a question's task before its text.

    Raises:
        ConfigError: there is no such file, a row is broken or its text is nowhere (names file and id), there are no
            prices, a column of costs never changes, or a part has too few rows.
    """
    try:
        path = find_questions(path)
    except QueryError as error:
        raise ConfigError(f"pool {PREFIX}{path}, rows as `mesh record` writes them: {error}") from error
    found = [(_shown(question, tasks), cells) for question, cells in read_rows(path, by_id(texts))]
    names = agents_of(found)
    measured = [key for key in BY_CALL if _measured(path, found, names, key)]
    at = parted([question.id for question, _ in found])
    for part, places in at.items():
        if len(places) < LEAST:
            raise ConfigError(f"{path}: {part} has {len(places)} of its {len(found)} rows; it must have {LEAST}")
    paid = _paid(path, found, names, at["train"]) if "cost" in measured else {}
    priced = prices_path(path).exists() or not paid
    outcomes = as_outcomes(path, found, prices(path, names) if priced else shares(paid))
    if paid and "work" not in measured:
        mean = np.array([paid[name] for name in outcomes.agents])
        outcomes = replace(
            outcomes, work=outcomes.costs[:, None] * column(found, outcomes.agents, "cost") / mean[:, None]
        )
    source = _sources(path, priced, measured)
    return Replay(path.name.removesuffix(".jsonl"), *(outcomes.at(places) for places in at.values()), source)


def _shown(question: Question, tasks: bool) -> Question:
    """As routers see it, whether they read the text alone or, as embeddings do, its task too."""
    if tasks and question.task:
        return replace(question, text=f"{question.task}: {question.text}")
    return question if tasks else replace(question, task="")


def path_of(pool: str) -> Path | None:
    """The rows that ``replay:FILE`` names; None for any other pool."""
    return Path(pool.removeprefix(PREFIX)) if pool.startswith(PREFIX) else None


def parted(ids: Sequence[str]) -> dict[str, Ints]:
    """The places of ``train``, ``validation`` and ``test``, by a hash of each id: the same whatever else is there. Rows
    without any of those on which agents are calibrated (``mesh.questions.split``) are parted alike among themselves.
    """
    where = np.array([place(id) for id in ids])
    if len(where) and where.min() >= VALIDATION:
        where = (where - VALIDATION) / (1 - VALIDATION)
    return {
        "train": np.flatnonzero(where >= TEST),
        "validation": np.flatnonzero(where < VALIDATION),
        "test": np.flatnonzero((where >= VALIDATION) & (where < TEST)),
    }


def _measured(path: Path, found: Sequence[Row], names: Sequence[str], key: str) -> bool:
    """Whether there is such a column. Raises ConfigError where it is no cost, or never changes."""
    values = _numbers(path, found, names, key)
    for name, row in zip(names, values, strict=True):
        known = row[~np.isnan(row)]
        if len(known) > 1 and (known == known[0]).all():
            raise ConfigError(
                f"{path}: {key} of {name!r} is {known[0]:g} in all {len(known)} rows, so it was not measured call by "
                f"call; leave {key} out of the rows and write a price per call into {prices_path(path).name}"
            )
    return not np.isnan(values).all()


def _numbers(path: Path, found: Sequence[Row], names: Sequence[str], key: str) -> Floats:
    for question, cells in found:
        for name in names:
            value = cells.get(name, {}).get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ConfigError(f"{path}: row {question.id!r}: {key} of {name!r} is {value!r}; it must be 0 or more")
    known = [(question, {name: cells.get(name, {}) for name in names}) for question, cells in found]
    return column(known, names, key)


def _paid(path: Path, found: Sequence[Row], names: Sequence[str], train: Ints) -> dict[str, float]:
    """What each agent's calls cost, in the mean over the training rows. Raises ConfigError where a call has no cost."""
    values = _numbers(path, found, names, "cost")
    for name, row in zip(names, values, strict=True):
        if np.isnan(row).any():
            at = found[int(np.flatnonzero(np.isnan(row))[0])][0].id
            raise ConfigError(f"{path}: row {at!r} has no cost of {name!r}, others have; give one in every row or none")
        if not row[train].sum() > 0:
            raise ConfigError(f"{path}: cost of {name!r} is 0 in every training row; it must be above 0 in some")
    return {name: float(row[train].mean()) for name, row in zip(names, values, strict=True)}


def _sources(path: Path, priced: bool, measured: Sequence[str]) -> dict[str, str]:
    table, rows = prices_path(path).name, path.name
    price = f"price per call, in {table}: `cost` as told, or input and output price, as a share of the dearest agent's"
    if not priced:
        price = f"mean of `cost` in {rows} over the training rows, as a share of the dearest agent's"
    full = "the price per call, the same for every question: no tokens, work or cost were recorded by question"
    if "cost" in measured:
        full = f"`cost` in {rows}, call by call, over the agent's mean on the training rows, times its price"
    if "work" in measured:
        full = f"`work` in {rows}, call by call (the price where a call has none)"
    look = f"`look` in {rows}, call by call" if "look" in measured else "none was recorded"
    return {"cost": price, "full_cost": full, "look": look}
