"""The ``mesh`` command. People get text and tables, programs ``--json`` on a stdout with nothing else on it.

Exit codes: 0 done, 1 failed, 2 wrong input, 130 interrupted.
"""

from __future__ import annotations

import contextlib
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup
from typer.main import get_group

from agents.errors import ConfigError, MeshError, QueryError
from mesh.agentscommand import agents, show
from mesh.askcommand import ask_elsewhere, ask_file, ask_one, questions_of
from mesh.client import Mesh
from mesh.config import load, pools
from mesh.ingress.command import key, serve
from mesh.ingress.tls import ClientTLS
from mesh.options import Address, AsJson, Elsewhere, ModelsDir, Name, Pool, Priority, TlsCa, TlsCert, TlsKey
from mesh.query import check_alpha
from mesh.simcommand import sim
from mesh.terminal import print_json, print_table, say
from topologies import TopologyError

_WRONG_INPUT = (ConfigError, QueryError, TopologyError)


class Commands(TyperGroup):
    """Our own commands and those that other packages plug in; theirs are imported when they are needed.

    Errors that are meant for the user become one message and an exit code.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(dict.fromkeys([*self.commands, *sorted(entry_points(group="mesh.commands").names)]))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        return next((_plugged_in(entry) for entry in entry_points(group="mesh.commands", name=cmd_name)), None)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # whoever read our output has gone, which is no failure of ours
            raise
        except (MeshError, TopologyError, OSError) as error:
            if ctx.params.get("debug"):
                raise
            say(f"error: {error}")
            raise typer.Exit(2 if isinstance(error, _WRONG_INPUT) else 1) from None
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(130) from None


def _plugged_in(entry: EntryPoint) -> Any:
    """The command behind an entry point; one that only says so where it cannot be loaded."""
    plugged = typer.Typer(add_completion=False)
    try:
        plugged.add_typer(entry.load(), name=entry.name)
        return get_group(plugged).commands[entry.name]
    except Exception as error:  # whatever it is, it must not take the other commands along
        broken = typer.Typer(add_completion=False)
        why = f"cannot be loaded from {entry.value}: {type(error).__name__}: {error}"
        anything = {"ignore_unknown_options": True, "allow_extra_args": True}

        @broken.command(entry.name, help=why, context_settings=anything, add_help_option=False)
        def fail() -> None:
            raise MeshError(f"the command {entry.name!r} {why}")

        return get_group(broken).commands[entry.name]


app = typer.Typer(
    cls=Commands, help="A mesh of LLM agents that route queries among themselves.", pretty_exceptions_enable=False
)


def main() -> None:
    """The console command."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mesh {version('disrouter')}")
        raise typer.Exit


@app.callback(no_args_is_help=True)
def _mesh(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """A mesh of LLM agents that route queries among themselves."""


# ---------------------------------------------------------------------------------- asking


@app.command()
def ask(
    query: Annotated[str | None, typer.Argument(help="What to ask; or use --file.")] = None,
    pool: Pool = None,
    alpha: Annotated[
        list[float] | None,
        typer.Option(help="0: the best answer, 1: the cheapest; default: the pool's. With --file also several times."),
    ] = None,
    file: Annotated[
        str | None, typer.Option(help="JSON lines of questions: a path, or a name looked up in MESH_DATA.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the replies go, one line each; what is there is not asked again.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions asked at the same time.")] = 16,
    on_bad: Annotated[
        Literal["fail", "skip"], typer.Option(help="What to do about rows that are no question.")
    ] = "fail",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first questions of the file.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Bounds the answer.")] = None,
    deadline_s: Annotated[float | None, typer.Option(help="Bounds the wait for a reply.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Bounds the full cost of a query.")] = None,
    entry: Annotated[str | None, typer.Option(help="The agent to begin with.")] = None,
    priority: Priority = None,
    runtime: Annotated[Literal["ray", "local"] | None, typer.Option(help="Where the pool's agents run.")] = None,
    trace: Annotated[Path | None, typer.Option(help="File that gets a JSON line for every event.")] = None,
    models_dir: ModelsDir = None,
    name: Name = None,
    address: Address = None,
    grpc: Elsewhere = None,
    tls_ca: TlsCa = "",
    tls_cert: TlsCert = "",
    tls_key: TlsKey = "",
    stream: Annotated[bool, typer.Option(help="Show the answer as it comes.")] = True,
    as_json: AsJson = False,
) -> None:
    """Ask one query, or a file of questions."""
    if (query is None) == (file is None):
        raise QueryError("query: give either a query or --file, a file of questions")
    if (file is None) != (out is None):
        raise QueryError("out: --file and --out go together: questions from one, replies to the other")
    alphas = [check_alpha(each) for each in dict.fromkeys(alpha or ())]
    if file is None and len(alphas) > 1:
        raise QueryError(f"alpha: {alphas}; a query has one alpha, a --file may have several")
    questions = [] if file is None else questions_of(file, on_bad)[:limit]
    options = _given(max_tokens=max_tokens, deadline_s=deadline_s, max_cost=max_cost, entry=entry, priority=priority)
    changes = _given(runtime=runtime, trace=trace and trace.expanduser().resolve())
    shown, one_alpha = stream and not as_json, alphas[0] if alphas else None
    tls = ClientTLS(tls_ca, tls_cert, tls_key)
    if grpc is not None:
        ours = _given(pool=pool, name=name, address=address, models_dir=models_dir, file=file, **changes)
        return ask_elsewhere(grpc, tls, query or "", one_alpha, shown, as_json, options, [*ours])
    if tls:
        raise ConfigError("tls_ca, tls_cert, tls_key: they go with --grpc, a server elsewhere")
    mesh = _mesh_for(pool, name, address, models_dir, changes)
    with contextlib.closing(mesh):
        if out is not None:
            ask_file(mesh, questions, alphas or [mesh.config.alpha], out, concurrency, as_json, options)
        else:
            ask_one(mesh, query or "", one_alpha, shown, as_json, options)


def _given(**options: Any) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _mesh_for(
    pool: str | None, name: str | None, address: str | None, models_dir: Path | None, changes: dict[str, Any]
) -> Mesh:
    if pool is not None:
        if name or address:
            raise ConfigError(f"name, address: they tell which running mesh to ask; --pool {pool} starts one's own")
        return Mesh.from_yaml(pool, models_dir, **changes)
    given = [*changes, *(["models_dir"] if models_dir else [])]
    if given:
        raise ConfigError(f"{', '.join(given)}: a running mesh has its own; give --pool to start one")
    from mesh.running import connect, default

    return connect(name, address) if name or address else default(say)


# ---------------------------------------------------------------------------------- meshes


@app.command("pools")
def show_pools(as_json: AsJson = False) -> None:
    """List the ready pools."""
    rows = []
    for name, description in pools().items():
        agents = [{"name": agent.name, "cost": agent.cost, "model": agent.model} for agent in load(name).agents]
        lines = "\n".join(f"{agent['name']} {agent['cost']:g}" for agent in agents)
        rows.append({"pool": name, "description": description, "agents": agents if as_json else lines})
    (print_json if as_json else print_table)(rows)


@app.command()
def status(name: Name = None, address: Address = None, as_json: AsJson = False) -> None:
    """Show every agent of a running mesh."""
    from mesh.running import connect

    with connect(name, address) as mesh:
        show(mesh.status(), as_json)


@app.command()
def publish(
    agent: Annotated[str, typer.Argument(help="Which agent.")],
    version: Annotated[
        Path, typer.Argument(help="Its new adapter; where training made it, with calibration.", file_okay=False)
    ],
    name: Name = None,
    address: Address = None,
) -> None:
    """Have an agent of a running mesh serve another version; no query is lost."""
    from mesh.running import connect

    with connect(name, address) as mesh:
        mesh.update_agent(agent, version)
    typer.echo(f"{agent} serves {version}; back: `mesh rollback {agent}`")


@app.command()
def rollback(
    agent: Annotated[str, typer.Argument(help="Which agent.")], name: Name = None, address: Address = None
) -> None:
    """Have an agent of a running mesh serve what it served before its last update."""
    from mesh.running import connect

    with connect(name, address) as mesh:
        mesh.rollback_agent(agent)
    typer.echo(f"{agent} serves its earlier version again")


@app.command()
def up(
    pool: Annotated[str, typer.Argument(help="A ready pool (see `mesh pools`) or a YAML file.")],
    name: Annotated[str | None, typer.Option(help="What to call the mesh; default: as the pool.")] = None,
    address: Address = None,
    models_dir: ModelsDir = None,
) -> None:
    """Start a mesh and leave it running."""
    config = load(pool)  # what is wrong with it is told before Ray is touched
    from mesh.running import up

    info = up(config, name=name, address=address, models_dir=models_dir)
    typer.echo(f"mesh {info.name} is up: {', '.join(agent.name for agent in config.agents)}")
    typer.echo(f"ask it with `mesh ask QUERY`, end it with `mesh down {info.name}`")


@app.command()
def down(
    name: Annotated[str | None, typer.Argument(help="Which mesh, where several are up.")] = None,
    address: Address = None,
) -> None:
    """End a running mesh, and only that."""
    from mesh.running import down

    typer.echo(f"mesh {down(name=name, address=address)} is down")


app.add_typer(agents, name="agents")
app.command()(serve)
app.command()(key)


app.command()(sim)


if __name__ == "__main__":
    main()
