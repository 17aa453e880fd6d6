"""What ``mesh ask`` does with a query or a file of them, and how it shows what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from agents.errors import ConfigError, MeshError
from agents.messages import Reply
from mesh.askfile import Job, Replies, ask_all
from mesh.client import Mesh
from mesh.ingress.tls import ClientTLS
from mesh.questions import Question, read_questions
from mesh.terminal import print_json, print_note, print_table, progress, say
from mesh.tracing import reply_json

if TYPE_CHECKING:
    from mesh.ingress.grpc_client import Remote

_SHOWN = 5


def ask_one(mesh: Mesh, query: str, alpha: float | None, stream: bool, as_json: bool, options: dict[str, Any]) -> None:
    """Ask, and show the reply; ``stream``: as it comes. Raises MeshError."""
    if stream:
        reply = _streamed(mesh, query, alpha, options)
    else:
        future = mesh.submit(query, alpha, **options)
        try:
            reply = future.result()
        finally:
            future.cancel()  # nobody waits any more, where we were interrupted
    _show(reply, stream, as_json)


def ask_elsewhere(
    target: str,
    tls: ClientTLS,
    query: str,
    alpha: float | None,
    stream: bool,
    as_json: bool,
    options: dict[str, Any],
    ours: list[str],
) -> None:
    """``ask_one`` for the server at ``target``; ``ours`` are options given that mean only meshes here."""
    if ours:
        raise ConfigError(f"{', '.join(ours)}: not with --grpc {target}: the server there has its own")
    from mesh.ingress.grpc_client import Remote

    with Remote(target, tls=tls) as remote:
        if stream:
            reply = _streamed(remote, query, alpha, options)
        else:
            *_, reply = remote.stream(query, alpha, **options)  # type: ignore[assignment]
    _show(reply, stream, as_json)


def _show(reply: Reply, stream: bool, as_json: bool) -> None:
    """A reply; ``stream``: its text has been shown already."""
    if as_json:
        return print_json(reply_json(reply))
    if not stream:
        typer.echo(reply.text)
    how = str(reply).removeprefix(reply.text).strip()
    print_note(f"\n{how}")


def _streamed(mesh: Mesh | Remote, query: str, alpha: float | None, options: dict[str, Any]) -> Reply:
    shown = False
    try:
        for piece in mesh.stream(query, alpha, **options):
            if isinstance(piece, Reply):
                return piece
            typer.echo(piece, nl=False)
            shown = True
    finally:
        if shown:
            typer.echo()
    raise AssertionError("a stream ends with a reply or an error")


def questions_of(file: str, on_bad: Literal["fail", "skip"]) -> list[Question]:
    """The questions of a file; the first bad rows are told. Raises QueryError where they are to fail."""
    questions, bad = read_questions(file, on_bad)
    for row in bad[:_SHOWN]:
        say(f"skipped {row}")
    if len(bad) > _SHOWN:
        say(f"skipped {len(bad) - _SHOWN} more bad rows")
    return questions


def ask_file(
    mesh: Mesh,
    questions: list[Question],
    alphas: list[float],
    out: Path,
    concurrency: int,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    """Ask what ``out`` has no reply to yet, and show what all of it earned. Raises MeshError where some failed."""
    total = len(questions) * len(alphas)
    with Replies(out, questions, alphas) as replies:
        if replies.found:
            say(f"{out}: {replies.found} of {total} replies are there already")
        try:
            with progress(total - replies.found) as advance:

                def record(job: Job, outcome: Reply | MeshError) -> None:
                    replies.add(job, outcome)
                    advance(isinstance(outcome, MeshError))

                ask_all(mesh, replies.missing(), record, concurrency, **options)
        except BaseException:
            done = sum(tally.asked for tally in replies.tallies.values())
            say(f"{out}: {done} of {total} replies; the same command asks the rest")
            raise
    tallies = {alpha: tally.summary() for alpha, tally in replies.tallies.items()}
    _print_tallies(tallies, as_json)
    if failed := sum(tally["errors"] for tally in tallies.values()):
        raise MeshError(f"{failed} of {total} questions failed (see {out}); the same command asks them again")


def _print_tallies(tallies: Mapping[float, dict[str, Any]], as_json: bool) -> None:
    if as_json:
        return print_json([{"alpha": alpha, **tally} for alpha, tally in tallies.items()])
    rows = []
    for alpha, tally in tallies.items():
        share = ", ".join(f"{agent} {part:.0%}" for agent, part in tally["share"].items())
        means = {"mean cost": tally["cost"], "mean full cost": tally["full_cost"], "mean seconds": tally["seconds"]}
        rows.append({"alpha": alpha, "n": tally["n"], "errors": tally["errors"], **means, "answered by": share})
    print_table(rows)
