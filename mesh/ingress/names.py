"""What the ``model`` of a request says: the mesh at some alpha, or one of its agents; pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from agents.errors import QueryError
from mesh.ingress.errors import Refused
from mesh.query import check_alpha, check_priority

MESH = "mesh"
AT_ALPHA = "mesh-alpha-"
_NUMBER = re.compile(r"[0-9]{1,3}(\.[0-9]{1,15})?")


@dataclass(frozen=True, slots=True)
class Model:
    """``alpha``: as the name says, None: the mesh's own. ``agent``: the only one that may answer."""

    alpha: float | None = None
    agent: str | None = None

    def only(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """``Mesh.ask``'s options, with those that let only ``agent`` answer.

        Raises:
            Refused: 400 where they name another to begin with.
        """
        if self.agent is None:
            return dict(options)
        if (entry := options.get("entry", self.agent)) != self.agent:
            told = f"entry: {entry!r}; the model, {self.agent!r}, already names the only agent that may answer"
            raise Refused(400, "invalid_value", told, "entry")
        return {**options, "entry": self.agent, "max_hops": 0}


def read_model(name: str, agents: Collection[str]) -> Model:
    """``mesh``, ``mesh-alpha-0.3`` or an agent's name.

    Raises:
        Refused: 404 where there is no such model, 400 where its alpha is none.
    """
    if name == MESH:
        return Model()
    if name in agents:
        return Model(agent=name)
    if name.startswith(AT_ALPHA):
        told = name.removeprefix(AT_ALPHA)
        try:
            return Model(alpha=check_alpha(float(told) if _NUMBER.fullmatch(told) else told))
        except QueryError as error:
            raise Refused(400, "invalid_value", f"model: {error}", "model") from None
    there = ", ".join((MESH, f"{AT_ALPHA}0.5 (any alpha in [0, 1])", *agents))
    raise Refused(404, "model_not_found", f"model: {name[:80]!r}; it must be one of {there}", "model")


def read_alpha(body: float | None, header: str | None, model: Model) -> float | None:
    """The alpha of a request: its body's, else its header's, else its model's.

    Raises:
        Refused: 400 where the header is no number in [0, 1].
    """
    if body is not None or header is None:
        return model.alpha if body is None else body
    try:
        return check_alpha(float(header) if _NUMBER.fullmatch(header.strip()) else header)
    except QueryError as error:
        raise Refused(400, "invalid_value", f"X-Mesh-Alpha: {error}", "X-Mesh-Alpha") from None


def read_priority(body: str | None, header: str | None) -> dict[str, str]:
    """The priority of a request as an option of ``Mesh.ask``: its body's, else its header's; nothing where none says.

    Raises:
        Refused: 400 where the header is none.
    """
    if body is not None or header is None:
        return {} if body is None else {"priority": body}
    try:
        check_priority(header)
    except QueryError as error:
        raise Refused(400, "invalid_value", f"X-Mesh-Priority: {error}", "X-Mesh-Priority") from None
    return {"priority": header}
