"""Utility over alpha, as ``mesh bench routing`` has measured it: what the page draws beside the slider."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from agents.errors import ConfigError
from mesh.config import load

log = logging.getLogger(__name__)
GROUP = "mesh.results"  # entry points of what is installed beside the mesh: functions that give such a file's path
_OURS = "mesh-"  # what the names of the mesh's own ways begin with
_PAPER = "mesh-reliability-0.5"


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class _Method(_Read):
    utility: float
    utility_full: float


class _Chosen(_Read):
    name: str
    name_full: str


class _Alpha(_Read):
    oracle: float
    ours: _Chosen
    methods: dict[str, _Method]


class _Result(_Read):
    bench: Literal["routing"]
    pool: str
    n: int
    seed: int
    alphas: dict[float, _Alpha]


class _File(_Read):
    date: str
    result: _Result


class Curve(BaseModel):
    """One way to route: its mean utility at each alpha, by the answer's price and by that of all work.

    None: it has none, or another of the mesh's ways was chosen for that way to count.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Literal["oracle", "ours", "paper", "baseline"]
    utility: tuple[float, ...] | None = None
    utility_full: tuple[float, ...] | None = None


class Curves(BaseModel):
    """All ways to route that were held to the same ``questions`` of ``pool``, at the same ``alphas``."""

    model_config = ConfigDict(frozen=True)

    pool: str
    questions: int
    seed: int
    date: str
    alphas: tuple[float, ...]
    curves: tuple[Curve, ...]


def read_curves(path: Path) -> Curves:
    """The curves in a result of ``mesh bench routing``.

    Raises:
        ConfigError: it is none. OSError: there is no such file.
    """
    try:
        file = _File.model_validate(json.loads(path.read_text(encoding="utf-8")))
        return _curves(file)
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(str(part) for part in wrong["loc"])
        told = f"{where}: {wrong['msg']}"
    except KeyError as error:
        told = f"{error}: it is not there at every alpha"
    except ValueError as error:
        told = str(error)
    raise ConfigError(f"results: {str(path)!r}; it must be a result of `mesh bench routing` ({told})")


def shipped_curves(agents: Iterable[str]) -> Curves | None:
    """Those installed with the mesh, where all these agents were among those that they were measured on.

    A server does without those that cannot be read, and says so in its log.
    """
    wanted = set(agents)
    for entry in entry_points(group=GROUP):
        try:
            curves = read_curves(entry.load()())
            measured = {agent.name for agent in load(curves.pool).agents}
        except (ConfigError, OSError) as error:
            log.warning("results %s are not shown: %s", entry.name, error)
            continue
        if wanted <= measured:
            return curves
    return None


def told(curves: Curves | None) -> dict[str, Any]:
    """As JSON; without any the same shape, empty."""
    if curves is not None:
        return curves.model_dump(mode="json")
    return {"pool": None, "questions": 0, "seed": None, "date": None, "alphas": [], "curves": []}


def _curves(file: _File) -> Curves:
    """Of the mesh's own ways only the one that was chosen, for each way to count, and the paper's rule."""
    result, alphas = file.result, tuple(sorted(file.result.alphas))
    rows = [result.alphas[alpha] for alpha in alphas]
    names, names_full = ([getattr(row.ours, field) for row in rows] for field in ("name", "name_full"))
    chosen = tuple(row.methods[name].utility for row, name in zip(rows, names, strict=True))
    chosen_full = tuple(row.methods[name].utility_full for row, name in zip(rows, names_full, strict=True))
    curves = [
        Curve(name="oracle", kind="oracle", utility=tuple(row.oracle for row in rows)),
        Curve(name=" / ".join(dict.fromkeys(names)), kind="ours", utility=chosen),
        Curve(name=" / ".join(dict.fromkeys(names_full)), kind="ours", utility_full=chosen_full),
    ]
    curves += [_curve(name, rows) for name in rows[0].methods if name == _PAPER or not name.startswith(_OURS)]
    about: Mapping[str, Any] = {"pool": result.pool, "questions": result.n, "seed": result.seed, "date": file.date}
    return Curves(**about, alphas=alphas, curves=tuple(curves))


def _curve(name: str, rows: list[_Alpha]) -> Curve:
    return Curve(
        name=name,
        kind="paper" if name == _PAPER else "baseline",
        utility=tuple(row.methods[name].utility for row in rows),
        utility_full=tuple(row.methods[name].utility_full for row in rows),
    )
