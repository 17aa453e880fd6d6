"""What people get wrong, and what they are told: the field, its value, and what would be right."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import mesh.cli
from agents.errors import (
    BudgetExceeded,
    ConfigError,
    MeshClosed,
    MeshError,
    ModelNotFound,
    QueryError,
    QueryTooLong,
)
from agents.policies import Answer, Decision, Policy, View
from mesh import Mesh


def agent(name: str = "a", cost: Any = 0.5, **settings: Any) -> dict[str, Any]:
    return {"name": name, "cost": cost, "engine": {"kind": "scripted"}, "prompt": "plain", **settings}


def pool(*agents: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"name": "two", "runtime": "local", "agents": agents or (agent("a", 0.1), agent("b", 0.9)), **settings}


def told(kind: type[MeshError], call: Callable[[], object], *words: str) -> None:
    """``call`` raises ``kind`` itself, and its message has all these words."""
    with pytest.raises(MeshError) as caught:
        call()
    assert type(caught.value) is kind
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def refused(source: Any, *words: str) -> None:
    """No mesh comes of these settings, and nothing is started before that is said."""
    told(ConfigError, lambda: Mesh.from_yaml(source), *words)


@pytest.fixture(scope="module")
def two() -> Iterator[Mesh]:
    """A cheap agent ``a`` and a dear one ``b``; both answer everything."""
    with Mesh.from_yaml(pool()) as started:
        yield started


# ---------------------------------------------------------------------------------- a query


@pytest.mark.parametrize("alpha", [True, "0.5", math.nan, -0.1, 1.1, math.inf, [0.5]])
def test_alpha_is_a_number_from_0_to_1(two: Mesh, alpha: Any) -> None:
    told(QueryError, lambda: two.ask("Why?", alpha), f"alpha: {alpha!r}", "a number from 0", "to 1")


def test_alpha_in_a_pool_and_on_the_command_line() -> None:
    refused(pool(alpha=1.1), "alpha is 1.1", "a number in [0, 1]")
    result = CliRunner().invoke(mesh.cli.app, ["ask", "Why?", "--pool", "scripted", "--alpha", "1.1"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: alpha: 1.1; it must be a number from 0 (best answer) to 1 (lowest cost)\n"


@pytest.mark.parametrize("query", ["", " \n\t", [{"role": "user", "content": " "}]])
def test_a_query_has_words(two: Mesh, query: Any) -> None:
    content = query if isinstance(query, str) else " "
    told(QueryError, lambda: two.ask(query), "query: ", repr(content), "not empty")


def test_half_a_surrogate_pair_is_no_character(two: Mesh) -> None:
    told(QueryError, lambda: two.ask("half a smile: \ud83d"), "query[0]", "'half a smile: \\ud83d'", "Unicode", "14")
    told(QueryError, lambda: two.ask("Why?", id="\ud83d"), "id: ", "Unicode")


@pytest.mark.parametrize("query", [[], None, 7, {"role": "user", "content": "Why?"}])
def test_a_query_is_a_text_or_a_list_of_messages(two: Mesh, query: Any) -> None:
    told(QueryError, lambda: two.ask(query), f"query: {query!r}", "a text, or a list of chat messages")


@pytest.mark.parametrize(
    "message",
    [
        "Why?",
        {"role": "tool", "content": "42"},
        {"role": ["user"], "content": "Why?"},
        {"role": "user"},
        {"content": "Why?"},
        {"role": "user", "content": 42},
    ],
)
def test_a_message_has_a_role_and_a_content(two: Mesh, message: Any) -> None:
    query = [{"role": "user", "content": "Well?"}, message]
    told(QueryError, lambda: two.ask(query), f"query[1]: {message!r}", "system, user, assistant", "content of text")


def test_the_last_message_is_the_users(two: Mesh) -> None:
    query = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    told(QueryError, lambda: two.ask(query), "query: ", "'So.'", "must be the user's")


@pytest.mark.parametrize("field", ["deadline_s", "max_cost"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "5"])
def test_bounds_are_positive(two: Mesh, field: str, value: Any) -> None:
    told(QueryError, lambda: two.ask("Why?", **{field: value}), f"{field}: {value!r}", "a number above 0")


@pytest.mark.parametrize("value", [0, -1, 0.5, 2.0, math.nan, True, "5", None])
def test_max_tokens_is_a_positive_whole_number(two: Mesh, value: Any) -> None:
    told(QueryError, lambda: two.ask("Why?", max_tokens=value), f"max_tokens: {value!r}", "a whole number from 1 on")


@pytest.mark.parametrize(
    ("field", "value", "right"),
    [
        ("may_decline", "no", "True or False"),
        ("seed", "x", "a whole number"),
        ("seed", -1, "from 0 on"),
        ("seed", 2**64, "at most 2**53"),
        ("max_tokens", 10**20, "at most 2**53"),
        ("deadline_s", 10**400, "at most 2**53"),
        ("max_hops", -1, "from 0 on"),
        ("priority", "urgent", "one of low, normal, high"),
        ("priority", 2, "one of low, normal, high"),
    ],
)
def test_the_other_options_are_checked_too(two: Mesh, field: str, value: Any, right: str) -> None:
    told(QueryError, lambda: two.ask("Why?", **{field: value}), f"{field}: {value!r}", right)


def test_unknown_options_of_a_query(two: Mesh) -> None:
    told(QueryError, lambda: two.ask("Why?", max_token=5), "'max_token'", "use alpha, max_tokens, deadline_s, max_cost")


@pytest.mark.parametrize("entry", ["c", ["a"]])
def test_the_entry_is_an_agent(two: Mesh, entry: Any) -> None:
    told(QueryError, lambda: two.ask("Why?", entry=entry), f"entry: unknown agent {entry!r}", "there are a, b")


def test_every_way_of_asking_checks_alike(two: Mesh) -> None:
    for ask in (two.ask, two.submit, lambda query, alpha: list(two.stream(query, alpha))):
        told(QueryError, lambda ask=ask: ask("Why?", 2), "alpha: 2", "to 1")  # type: ignore[misc]
    told(QueryError, lambda: two.ask_many(["Why?"], 2), "alpha: 2", "to 1")


# ---------------------------------------------------------------------------------- too long, too dear


def windows(*contexts: int) -> dict[str, Any]:
    """A cascade a, b, c, ... of agents that hold so many words."""
    engines = [{"kind": "scripted", "context": context} for context in contexts]
    return pool(*(agent("abc"[rank], 0.1 + rank / 5, engine=engine) for rank, engine in enumerate(engines)))


SEVEN = "these are seven words and no more"


def test_an_over_long_query_names_the_longest_context() -> None:
    with Mesh.from_yaml(windows(5, 5, 6)) as narrow:
        told(QueryTooLong, lambda: narrow.ask(SEVEN), "takes 7 tokens", "longest context is that of 'c', 6 tokens")
        assert narrow.ask("but this fits").agent == "a"


def test_an_over_long_query_goes_to_an_agent_that_holds_it() -> None:
    with Mesh.from_yaml(windows(5, 5, 100)) as wide:
        reply = wide.ask(SEVEN)
    assert (reply.agent, reply.text) == ("c", f"c answers: {SEVEN}")
    assert [(hop.agent, hop.verdict, hop.reason) for hop in reply.path[:1]] == [("a", "failed", "too_long")]
    assert "b" not in {hop.agent for hop in reply.path}  # its context is no longer than that of a


def test_max_cost_that_pays_for_nothing(two: Mesh) -> None:
    told(BudgetExceeded, lambda: two.ask("Why not?", max_cost=1e-9), "max_cost 1e-09", "2 tokens", "give more")


# ---------------------------------------------------------------------------------- settings


class OldRule(Policy):
    """A policy of another time, which wants a random generator too."""

    def decide(self, view: View, rng: object) -> Decision:  # type: ignore[override]
        return Answer()


def test_a_policy_must_decide_by_the_view_alone() -> None:
    settings = pool(agent(policy="tests.test_bad_input:OldRule"))
    told(ConfigError, lambda: Mesh.from_yaml(settings).start(), "agent 'a'", "decide must take the view", "view.seed")


@pytest.mark.parametrize("what", ["policy", "engine", "assessor"])
def test_unknown_plug_ins(what: str) -> None:
    known = {"policy": "reliability", "engine": "transformers", "assessor": "likelihood"}[what]
    refused(pool(agent(**{what: "magic"})), f"agents[0].{what} (agent 'a') is 'magic'", "use one of ", known)


def test_unknown_topology() -> None:
    refused(pool(topology="star"), "topology is 'star'", "use one of cascade, ", "package.module:attr")


def test_unknown_pool() -> None:
    refused("smal", "unknown pool 'smal'", "use one of ", "small", ".yaml")


@pytest.mark.parametrize(
    ("setting", "value", "place", "right"),
    [
        ("engine", {"kind": "scripted", "refuze": 0.5}, "engine.refuze", "did you mean 'refuse'?"),
        ("policy", {"kind": "reliability", "gama": 0.5}, "policy.gama", "its options are gamma"),
        ("assessor", {"kind": "likelihood", "calibrated": 0.5}, "assessor.calibrated", "its options are calibration"),
    ],
)
def test_unknown_options_of_plug_ins(setting: str, value: Any, place: str, right: str) -> None:
    refused(pool(agent(**{setting: value})), f"agents[0].{place} (agent 'a') is 0.5", right)


def test_unknown_option_of_a_topology() -> None:
    refused(pool(topology={"kind": "tree", "branch": 3}), "topology is ", "no option 'branch'", "takes ['branching']")


def test_the_entry_of_a_pool_is_one_of_its_agents() -> None:
    refused(pool(entry="c"), "entry is 'c'", "there are a, b")


def test_a_graph_needs_an_exit() -> None:
    round_about = {"kind": "edges", "edges": {"a": ["b"], "b": ["a"]}}
    refused(pool(topology=round_about), "topology is ", "cycle without exit, ['a', 'b']", "lead it to an agent without")


def test_edges_lead_to_agents() -> None:
    refused(pool(topology={"kind": "edges", "edges": {"a": ["z"]}}), "from 'a' to 'z'", "must lead to another of")


def test_two_agents_of_one_name() -> None:
    refused(pool(agent("a"), agent("a")), "agents[1].name (agent 'a') is 'a'", "agents[0] has that name already")


@pytest.mark.parametrize("cost", [0, -0.1, 1.1, math.nan, True, "0.5"])
def test_a_cost_is_in_0_to_1(cost: Any) -> None:
    refused(pool(agent(cost=cost)), f"agents[0].cost (agent 'a') is {cost!r}", "a number in (0, 1]")


def test_unknown_keys() -> None:
    refused(pool(alhpa=0.5), "alhpa is 0.5", "did you mean 'alpha'?", "the keys here are name, ")
    refused(pool(agent(polciy="always")), "agents[0].polciy (agent 'a') is 'always'", "did you mean 'policy'?")
    told(ConfigError, lambda: Mesh.from_yaml("scripted", topolgy="tree"), "topolgy is 'tree'", "'topology'")


def test_broken_yaml_tells_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "pool.yaml"
    path.write_text("name: two\nagents:\n  - {name: a, cost: 0.5\n  - {name: b}\n")
    refused(path, f"{path}:4:5: ", "expected ',' or '}'")
    path.write_text("name: two\nalhpa: 0.5\nagents: [{name: a, cost: 2, engine: scripted}]\n")
    refused(path, f"{path}:2:8: alhpa is 0.5", f"{path}:3:26: agents[0].cost (agent 'a') is 2")
    result = CliRunner().invoke(mesh.cli.app, ["ask", "Why?", "--pool", str(path)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {path}:2:8: alhpa is 0.5")


# ---------------------------------------------------------------------------------- what an agent is made of


def start(source: Any, **options: Any) -> Callable[[], object]:
    def started() -> None:
        with Mesh.from_yaml(source, **options):
            pass

    return started


def test_reliability_needs_a_probability() -> None:
    source = pool(agent(policy="reliability", assessor="refusal"))
    told(
        ConfigError, start(source), "agent 'a': policy 'reliability'", "assessor 'refusal'", "use first_token, likelih"
    )


@pytest.mark.parametrize("engine", ["replay", "openai"])
def test_likelihood_needs_log_probabilities(engine: str, tmp_path: Path) -> None:
    recorded = tmp_path / "recorded.jsonl"
    recorded.write_text('{"question": "Why?", "scores": {"m": 1}}\n')
    options = {
        "replay": {"file": str(recorded)},
        "openai": {"logprobs": False, "api_key_env": "", "base_url": "http://127.0.0.1:9/v1"},
    }
    member = agent(model="m", engine={"kind": engine, **options[engine]}, policy="reliability", assessor="likelihood")
    right = "use assessor 'refusal' or another engine"
    told(ConfigError, start(pool(member)), "assessor 'likelihood' needs logprobs", f"engine {engine!r}", right)


def test_a_model_that_is_nowhere_names_both_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as hub

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)  # read from the environment once, when it was imported
    source = pool(agent(model="nobody/nothing", local_name="nothing", engine="transformers"))
    places = (f"not in {tmp_path / 'nothing'}", "hub id 'nobody/nothing'")
    told(ModelNotFound, start(source, models_dir=tmp_path), "agent 'a': model 'nothing'", *places, "--models-dir")


# ---------------------------------------------------------------------------------- question files

GOOD = [{"id": f"q{number}", "question": f"What is {number}?"} for number in range(3)]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Three good rows; the second and fourth lines are bad."""
    path = tmp_path / "questions.jsonl"
    lines = [json.dumps(row) for row in GOOD]
    path.write_text("\n".join([lines[0], '{"question": 7}', lines[1], "nonsense", lines[2], ""]))
    return path


def ask_file(rows: Path, out: Path, *more: str) -> Any:
    return CliRunner().invoke(
        mesh.cli.app, ["ask", "--pool", "scripted", "--file", str(rows), "--out", str(out), *more]
    )


def test_bad_rows_are_named_and_nothing_is_asked(rows: Path, tmp_path: Path) -> None:
    result = ask_file(rows, tmp_path / "replies.jsonl")
    assert (result.exit_code, (tmp_path / "replies.jsonl").exists()) == (2, False)
    assert f"{rows}:2: question is 7, a int; it must be text in quotes" in result.stderr
    assert f"{rows}:4: not JSON in UTF-8" in result.stderr


def test_bad_rows_are_named_and_the_others_asked_on_demand(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "replies.jsonl"
    result = ask_file(rows, out, "--on-bad", "skip")
    assert result.exit_code == 0
    assert [line.split(": ")[0] for line in result.stderr.splitlines() if line.startswith("skipped")] == [
        f"skipped {rows}:2",
        f"skipped {rows}:4",
    ]
    assert sorted(json.loads(line)["question"] for line in out.read_text().splitlines()) == ["q0", "q1", "q2"]


def test_a_question_file_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_DATA", str(tmp_path))
    result = ask_file(tmp_path / "gone", tmp_path / "replies.jsonl")
    assert result.exit_code == 2
    assert "questions " in result.stderr
    assert f"in MESH_DATA ({tmp_path})" in result.stderr


# ---------------------------------------------------------------------------------- a mesh over time


def test_a_closed_mesh_says_so() -> None:
    closed = Mesh.from_yaml(pool())
    reply = closed.ask("Why?")
    closed.close()
    closed.close()
    calls: list[Callable[[], object]] = [
        lambda: closed.ask("Why?"),
        lambda: closed.submit("Why?"),
        lambda: closed.ask_many(["Why?"]),
        lambda: list(closed.stream("Why?")),
        lambda: closed.feedback(reply.id, True),
        lambda: closed.add_agent(agent("c")),
        lambda: closed.remove_agent("a"),
        lambda: closed.update_agent("a", None),
        lambda: closed.start(),
        lambda: closed.status(),
    ]
    for call in calls:
        told(MeshClosed, call, "mesh 'two' is closed", "make a new one")


def test_feedback_for_an_unknown_reply(two: Mesh) -> None:
    told(QueryError, lambda: two.feedback("r7", True), "reply_id: 'r7'", "the id of one of the last")


def test_feedback_is_a_yes_or_a_no(two: Mesh) -> None:
    reply = two.ask("Why?")
    told(QueryError, lambda: two.feedback(reply.id, "yes"), "right: 'yes'", "True or False")  # type: ignore[arg-type]
    two.feedback(reply.id, False)


def test_an_agent_more_needs_a_name_of_its_own(two: Mesh) -> None:
    told(ConfigError, lambda: two.add_agent(agent("a")), "name: ", "'a' already", "choose another name")
    told(ConfigError, lambda: two.add_agent(agent("c", cost=5)), ".cost (agent 'c') is 5", "a number in (0, 1]")
    told(ConfigError, lambda: two.add_agent(7), "is 7", "should be a mapping")  # type: ignore[arg-type]
    assert [row["agent"] for row in two.status()] == ["a", "b"]
    assert two.ask("Why?").agent == "a"


def test_unknown_agents_cannot_leave_or_change(two: Mesh) -> None:
    told(ConfigError, lambda: two.remove_agent("z"), "unknown agent 'z'", "there are a, b")
    told(ConfigError, lambda: two.update_agent("z", None), "unknown agent 'z'", "there are a, b")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--figures", "nobody"], "figures 'nobody': one of lab, nine_models, or a file"),
        (["--policy", "nobody"], "policy 'nobody': use one of"),
        (["--topology", "ring"], "topology 'ring'"),
        (["--pool", "small", "--faults", "3"], "faults: 3 with pool 'small'"),
        (["--agents", "300", "--topology", "mesh"], "300 agents, mesh takes 256: use nearest or small_world"),
    ],
)
def test_a_simulation_that_cannot_be(options: list[str], words: str) -> None:
    result = CliRunner().invoke(mesh.cli.app, ["sim", "--queries", "1", *options])
    assert result.exit_code == 2
    assert words in result.stderr
