"""What a query costs the mesh itself, by how many agents there are: processor time, events, messages and bytes.

In virtual time, with the production node, owner, policies and topologies: agents that do as the lab's did, queries at
random times. A piece that has been measured stays in a folder, so that asked again, it goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.messages import Accepted, Alive, Key, Pulled, Rejected
from agents.wire import pack
from mesh.runtimes.sim import Simulation
from mesh.runtimes.virtual import Caller
from mesh.simulate import simulate

SIZES = (10, 100, 1_000, 10_000)
TOPOLOGIES = ("tree", "small_world")
TIMED = 10_000  # queries of a turn; the quickest of TURNS counts, which take turns among the sizes
TURNS = 3
WEIGHED = 2_000  # queries whose messages are packed, to know their bytes
MEASURES = ("hops", "us_per_query", "events_per_query", "messages_per_query", "bytes_per_query")

Told = Callable[[str, int, int], None]  # what, done, all


class Weighed(Simulation):
    """A simulation that packs every message as it would travel, and adds up the bytes."""

    bytes = 0

    def call(self, caller: Caller, agent: str, key: Key, method: Callable[..., None], *what: Any) -> None:
        self.bytes += len(pack(what))
        super().call(caller, agent, key, method, *what)

    def answer(self, agent: str, caller: Caller, event: Accepted | Rejected | Pulled | Alive) -> None:
        self.bytes += len(pack(event))
        super().answer(agent, caller, event)


def measure(queries: int, seed: int, work: Path, told: Told | None = None) -> dict[str, Any]:
    """All of it; ``queries`` are asked of the largest mesh of the first topology.

    Returns:
        What the RESULT line holds: by agents and topology what a query takes, and of ``queries`` whether all ended.
    """
    kept = Kept(work, seed, told)
    found: dict[str, dict[str, Any]] = {topology: {} for topology in TOPOLOGIES}
    for topology in TOPOLOGIES:
        for turn in range(TURNS):
            for size in SIZES:
                kept.piece(topology, size, TIMED, turn)
        for size in SIZES:
            found[topology][str(size)] = _figures(kept, topology, size)
    many = kept.piece(TOPOLOGIES[0], SIZES[-1], queries, 0)
    told_of = ("queries", "answered", "lost", "digest", "virtual_seconds", "cpu_seconds", "us_per_query")
    found[TOPOLOGIES[0]][str(SIZES[-1])] |= {"queries": queries, "lost": many["lost"]}
    return {
        "bench": "scale",
        "topology": TOPOLOGIES[0],
        "agents": found.pop(TOPOLOGIES[0]),
        "others": found,
        "largest": {"agents": SIZES[-1], **{key: many[key] for key in told_of}},
    }


class Kept:
    """Measured pieces, one file each."""

    def __init__(self, folder: Path, seed: int, told: Told | None) -> None:
        self.folder, self.seed, self.told = folder, seed, told
        folder.mkdir(parents=True, exist_ok=True)

    def piece(self, topology: str, agents: int, queries: int, turn: int) -> dict[str, Any]:
        """What ``simulate`` tells of so many; measured now where it has not been yet."""
        name = f"{topology}, {agents} agents, {queries} queries, seed {self.seed}, turn {turn}"
        return self._once(name, lambda: self._simulated(name, topology, agents, queries, Simulation))

    def weighed(self, topology: str, agents: int) -> dict[str, Any]:
        """The same, with bytes per query."""
        name = f"{topology}, {agents} agents, weighed, seed {self.seed}"
        worlds: list[Weighed] = []

        def make(*args: Any, **options: Any) -> Weighed:
            worlds.append(Weighed(*args, **options))
            return worlds[-1]

        def run() -> dict[str, Any]:
            result = self._simulated(name, topology, agents, WEIGHED, make)
            return {**result, "bytes_per_query": worlds[0].bytes / WEIGHED}

        return self._once(name, run)

    def _once(self, name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = self.folder / f"{name.replace(', ', '_').replace(' ', '-')}.json"
        if not path.exists():
            path.write_text(json.dumps(run()), encoding="utf-8")
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def _simulated(
        self, name: str, topology: str, agents: int, queries: int, kind: Callable[..., Simulation]
    ) -> dict[str, Any]:
        progress = (lambda done, total: self.told(name, done, total)) if self.told else None
        return simulate(agents=agents, queries=queries, topology=topology, seed=self.seed, kind=kind, progress=progress)


def _figures(kept: Kept, topology: str, size: int) -> dict[str, Any]:
    turns = [kept.piece(topology, size, TIMED, turn) for turn in range(TURNS)]
    if len({one["digest"] for one in turns}) > 1:
        raise RuntimeError(f"{topology}, {size} agents: one seed gave {[one['digest'] for one in turns]}")
    one, us = turns[0], min(one["us_per_query"] for one in turns)
    return {
        "queries": TIMED,
        "lost": one["lost"],
        "hops": one["hops_mean"],
        "us_per_query": us,
        "us_per_hop": round(us / one["hops_mean"], 1),
        "events_per_query": round(one["events"] / TIMED, 2),
        "messages_per_query": round(one["messages"] / TIMED, 2),
        "bytes_per_query": round(kept.weighed(topology, size)["bytes_per_query"]),
        "setup_seconds": one["setup_seconds"],
        "digest": one["digest"],
    }


def rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures as a table."""
    return [
        {"topology": topology, "agents": size, **{key: value for key, value in found.items() if key != "digest"}}
        for topology, sizes in _shapes(result).items()
        for size, found in sizes.items()
    ]


def draw(result: Mapping[str, Any], path: Path) -> None:
    """What a query takes, against how many agents there are, each as a multiple of what it takes with the fewest."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shapes = _shapes(result)
    figure, axes = pyplot.subplots(1, len(shapes), figsize=(5.5 * len(shapes), 4.2), sharey=True, squeeze=False)
    for axis, (topology, sizes) in zip(axes[0], shapes.items(), strict=True):
        agents: Sequence[int] = [int(size) for size in sizes]
        for measure in MEASURES:
            values = [found[measure] for found in sizes.values()]
            style = {"color": "black", "linewidth": 2.5} if measure == "hops" else {"marker": "."}
            axis.plot(agents, [value / values[0] for value in values], label=measure.replace("_", " "), **style)
        axis.set(xscale="log", xlabel="agents", title=topology)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(f"times as much as with {min(SIZES)} agents")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _shapes(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {result["topology"]: result["agents"], **result["others"]}
