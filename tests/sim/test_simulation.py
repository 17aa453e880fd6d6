"""Virtual time: repeatable, the same as asyncio, of any size, and nothing is lost when agents die."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from agents.errors import ConfigError, DeadlineExceeded, MeshError, NoAgentLeft, QueryError
from agents.messages import Accepted, Outcome, Rejected, Reply
from mesh.config import load
from mesh.runtimes.sim import Simulation
from mesh.runtimes.virtual import VirtualHost
from mesh.simulate import question, simulate
from tests.pools import RULES, SHAPES, asked, pool, query, questions, simulated, simulation, trail

# ---------------------------------------------------------------------------------- the same everywhere


@pytest.mark.parametrize("topology", SHAPES)
@pytest.mark.parametrize("rule", RULES)
def test_paths_are_those_of_the_asyncio_runtime(rule: str, topology: str) -> None:
    settings, texts, paths = pool(rule, topology, seed=7), questions(40), set()
    for alpha in (0.2, 0.5, 0.8):
        virtual = [trail(result) for result in simulated(settings, texts, alpha)]
        assert virtual == [trail(result) for result in asked(settings, texts, alpha)]
        paths |= {tuple(hop[0] for hop in path) for path, *_ in virtual}
    assert len(paths) >= 3  # they differ among queries: the comparison means something


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ({"fail": 0.3}, {}),
        ({"context": 100}, {}),
        ({"refuse": 0.5}, {"max_cost": 0.9}),
        ({"refuse": 0.7}, {"may_decline": True}),
        ({"refuse": 0.6, "fail": 0.2}, {"max_tokens": 2}),
    ],
)
def test_troubled_paths_are_those_of_the_asyncio_runtime(engine: dict[str, float], options: dict[str, float]) -> None:
    settings, texts = pool(engine=engine), [*questions(30), "long " * 60, "longer " * 300]
    settings["agents"][2]["engine"] = {"context": 200}
    virtual = [trail(result) for result in simulated(settings, texts, 0.5, **options)]
    assert virtual == [trail(result) for result in asked(settings, texts, 0.5, **options)]
    assert len({path for path, *_ in virtual}) >= 3


def test_a_seed_repeats_everything_and_another_seed_does_not() -> None:
    first, again, other = (simulated(pool("reliability", "mesh", seed=seed), questions(50), 0.5) for seed in (1, 1, 2))
    assert first == again  # seconds included
    assert [trail(result) for result in first] != [trail(result) for result in other]


def test_jitter_follows_from_the_seed() -> None:
    seconds = []
    for seed in (1, 1, 2):
        world = simulation(pool(), seed=seed, jitter_s=0.01)
        for number in range(20):
            world.ask(question(number, 0.5), number / 10)
        seconds.append([result.seconds for result in world.run() if isinstance(result, Reply)])
    assert seconds[0] == seconds[1] != seconds[2]
    assert len(seconds[0]) == 20


def test_virtual_seconds_are_delays_and_latencies() -> None:
    engine = {"refuse": 0.0, "delay_s": 1.0, "piece_s": 0.25}
    (reply,) = simulated(pool(engine=engine, agents=1), ["hello"], 0.5)
    assert isinstance(reply, Reply)
    # There and back 2 ms; the only agent accepts with its first piece after 1 s; a pull is on its way for 1 ms
    # when the last of the three other pieces comes 0.75 s later, and its answer arrives after another 1 ms.
    assert reply.first_token_s == pytest.approx(1.002)
    assert reply.seconds == pytest.approx(1.752)


# ---------------------------------------------------------------------------------- size


def test_ten_thousand_agents() -> None:
    summary = simulate(agents=10_000, queries=300, topology="nearest", seed=3)
    assert (summary["agents"], summary["answered"], summary["failed"]) == (10_000, 300, 0)
    assert summary["hops_mean"] > 2


def test_a_seed_gives_one_digest_in_every_process() -> None:
    options = {"agents": 40, "queries": 300, "faults": 9, "topology": "small-world", "rate": 2}
    command = ["-m", "mesh", "sim", "--json", *(f"--{name}={value}" for name, value in options.items()), "--seed"]
    digests = []
    for seed, hashes in (("3", "1"), ("3", "2"), ("4", "1")):
        environment = {**os.environ, "PYTHONHASHSEED": hashes}
        told = subprocess.run([sys.executable, *command, seed], env=environment, capture_output=True, check=True)
        digests.append(json.loads(told.stdout)["digest"])
    assert digests[0] == digests[1] != digests[2]


def test_what_is_told_is_not_kept() -> None:
    told: list[str] = []
    plain = simulation(pool())
    world = Simulation(plain._specs, plain.directory.topology, told=lambda query, result: told.append(query.id))
    world.feed((number / 10, question(number, 0.5), None) for number in range(20))
    assert world.asked == 1  # the others are made when it is their turn
    assert world.run() == []
    assert sorted(told, key=int) == [str(number) for number in range(20)]
    assert (world.asked, world.lost, world.askers) == (20, 0, {})


def test_agents_that_learn_hear_what_was_right() -> None:
    settings = pool(engine={"refuse": 1.0}, agents=2)
    settings["agents"][0]["policy"] = "tests.pools:Learner"
    plain = simulation(settings)
    verdicts = {"0": True, "1": None}
    world = Simulation(plain._specs, plain.directory.topology, judge=lambda query, reply: verdicts[query.id])
    for number in range(2):
        world.ask(question(number, 0.2), float(number))
    world.run()
    heard = world.agents["a0"].node.policy.heard
    assert [(outcome.query_id, outcome.right) for outcome in heard] == [("0", None), ("0", True), ("1", None)]


def test_events_do_not_multiply_with_the_agents() -> None:
    small, large = (simulate(agents=agents, queries=400, topology="cascade") for agents in (100, 2_000))
    per_hop = [one["events"] / (one["hops_mean"] * one["queries"]) for one in (small, large)]
    assert per_hop[1] == pytest.approx(per_hop[0], rel=0.1)


def test_simulate_tells_shares_that_shrink_upstream_as_alpha_rises() -> None:
    frugal, eager = (simulate(agents=4, queries=300, alpha=alpha, seed=1) for alpha in (0.8, 0.2))
    assert sum(frugal["share"].values()) == pytest.approx(100, abs=0.3)
    assert frugal["share"]["agent-0"] > eager["share"]["agent-0"] + 5
    assert frugal["cost_mean"] < eager["cost_mean"]
    timing = {"wall_seconds", "cpu_seconds", "setup_seconds", "us_per_event", "us_per_query"}
    again = simulate(agents=4, queries=300, alpha=0.8, seed=1)
    assert {key: again[key] for key in again.keys() - timing} == {key: frugal[key] for key in frugal.keys() - timing}


def test_simulate_takes_a_ready_pool_with_scripted_engines() -> None:
    summary = simulate(pool="small", queries=100)
    assert (summary["agents"], summary["answered"]) == (3, 100)
    assert simulate(pool="small", queries=100, topology="mesh")["answered"] == 100


@pytest.mark.parametrize("topology", ["ring", "mesh"])
def test_simulate_refuses_a_topology_that_does_not_fit(topology: str) -> None:
    with pytest.raises(ConfigError, match=topology):
        simulate(agents=300, queries=1, topology=topology)


# ---------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("seed", range(8))
def test_killed_at_any_time_every_query_ends_once(seed: int) -> None:
    rng, engine = random.Random(seed), {"delay_s": 0.05, "piece_s": 0.02, "fail": 0.05}
    world = simulation(pool("refusal", rng.choice(SHAPES), engine=engine), jitter_s=0.002, notice_s=0.03)
    for number in range(200):
        world.ask(question(number, 0.5), rng.uniform(0, 4))
    names = list(world.agents)
    for _ in range(12):
        name, at = rng.choice(names), rng.uniform(0, 4)
        world.kill(name, at)
        world.revive(name, at + rng.uniform(0.01, 0.5))
    results = world.run()
    assert (len(results), world.lost) == (200, 0)
    kinds = Counter(type(result) for result in results)
    assert kinds[Reply] > 150
    assert set(kinds) <= {Reply, NoAgentLeft}
    retried = [result for result in results if isinstance(result, Reply) and result.attempts > 1]
    assert retried  # some were hit, and ended all the same
    assert all(not agent.node.turns and not agent.node.running for agent in world.agents.values())


def test_an_agent_that_dies_midway_is_replaced_and_its_text_continued() -> None:
    settings = pool(engine={"refuse": 0.0, "delay_s": 1.0, "piece_s": 1.0, "answer": "one two three four"})
    world = simulation(settings)
    world.ask(question(0, 0.5))
    world.kill("a0", 2.5)
    (reply,) = world.run()
    assert isinstance(reply, Reply)
    assert (reply.text, reply.agent, reply.attempts) == ("one two three four", "a1", 2)
    assert [(hop.agent, hop.verdict, hop.reason) for hop in reply.path] == [
        ("a0", "failed", "died"),
        ("a1", "answered", ""),
    ]


def test_the_whole_mesh_can_die_and_nobody_waits() -> None:
    world = simulation(pool(engine={"delay_s": 1.0}))
    for number in range(20):
        world.ask(question(number, 0.5), number / 10)
    for name in list(world.agents):
        world.kill(name, 1.0)
    results = world.run()
    assert all(isinstance(result, NoAgentLeft) for result in results)
    assert world.now < 5


def test_neighbours_learn_of_a_death_before_a_query_fails_on_it() -> None:
    world = simulation(pool(engine={"refuse": 1.0}))
    world.kill("a1", 0.0)
    world.ask(question(0, 0.5), at=1.0)
    world.revive("a1", 2.0)
    world.ask(question(1, 0.5), at=3.0)
    without, with_it = world.run()
    assert isinstance(without, Reply)
    assert isinstance(with_it, Reply)
    assert [hop.agent for hop in without.path] == ["a0", "a2", "a3", "a4"]
    assert [hop.agent for hop in with_it.path] == ["a0", "a1", "a2", "a3", "a4"]


def test_stalled_engines_are_left_and_deadlines_kept() -> None:
    settings = pool(engine={"refuse": 0.3, "stall": 0.3}, limits={"stall_s": 1.0}, deadline_s=6.0)
    config, world = load(settings), simulation(settings)
    for number, text in enumerate(questions(100)):
        world.ask(query(config, text, 0.5, str(number)), number / 50)
    results = world.run()
    answered = [result for result in results if isinstance(result, Reply)]
    assert len(answered) > 80
    assert max(reply.seconds for reply in answered) <= 6.25 + 0.01
    assert any(hop.reason == "stalled" for reply in answered for hop in reply.path)
    assert all(isinstance(result, Reply | DeadlineExceeded | NoAgentLeft) for result in results)


def test_a_cancelled_query_stops_whoever_works_on_it() -> None:
    world = simulation(pool(engine={"refuse": 0.0, "delay_s": 5.0}))
    world.ask(question(0, 0.5))
    world.cancel("0", at=1.0)
    while world.now < 1.1:
        world.step()
    assert type(world.replies[0]) is MeshError
    assert not world.agents["a0"].drafts
    assert not world.agents["a0"].node.running


def test_those_on_the_path_who_learn_hear_what_became_of_a_query() -> None:
    settings = pool(engine={"refuse": 1.0}, agents=3)
    settings["agents"][0]["policy"] = settings["agents"][2]["policy"] = "tests.pools:Learner"
    world = simulation(settings)
    world.ask(question(0, 0.2))
    (reply,) = world.run()
    assert isinstance(reply, Reply)
    outcome = Outcome("0", 0.2, reply.path, 0.9, reply.full_cost)
    heard = [getattr(agent.node.policy, "heard", None) for agent in world.agents.values()]
    assert heard == [[outcome], None, [outcome]]


def test_an_answer_that_nobody_pulls_is_given_up_and_not_waited_for() -> None:
    settings = pool(engine={"refuse": 0.0}, agents=2, limits={"lease_s": 1.0})
    world, key = simulation(settings), ("0", 1)
    heard: list[object] = []
    caller = SimpleNamespace(hear=heard.append)
    for at in (0.0, 3.0):  # asked again when its outbox has gone: its first asker died before it could tell
        world.at(at, world.call, caller, "a0", key, VirtualHost.route, question(0, 0.5))
    world.at(3.5, world.call, caller, "a0", key, VirtualHost.pull, key, 0)
    world.run()
    accepted, again, pulled = heard
    assert isinstance(accepted, Accepted)
    assert isinstance(again, Rejected)
    assert isinstance(pulled, Rejected)
    assert (again.reason, again.detail) == ("failed", "its answer was given up")
    assert pulled.detail == "it knows nothing of this query"


def test_an_id_is_taken_once() -> None:
    world = simulation(pool())
    world.ask(question(0, 0.5))
    with pytest.raises(QueryError, match="'0'"):
        world.ask(question(0, 0.2))


def test_only_scripted_engines_can_be_simulated(tmp_path: object) -> None:
    settings = pool(agents=1)
    settings["defaults"]["engine"] = {"kind": "replay", "file": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"'a0'.*'replay' cannot be simulated"):
        simulation(settings)
