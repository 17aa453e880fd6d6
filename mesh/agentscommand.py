"""``mesh agents``: who is in a running mesh, and changing that; no query fails because of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.errors import ConfigError
from mesh.client import Mesh
from mesh.options import Address, AsJson, Name
from mesh.terminal import print_json, print_table
from mesh.yamlsource import Source

agents = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Show and change who is in a running mesh; no query is lost."
)
Agent = Annotated[str, typer.Argument(help="Which agent.")]
Settings = Annotated[Path, typer.Argument(help="YAML file with the agent's settings, as under `agents` of a pool.")]
Within = Annotated[
    float, typer.Option("--within-s", min=0, help="How long it may take over what it has in hand; others do the rest.")
]
_COLUMNS = {
    **{"agent": "agent", "replica": "replica", "state": "state", "cost": "cost", "host": "host", "pid": "pid"},
    **{"gpus": "GPUs", "in_hand": "in hand", "queued": "queued", "deaths": "deaths", "model": "model"},
    **{"device": "device", "why": "why"},
}


def show(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print what ``Mesh.status`` tells."""
    if as_json:
        return print_json(rows)
    doubted = any("doubts" in row for row in rows)
    print_table(
        [
            {title: row.get(key, "") for key, title in _COLUMNS.items()}
            | ({"believes": _doubts(row.get("doubts", {}))} if doubted else {})
            for row in rows
        ]
    )


def _doubts(doubts: Mapping[str, float]) -> str:
    """Of whose promises it believes only a share."""
    return ", ".join(f"{share:.0%} of {name}" for name, share in doubts.items())


@agents.command("list")
def list_agents(name: Name = None, address: Address = None, as_json: AsJson = False) -> None:
    """Show every replica of every agent."""
    with _running(name, address) as mesh:
        show(mesh.status(), as_json)


@agents.command()
def add(settings: Settings, name: Name = None, address: Address = None) -> None:
    """Start one more agent, which joins the topology."""
    read = _read(settings)
    with _running(name, address) as mesh:
        mesh.add_agent(read)
    typer.echo(f"{read['name']} has joined")


@agents.command()
def remove(agent: Agent, name: Name = None, address: Address = None) -> None:
    """End an agent at once; what it has in hand is answered by others."""
    with _running(name, address) as mesh:
        mesh.remove_agent(agent)
    typer.echo(f"{agent} has left")


@agents.command()
def drain(agent: Agent, within_s: Within = 300.0, name: Name = None, address: Address = None) -> None:
    """Let an agent leave: it gets nothing new, answers what it has in hand, and ends."""
    with _running(name, address) as mesh:
        mesh.remove_agent(agent, within_s)
    typer.echo(f"{agent} has left")


@agents.command()
def scale(
    agent: Agent,
    replicas: Annotated[int, typer.Argument(min=1, help="How many replicas.")],
    within_s: Within = 300.0,
    name: Name = None,
    address: Address = None,
) -> None:
    """Have so many replicas of an agent; those too many answer what they have in hand first."""
    with _running(name, address) as mesh:
        mesh.scale_agent(agent, replicas, within_s)
        show([row for row in mesh.status() if row["agent"] == agent], as_json=False)


@agents.command()
def upgrade(settings: Settings, within_s: Within = 300.0, name: Name = None, address: Address = None) -> None:
    """Put another model, policy or price in an agent's place, while it is asked."""
    read = _read(settings)
    with _running(name, address) as mesh:
        mesh.upgrade_agent(read, within_s)
    typer.echo(f"{read['name']} is what {settings} says")


@contextlib.contextmanager
def _running(name: str | None, address: str | None) -> Iterator[Mesh]:
    from mesh.running import connect

    with connect(name, address) as mesh:
        yield mesh


def _read(settings: Path) -> dict[str, Any]:
    data = Source.read(settings.expanduser()).data
    if not isinstance(data, dict) or "name" not in data:
        raise ConfigError(f"{settings}: it must be a mapping with the settings of one agent, its `name` among them")
    return data
