"""``mesh demo``: a lab pool at work. Queries walk the graph before one's eyes; then what that was worth, in figures."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.live import Live

from agents.errors import MeshError, QueryError
from agents.messages import Reply
from benchmarks.metrics import Row, oracle, summarise
from benchmarks.results import write
from benchmarks.walk import Walk, drawn
from mesh.askfile import Job, ask_all
from mesh.client import Mesh
from mesh.config import MeshConfig, load, with_overrides
from mesh.query import check_alpha
from mesh.questions import Question
from mesh.terminal import cell, print_json, print_table
from training.grading import is_right

IN_FLIGHT = 32
NEXT = {
    "ask '37+58=' --alpha 0.2": "one query, and how it was answered",
    "demo --pool lab-mesh": "eight agents, everybody the others' neighbour",
    "pools": "the other pools; `small` answers in English",
    "up lab": "a mesh that stays up, until `down`; `status` shows it",
}

app = typer.Typer(help="See a mesh work: tiny real models, no download, no key, no GPU.")
Outcomes = list[tuple[Question, Reply | MeshError]]


@app.callback(invoke_without_command=True)
def demo(
    pool: Annotated[str, typer.Option(help="A lab pool: lab, lab-tree, lab-mesh or lab-cascade8.")] = "lab",
    count: Annotated[int, typer.Option("--queries", min=1, help="Questions at each alpha.")] = 200,
    alpha: Annotated[list[float] | None, typer.Option(help="May be repeated; default: 0.2, 0.5, 0.8.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the questions.")] = 0,
    runtime: Annotated[
        Literal["ray", "local"], typer.Option(help="An actor an agent, or all in this process.")
    ] = "ray",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder that gets demo.json, with how it came about.")] = None,
) -> None:
    """Ask a lab pool questions at three alphas: a live view, then accuracy, cost, utility and a few paths."""
    alphas = [check_alpha(each) for each in dict.fromkeys(alpha or (0.2, 0.5, 0.8))]
    config = with_overrides(load(pool), runtime=runtime)
    make = config.question_maker
    if make is None:
        raise QueryError(f"pool: the demo needs one with questions of its own, such as 'lab', not {pool!r}")
    figures = _Demo(config, Console(stderr=as_json)).run(make(count, "test", seed), alphas)
    print_json(figures) if as_json else _tell_next()
    if out is not None:
        write("demo", figures, seed, out)


def _tell_next() -> None:
    called = Path(sys.argv[0])
    here = os.path.relpath(called) if called.name == "mesh" else f"{os.path.relpath(sys.executable)} -m mesh"
    command = "mesh" if shutil.which("mesh") else here  # `make` calls it where no shell would find it
    print("What to type next:")
    for rest, what in NEXT.items():
        print(f"  {f'{command} {rest}':44} {what}")


class _Demo:
    def __init__(self, config: MeshConfig, console: Console) -> None:
        self.config, self.console = config, console
        self.took: dict[str, float] = {}

    def run(self, asked: Sequence[Question], alphas: Sequence[float]) -> dict[str, Any]:
        """Everything, in the order in which it is shown."""
        if self.config.runtime == "ray":
            with self._timed("starting Ray"):
                from mesh.runtimes.ray import ensure_cluster

                ensure_cluster()
        mesh = Mesh(self.config)
        try:
            with self._timed(f"starting {len(self.config.agents)} agents"):
                mesh.start()
            walk = Walk(self.config, mesh.status)
            with self._shown(walk):
                alone = self._alone(mesh, walk, asked)
                asks = {alpha: self._asked(mesh, walk, asked, alpha) for alpha in alphas}
        finally:
            with self._timed("closing"):
                mesh.close()
        costs = {agent.name: agent.cost for agent in self.config.agents}
        figures = [figures_at(alpha, outcomes, alone, costs) for alpha, outcomes in asks.items()]
        self._tell(figures, asks)
        return {"pool": self.config.name, "questions": len(asked), "alphas": figures, "seconds": self.took}

    def _alone(self, mesh: Mesh, walk: Walk, asked: Sequence[Question]) -> dict[str, list[bool]]:
        """What each agent gets right by itself, question by question: what an oracle would know."""
        alone = {}
        for agent in self.config.agents:
            with self._timed("asking every agent alone, for the oracle"):
                outcomes = self._ask(mesh, walk, asked, 0.0, f"{agent.name} alone", entry=agent.name, max_hops=0)
            alone[agent.name] = [is_right(outcome, question) for question, outcome in outcomes]
        return alone

    def _asked(self, mesh: Mesh, walk: Walk, asked: Sequence[Question], alpha: float) -> Outcomes:
        with self._timed(f"asking the mesh at alpha {alpha:g}"):
            return self._ask(mesh, walk, asked, alpha, f"alpha {alpha:g}")

    def _ask(
        self, mesh: Mesh, walk: Walk, asked: Sequence[Question], alpha: float, title: str, **options: Any
    ) -> Outcomes:
        outcomes: dict[str, Reply | MeshError] = {}
        walk.begin(title, len(asked))

        def record(job: Job, outcome: Reply | MeshError) -> None:
            outcomes[job.question.id] = outcome
            walk.add(job.question.text, outcome, is_right(outcome, job.question))

        ask_all(mesh, (Job(question, alpha) for question in asked), record, IN_FLIGHT, **options)
        return [(question, outcomes[question.id]) for question in asked]

    def _tell(self, figures: Sequence[dict[str, Any]], asks: dict[float, Outcomes]) -> None:
        names = [agent.name for agent in self.config.agents]
        print_table([_row(each) for each in figures], self.console)
        self.console.print("utility: right - alpha * cost; oracle: the best that one agent could do, for each question")
        self.console.print("\nanswered by, in percent of the questions:")
        print_table([_shares(each, names) for each in figures], self.console)
        for alpha, outcomes in asks.items():
            self.console.print(
                f"\nalpha {alpha:g}, one path of each length (✓ answered, ✗ refused; green is right, red is wrong):"
            )
            for question, outcome in _of_each_length(outcomes):
                self.console.print(drawn(question.text, outcome, is_right(outcome, question)), soft_wrap=True)
        self.console.print("\nwhat took how long:")
        for what, seconds in self.took.items():
            self.console.print(f"{seconds:6.1f} s  {what}")
        self.console.print()

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        if what not in self.took and not self.console.is_terminal:
            self.console.print(f"{what} ...")
        begin = time.perf_counter()
        yield
        self.took[what] = self.took.get(what, 0.0) + time.perf_counter() - begin

    @contextlib.contextmanager
    def _shown(self, walk: Walk) -> Iterator[None]:
        if self.console.is_terminal:
            with Live(walk, console=self.console, refresh_per_second=4, transient=True):
                yield
        else:
            yield


def figures_at(
    alpha: float, outcomes: Outcomes, alone: Mapping[str, Sequence[bool]], costs: Mapping[str, float]
) -> dict[str, Any]:
    """What the mesh did at one alpha, beside its best agent and the oracle. A query that failed is wrong, and free.

    Args:
        alone: for every agent whether it is right by itself, question by question.
        costs: each agent's price.

    Returns:
        A ``Summary`` as a mapping, ``failed``, the utilities of the best agent and of the oracle, and the share of the
        oracle's that was reached, in percent; None where even the oracle gains nothing.
    """
    rows = [
        Row.of(outcome, is_right(outcome, question))
        if isinstance(outcome, Reply)
        else Row(False, 0.0, 0.0, "nobody", alpha, hops=0)
        for question, outcome in outcomes
    ]
    summary, best = summarise(rows), oracle(alone, costs, alpha)
    single = {name: sum(right) / len(right) - alpha * costs[name] for name, right in alone.items()}
    return {
        "alpha": alpha,
        **asdict(summary),
        "failed": sum(isinstance(outcome, MeshError) for _, outcome in outcomes),
        "best_single": max(single, key=lambda name: single[name]),
        "best_single_utility": max(single.values()),
        "oracle_utility": best,
        "percent_of_oracle": 100 * summary.utility / best if best > 0 else None,
    }


def _shares(figures: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {"alpha": figures["alpha"], **{name: f"{figures['shares'].get(name, 0.0):.1f}" for name in names}}


def _of_each_length(outcomes: Outcomes) -> Outcomes:
    first: dict[int, tuple[Question, Reply | MeshError]] = {}
    for question, outcome in outcomes:
        if isinstance(outcome, Reply):
            first.setdefault(len(outcome.path), (question, outcome))
    return [first[length] for length in sorted(first)]


def _row(figures: dict[str, Any]) -> dict[str, Any]:
    (low, high), percent = figures["utility_ci"], figures["percent_of_oracle"]
    return {
        "alpha": figures["alpha"],
        "right": f"{figures['accuracy']:.3f}",
        "cost": f"{figures['cost']:.3f}",
        "full cost": f"{figures['full_cost']:.3f}",
        "utility (95 %)": f"{figures['utility']:.3f} ({low:.2f} to {high:.2f})",
        "best agent": f"{figures['best_single_utility']:.3f} {figures['best_single']}",
        "% of oracle": cell(percent and round(percent, 1)),
        "failed": figures["failed"] or None,
    }
