"""The ``mesh`` command: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from importlib.metadata import EntryPoint, version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import mesh.cli
from agents.errors import ConfigError, MeshClosed, MeshError, QueryError
from agents.messages import Hop, Reply
from mesh.askfile import Job, Replies, ask_all
from mesh.client import Mesh
from mesh.questions import Question

REPO = Path(mesh.cli.__file__).parents[1]


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(mesh.cli.app, [str(each) for each in arguments])


def refusal(*arguments: object) -> str:
    """The one line that is said about wrong input."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    return line.removeprefix("error: ")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """``a`` refuses everything and ``b``, which costs 0.9, answers in five pieces."""
    path = tmp_path / "pool.yaml"
    path.write_text(
        "name: two\nruntime: local\nalpha: 0.3\n"
        "defaults: {engine: {kind: scripted, answer: 'Bé [b] says 42', pieces: 5}, policy: refusal}\n"
        "agents: [{name: a, cost: 0.1, engine: {refuse: 1}}, {name: b, cost: 0.9}]\n"
    )
    return path


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    path = tmp_path / "slow.yaml"
    path.write_text(
        "name: slow\nruntime: local\n"
        "agents: [{name: a, cost: 0.5, policy: refusal, engine: {kind: scripted, delay_s: 0.05}}]\n"
    )
    return path


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    path = tmp_path / "failing.yaml"
    path.write_text(
        "name: failing\nruntime: local\nagents: [{name: a, cost: 0.5, engine: {kind: scripted, fail: 1}}]\n"
    )
    return path


def questions(folder: Path, count: int) -> Path:
    path = folder / "questions.jsonl"
    rows = ({"id": f"q{number}", "task": "t", "question": f"What is {number}?"} for number in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# ---------------------------------------------------------------------------------- one query


@pytest.mark.parametrize("how", ["--stream", "--no-stream"])
def test_ask_shows_the_answer_then_how_it_came(pool: Path, how: str) -> None:
    result = run("ask", "hi", "--pool", pool, "--alpha", 0.5, how)
    assert (result.exit_code, result.stderr) == (0, "")
    answer, empty, path = result.stdout.splitlines()
    assert (answer, empty) == ("Bé [b] says 42", "")
    assert path.startswith("[a refused → b answered (forced); cost 0.90, full cost ")
    assert path.endswith(" s, alpha 0.5]")


def test_ask_as_json_prints_one_object_and_nothing_else(pool: Path) -> None:
    result = run("ask", "hi", "--pool", pool, "--json")
    reply = json.loads(result.stdout)
    assert (reply["text"], reply["agent"], reply["cost"], reply["alpha"]) == ("Bé [b] says 42", "b", 0.9, 0.3)
    assert [hop["verdict"] for hop in reply["path"]] == ["refused", "answered"]
    assert result.stderr == ""


def test_options_of_a_query_arrive(pool: Path, tmp_path: Path) -> None:
    trace = tmp_path / "deep" / "trace.jsonl"
    result = run("ask", "hi", "--pool", pool, "--entry", "b", "--max-tokens", 2, "--trace", trace, "--json")
    reply = json.loads(result.stdout)
    assert [hop["agent"] for hop in reply["path"]] == ["b"]
    assert reply["path"][0]["generated_tokens"] == 2
    assert [line["event"] for line in lines(trace)] == ["agent_up", "agent_up", "asked", "answered"]


# ---------------------------------------------------------------------------------- wrong input


def test_wrong_alphas() -> None:
    right = "it must be a number from 0 (best answer) to 1 (lowest cost)"
    assert refusal("ask", "hi", "--pool", "scripted", "--alpha", 2) == f"alpha: 2.0; {right}"
    assert refusal("ask", "hi", "--pool", "scripted", "--alpha", "nan") == f"alpha: nan; {right}"
    two = refusal("ask", "hi", "--pool", "scripted", "--alpha", 0, "--alpha", 1)
    assert two == "alpha: [0.0, 1.0]; a query has one alpha, a --file may have several"
    assert run("ask", "hi", "--pool", "scripted", "--alpha", "much").exit_code == 2


def test_wrong_pools(tmp_path: Path) -> None:
    assert refusal("ask", "hi", "--pool", "nope").startswith("unknown pool 'nope': use one of families, ")
    assert refusal("up", "nope").startswith("unknown pool 'nope'")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: x\nagents: [{name: a,\n")
    assert f"{broken}:3:1" in refusal("ask", "hi", "--pool", broken)


def test_wrong_combinations(pool: Path, tmp_path: Path) -> None:
    neither = "query: give either a query or --file, a file of questions"
    assert refusal("ask", "--pool", pool) == neither
    assert refusal("ask", "hi", "--file", "x", "--pool", pool) == neither
    assert refusal("ask", "--file", "x", "--pool", pool).startswith("out: --file and --out go together")
    assert refusal("ask", "hi", "--out", tmp_path / "r", "--pool", pool).startswith("out: --file and --out")
    assert refusal("ask", "hi", "--runtime", "local", "--models-dir", tmp_path).startswith("runtime, models_dir: ")
    assert refusal("ask", "hi", "--pool", pool, "--name", "x").startswith("name, address: ")


def test_wrong_queries(pool: Path) -> None:
    assert refusal("ask", " ", "--pool", pool).startswith("query: the last message is ")
    assert refusal("ask", "hi", "--pool", pool, "--entry", "c") == "entry: unknown agent 'c'; there are a, b"
    assert refusal("ask", "hi", "--pool", pool, "--deadline-s", -1).startswith("deadline_s: -1.0; it must be")


def test_failure_that_is_nobodys_wrong_input_ends_with_1(failing: Path) -> None:
    result = run("ask", "hi", "--pool", failing)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("error: ")


def test_debug_keeps_the_traceback() -> None:
    assert isinstance(run("--debug", "ask", "hi", "--pool", "nope").exception, ConfigError)
    assert isinstance(run("ask", "hi", "--pool", "nope").exception, SystemExit)


# ---------------------------------------------------------------------------------- a file of questions


def test_file_gives_a_line_for_every_question_and_a_table(pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "replies.jsonl"
    result = run("ask", "--file", questions(tmp_path, 20), "--out", out, "--pool", pool)
    assert result.exit_code == 0
    replies = {line["question"]: line for line in lines(out)}
    assert len(lines(out)) == 20
    assert sorted(replies) == sorted(f"q{number}" for number in range(20))
    one = replies["q7"]
    assert (one["id"], one["task"], one["alpha"], one["agent"], one["cost"]) == ("q7@0.3", "t", 0.3, "b", 0.9)
    assert (one["text"], [hop["agent"] for hop in one["path"]]) == ("Bé [b] says 42", ["a", "b"])
    assert result.stderr.splitlines() == [f"{count} of 20 asked, 0 failed" for count in range(2, 21, 2)]
    row = [cell.strip() for cell in result.stdout.splitlines()[3].split("│")[1:-1]]
    assert (row[:4], row[-1]) == (["0.3", "20", "0", "0.9"], "b 100%")


def test_every_question_at_every_alpha(pool: Path, tmp_path: Path) -> None:
    out, alphas = tmp_path / "replies.jsonl", ["--alpha", 0.2, "--alpha", 0.8, "--alpha", 0.2]
    result = run("ask", "--file", questions(tmp_path, 3), "--out", out, "--pool", pool, *alphas, "--json")
    ids = sorted(line["id"] for line in lines(out))
    assert ids == ["q0@0.2", "q0@0.8", "q1@0.2", "q1@0.8", "q2@0.2", "q2@0.8"]
    (first, second) = json.loads(result.stdout)
    assert (first["alpha"], first["n"], first["errors"], first["cost"]) == (0.2, 3, 0, pytest.approx(0.9))
    assert (second["alpha"], second["share"]) == (0.8, {"b": 1.0})


def test_limit_and_resume_ask_only_what_is_missing(pool: Path, tmp_path: Path) -> None:
    file, out = questions(tmp_path, 10), tmp_path / "replies.jsonl"
    run("ask", "--file", file, "--out", out, "--pool", pool, "--limit", 4)
    before = out.read_text()
    result = run("ask", "--file", file, "--out", out, "--pool", pool, "--json")
    assert out.read_text().startswith(before)
    assert sorted(line["question"] for line in lines(out)) == [f"q{number}" for number in range(10)]
    assert result.stderr.startswith(f"{out}: 4 of 10 replies are there already\n1 of 6 asked")
    assert json.loads(result.stdout)[0]["n"] == 10
    after = out.read_text()
    assert run("ask", "--file", file, "--out", out, "--pool", pool).exit_code == 0
    assert out.read_text() == after


@pytest.mark.parametrize("kept", [1, 13, 60, -1])
def test_torn_last_line_is_asked_again_or_ended(pool: Path, tmp_path: Path, kept: int) -> None:
    file, out = questions(tmp_path, 5), tmp_path / "replies.jsonl"
    run("ask", "--file", file, "--out", out, "--pool", pool)
    *whole, last = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(whole) + last[:kept])
    assert run("ask", "--file", file, "--out", out, "--pool", pool).exit_code == 0
    assert sorted(line["question"] for line in lines(out)) == [f"q{number}" for number in range(5)]
    assert out.read_bytes().startswith(b"".join(whole))
    assert [path.name for path in tmp_path.glob("replies*")] == ["replies.jsonl"]


def test_failed_question_is_written_and_asked_again(pool: Path, failing: Path, tmp_path: Path) -> None:
    file, out = questions(tmp_path, 3), tmp_path / "replies.jsonl"
    result = run("ask", "--file", file, "--out", out, "--pool", failing, "--alpha", 0.3, "--json")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: 3 of 3 questions failed")
    assert (
        json.loads(result.stdout)[0] | {"n": 3, "errors": 3, "cost": None, "share": {}} == json.loads(result.stdout)[0]
    )
    assert [line["error"] for line in lines(out)] == ["NoAgentLeft"] * 3
    assert {"question", "id", "task", "alpha", "error", "why"} == lines(out)[0].keys()
    assert run("ask", "--file", file, "--out", out, "--pool", pool).exit_code == 0
    assert [line["agent"] for line in lines(out)] == ["b"] * 3


@pytest.mark.parametrize(
    "text", ["my notes", "my notes\n", '{"id": "q1", "question": "Why?"}\n', "[1]\n", '{"text": 1}']
)
def test_a_file_of_something_else_is_left_alone(pool: Path, tmp_path: Path, text: str) -> None:
    out = tmp_path / "notes.txt"
    out.write_text(text)
    said = refusal("ask", "--file", questions(tmp_path, 1), "--out", out, "--pool", pool)
    assert said.startswith(f"out: {out}:1 is no reply of `mesh ask --file`")
    assert out.read_text() == text


def test_bad_rows_are_named_and_fatal_or_skipped(pool: Path, tmp_path: Path) -> None:
    file, out = questions(tmp_path, 2), tmp_path / "replies.jsonl"
    file.write_text(file.read_text() + '{"question": 7}\nnonsense\n')
    fatal = run("ask", "--file", file, "--out", out, "--pool", pool)
    assert (fatal.exit_code, out.exists()) == (2, False)
    assert f"{file}:3: question is 7" in fatal.stderr
    assert f"{file}:4: not JSON" in fatal.stderr
    skipped = run("ask", "--file", file, "--out", out, "--pool", pool, "--on-bad", "skip")
    assert skipped.exit_code == 0
    assert [line.split(": ")[0] for line in skipped.stderr.splitlines()[:2]] == [
        f"skipped {file}:3",
        f"skipped {file}:4",
    ]
    assert len(lines(out)) == 2


def test_a_wrong_option_stops_at_once(pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "replies.jsonl"
    result = run("ask", "--file", questions(tmp_path, 50), "--out", out, "--pool", pool, "--entry", "c")
    assert (result.exit_code, lines(out)) == (2, [])
    assert result.stderr.splitlines()[-1] == "error: entry: unknown agent 'c'; there are a, b"


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_killed_in_the_middle_it_goes_on_where_it_stopped(
    slow: Path, tmp_path: Path, kind: signal.Signals, code: int
) -> None:
    file, out = questions(tmp_path, 60), tmp_path / "replies.jsonl"
    command = ["ask", "--file", str(file), "--out", str(out), "--pool", str(slow), "--concurrency", "2"]
    with subprocess.Popen([sys.executable, "-m", "mesh.cli", *command], stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while not (out.exists() and out.read_bytes().count(b"\n") >= 5) and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(kind)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in said
    before = lines(out)
    assert 5 <= len(before) < 60
    assert run(*command, "--concurrency", 60).exit_code == 0
    assert lines(out)[: len(before)] == before
    assert sorted(line["question"] for line in lines(out)) == sorted(f"q{number}" for number in range(60))


def test_interrupted_query_ends_with_130(slow: Path) -> None:
    slow.write_text(slow.read_text().replace("delay_s: 0.05", "pieces: 8, piece_s: 1"))
    command = [sys.executable, "-m", "mesh.cli", "ask", "hi", "--pool", str(slow)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, b"interrupted\n")


# ---------------------------------------------------------------------------------- asking many, without a mesh


def replied(job_id: str) -> Reply:
    return Reply(job_id, "yes", "a", 0.5, 0.5, 0.1, (Hop("a", "answered"),), 0.1)


class Slowly:
    """Answers the oldest question whenever ``width`` are open; remembers how many were."""

    def __init__(self, width: int, error: Exception | None = None) -> None:
        self.width, self.error, self.open, self.most = width, error, [], 0
        self.futures: list[Future[Reply]] = []

    def submit(self, query: str, alpha: float, **options: Any) -> Future[Reply]:
        future: Future[Reply] = Future()
        self.open.append((future, options["id"]))
        self.futures.append(future)
        self.most = max(self.most, len(self.open))
        if len(self.open) == self.width:
            oldest, id = self.open.pop(0)
            oldest.set_exception(self.error) if self.error else oldest.set_result(replied(id))
        return future


def jobs(count: int) -> list[Job]:
    return [Job(Question(f"q{number}", "Why?"), 0.5) for number in range(count)]


def test_no_more_futures_are_held_than_asked_at_a_time() -> None:
    asked, seen = Slowly(8), []

    def many() -> Any:
        for job in jobs(1007):
            yield job
            if len(asked.futures) == 1007:  # the end: everybody else is answered
                for future, id in asked.open:
                    future.set_result(replied(id))

    ask_all(asked, many(), lambda job, outcome: seen.append(job.id), concurrency=8)
    assert (asked.most, len(seen), len(set(seen))) == (8, 1007, 1007)


def test_interruption_keeps_what_has_come_and_cancels_the_rest() -> None:
    asked, seen = Slowly(99), []

    def interrupted() -> Any:
        yield from jobs(3)
        asked.open[1][0].set_result(replied("q1@0.5"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask_all(asked, interrupted(), lambda job, outcome: seen.append(job.id), concurrency=8)
    assert seen == ["q1@0.5"]
    assert [future.cancelled() for future in asked.futures] == [True, False, True]


def test_interruption_while_recording_waits_for_it() -> None:
    asked, seen = Slowly(1), []

    def record(job: Job, outcome: Reply | MeshError) -> None:
        if job.id == "q1@0.5":
            signal.raise_signal(signal.SIGINT)
        seen.append(job.id)

    with pytest.raises(KeyboardInterrupt):
        ask_all(asked, jobs(3), record, concurrency=1)
    assert seen == ["q0@0.5", "q1@0.5"]


@pytest.mark.parametrize("error", [MeshClosed("down"), QueryError("entry: unknown"), RuntimeError("a bug")])
def test_what_would_fail_every_question_is_raised(error: Exception) -> None:
    asked, seen = Slowly(4, error), []
    with pytest.raises(type(error)):
        ask_all(asked, jobs(100), lambda job, outcome: seen.append(job.id), concurrency=4)
    assert (len(asked.futures), seen) == (4, [])


def test_half_a_surrogate_pair_survives_the_file(tmp_path: Path) -> None:
    (job,) = jobs(1)
    out = tmp_path / "replies.jsonl"
    with Replies(out, [job.question], [0.5]) as replies:
        replies.add(job, MeshError("\ud83d é"))
    assert lines(out)[0]["why"] == "\ud83d é"


# ---------------------------------------------------------------------------------- meshes


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, pool: Path) -> list[tuple[Any, ...]]:
    """``mesh.running`` without a cluster: what it was called with."""
    calls: list[tuple[Any, ...]] = []

    def connect(name: str | None, address: str | None) -> Mesh:
        calls.append(("connect", name, address))
        return Mesh.from_yaml(pool)

    def up(source: Any, name: str | None, address: str | None, models_dir: Path | None) -> Any:
        calls.append(("up", source.name, name, address, models_dir))
        return SimpleNamespace(name=name or source.name)

    def down(name: str | None, address: str | None) -> str:
        calls.append(("down", name, address))
        return name or "two"

    def default(tell: Callable[[str], object]) -> Mesh:
        tell("no mesh is up")
        calls.append(("default",))
        return Mesh.from_yaml(pool)

    stand_in = ModuleType("mesh.running")
    vars(stand_in).update(connect=connect, up=up, down=down, default=default)
    monkeypatch.setitem(sys.modules, "mesh.running", stand_in)
    return calls


def test_without_a_pool_the_running_mesh_is_asked(cluster: list[Any]) -> None:
    assert json.loads(run("ask", "hi", "--name", "m", "--json").stdout)["agent"] == "b"
    assert cluster == [("connect", "m", None)]


def test_where_no_mesh_is_up_the_embedded_pool_is_asked(cluster: list[Any]) -> None:
    done = run("ask", "hi", "--json")
    assert json.loads(done.stdout)["agent"] == "b"
    assert done.stderr == "no mesh is up\n"
    assert cluster == [("default",)]


def test_status_as_table_and_json(cluster: list[Any]) -> None:
    head, *rows = [line.replace("┃", "│").split("│")[1:-1] for line in run("status").stdout.splitlines()[1:-1:1]]
    titles = [title.strip() for title in head]
    assert titles == ["agent", "replica", "state", "cost", "pid", "in hand", "queued", "deaths", "model", "device"]
    assert [cell.strip() for cell in rows[1]][:4] == ["a", "a#1", "up", "0.1"]
    by_json = json.loads(run("status", "--json", "--address", "auto").stdout)
    assert [(row["agent"], row["pid"]) for row in by_json] == [("a", os.getpid()), ("b", os.getpid())]
    assert cluster == [("connect", None, None), ("connect", None, "auto")]


def test_up_and_down(cluster: list[Any], pool: Path) -> None:
    said = run("up", pool, "--name", "mine").stdout
    assert said == "mesh mine is up: a, b\nask it with `mesh ask QUERY`, end it with `mesh down mine`\n"
    assert run("down", "mine").stdout == "mesh mine is down\n"
    assert cluster == [("up", "two", "mine", None, None), ("down", "mine", None)]


def test_pools() -> None:
    table = run("pools").stdout
    assert "Five scripted agents without a model" in table
    assert "lab-mesh" in table
    by_name = {pool["pool"]: pool for pool in json.loads(run("pools", "--json").stdout)}
    assert by_name["small"]["agents"][0] == {
        "name": "smollm2-135m",
        "cost": 0.1,
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
    }


def test_sim_as_json_and_table() -> None:
    arguments = ("sim", "--pool", "scripted", "--queries", 50, "--seed", 3, "--alpha", 0.2)
    first, second = (json.loads(run(*arguments, "--json").stdout) for _ in range(2))
    assert (first["agents"], first["queries"], first["alpha"], first["answered"]) == (5, 50, 0.2, 50)
    assert first["share"] == second["share"]
    assert f"│ hops mean       │ {first['hops_mean']:.4g}" in run(*arguments).stdout
    assert refusal("sim", "--topology", "knot").startswith("unknown topology 'knot'")
    assert refusal("sim", "--alpha", -1).startswith("alpha: -1.0")


# ---------------------------------------------------------------------------------- plug-ins and start-up


def plug_in(monkeypatch: pytest.MonkeyPatch, *entries: EntryPoint) -> None:
    def entry_points(group: str, name: str | None = None) -> Any:
        found = [entry for entry in entries if entry.group == group and name in (None, entry.name)]
        return SimpleNamespace(names={entry.name for entry in found}) if name is None else found

    monkeypatch.setattr(mesh.cli, "entry_points", entry_points)


plugged = typer.Typer(help="A plug-in's help.")


@plugged.command()
def shout(word: str) -> None:
    if not word:
        raise QueryError("word: ''; it must not be empty")
    typer.echo(word.upper())


def test_plugged_in_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plugged_in", sys.modules[__name__])
    plug_in(monkeypatch, EntryPoint("extra", "plugged_in:plugged", "mesh.commands"))
    assert "A plug-in's help." in run("--help").stdout
    assert run("extra", "shout", "hi").stdout == "HI\n"
    assert refusal("extra", "shout", "") == "word: ''; it must not be empty"


def test_plug_in_that_cannot_be_imported_says_so_and_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, EntryPoint("extra", "no_such_package.cli:app", "mesh.commands"))
    why = "cannot be loaded from no_such_package.cli:app: ModuleNotFoundError: No module named 'no_such_package'"
    listed = run("--help")
    assert (listed.exit_code, "cannot be loaded from no_such_package" in listed.stdout) == (0, True)
    result = run("extra", "shout", "--loud")
    assert (result.exit_code, result.stderr) == (1, f"error: the command 'extra' {why}\n")
    assert run("unheard-of").exit_code == 2


def test_version() -> None:
    assert run("--version").stdout == f"mesh {version('disrouter')}\n"


def test_the_command_starts_light() -> None:
    heavy = "{'ray', 'torch', 'transformers', 'training', 'benchmarks'}"
    code = f"import sys, mesh.cli; print(sorted({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_another_package_called_agents_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPO}"}
    command = [sys.executable, "-c", "import mesh"]
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False).stderr
    assert said.splitlines()[-1].startswith("ImportError: the package `agents` that Python finds is not Mesh's own")
