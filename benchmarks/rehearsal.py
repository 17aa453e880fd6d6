"""``mesh learn``: what forwarding is worth, learnt beforehand from recorded rows instead of from what happens.

Agents route the recorded questions among themselves, over and over, and hear each time what became of it. What they can
do does not change meanwhile, so nobody is doubted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from agents.errors import ConfigError
from agents.policies import Policy
from agents.policies.cells import save
from agents.policies.learner import Learner
from agents.policies.value import Value
from benchmarks.outcomes import Outcomes
from benchmarks.walking import walk
from mesh.config import MeshConfig
from mesh.poolfile import write_pool
from topologies import Topology

# How often the rows are gone over; what share of each pass is spent on trying, and after how many outcomes a mean
# forgets: at first neighbours learn as well, so that what they were worth is soon not true any more.
PASSES = ((0.2, 30), (0.05, 200))
BEGUN = ("hop", "full")  # options of the policy that matter to what is learnt

app = typer.Typer(help="Learn from recorded rows what forwarding is worth.")


@app.callback(invoke_without_command=True)
def main(
    rows: Annotated[Path, typer.Option(help="Recorded rows, as `mesh record` writes them.", exists=True)],
    pool: Annotated[str, typer.Option(help="The pool that was recorded: a ready pool's name, or a file.")],
    out: Annotated[Path, typer.Option(help="Folder for what each agent has learnt, and for the pool.yaml of it.")],
    questions: Annotated[list[str] | None, typer.Option(help="Question file for rows of ids; may be repeated.")] = None,
) -> None:
    """Learn from recorded rows what forwarding is worth; OUT/pool.yaml is the pool that goes by that."""
    from benchmarks.rows import read
    from mesh.config import load
    from mesh.questions import by_id
    from mesh.terminal import print_note, say

    path = learn(load(pool), read(rows, by_id(questions or ())), out.resolve(), say)
    print_note(f"{path}: `mesh ask QUERY --pool {path}`")


def learn(config: MeshConfig, outcomes: Outcomes, out: Path, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Write what each agent of a pool learns from its rows, beginning with nothing, and the pool file that goes by it.

    Options of agents whose policy is ``value`` already stay as they are.

    Raises:
        ConfigError: the rows are of other agents, or tell no confidences.
    """
    agents = {agent.name: agent for agent in config.agents}
    if set(agents) != set(outcomes.agents):
        raise ConfigError(
            f"rows are of {', '.join(outcomes.agents)}, but the agents of pool {config.name!r} are "
            f"{', '.join(agents)}; they must be the same"
        )
    if not outcomes.beliefs:
        raise ConfigError("rows have no confidences, by which agents would decide; `mesh record` records them")
    options = {
        name: dict(agent.policy.options) if agent.policy.kind == "value" else {} for name, agent in agents.items()
    }
    policies = {name: Value(**{key: given[key] for key in BEGUN if key in given}) for name, given in options.items()}
    rehearsed(policies, outcomes, config.build_topology(), sorted(outcomes.beliefs), progress)
    changes = {}
    for name, policy in policies.items():
        values = out / f"{name}.json"
        save(values, policy.learnt())
        kept = {key: str(given) if isinstance(given, Path) else given for key, given in options[name].items()}
        changes[name] = {"policy": {"kind": "value", **kept, "values": str(values)}}
    return write_pool(config, f"{config.name}-value", changes, out / "pool.yaml")


def rehearsed(
    policies: Mapping[str, Policy],
    outcomes: Outcomes,
    topology: Topology,
    alphas: Sequence[float],
    told: Callable[[str], None] = lambda _: None,
) -> dict[str, Policy]:
    """Policies once they have gone over recorded outcomes, with feedback on all; who does not learn is as before."""
    learners = [policy for policy in policies.values() if isinstance(policy, Learner)]
    everything = np.ones(len(outcomes), dtype=bool)
    for number, (explore, window) in enumerate(PASSES if learners else (), start=1):
        with contextlib.ExitStack() as rehearsing:
            for policy in learners:
                rehearsing.enter_context(policy.rehearsing(explore, window))
            for alpha in alphas:
                walk(outcomes, policies, topology, alpha, feedback=everything)
                told(f"pass {number} of {len(PASSES)}, alpha {alpha:g}")
    return dict(policies)
