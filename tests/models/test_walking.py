"""Walks on recorded outcomes against the mesh itself: the same paths, answers and prices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agents.messages import Reply
from agents.plugins import build
from agents.policies import POLICIES, Reservation
from agents.policies.value import Value
from benchmarks.ours import priors, profiles
from benchmarks.outcomes import Outcomes, Routed
from benchmarks.recording import Recording
from benchmarks.walking import walk
from mesh.askfile import Job, ask_all
from mesh.client import Mesh
from mesh.config import MeshConfig, load, with_overrides
from mesh.pluginspec import Spec
from mesh.questions import Question
from training.grading import grade
from training.lab_questions import questions

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("default")]
ALPHAS = (0.2, 0.8)
ASKED = questions(84, "validation", 4)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    recording = Recording(load("lab"), ASKED, tmp_path_factory.mktemp("recording"), ALPHAS, p_true=False)
    recording.record()
    return recording.outcomes()


def live(mesh_of: MeshConfig, asked: Sequence[Question], alpha: float) -> list[Reply]:
    """What the mesh itself replies, in order."""
    found: dict[str, Reply] = {}
    with Mesh(mesh_of) as mesh:
        ask_all(mesh, [Job(q, alpha) for q in asked], lambda job, reply: found.__setitem__(job.question.id, reply), 16)
    return [found[question.id] for question in asked]


def assert_alike(outcomes: Outcomes, walked: tuple[Routed, list[tuple[int, ...]]], replies: Sequence[Reply]) -> None:
    found, paths = walked
    assert [tuple(outcomes.agents[hop] for hop in path) for path in paths] == [
        tuple(hop.agent for hop in reply.path) for reply in replies
    ]
    assert found.cost.tolist() == pytest.approx([reply.cost for reply in replies])
    assert found.full_cost.tolist() == pytest.approx([reply.full_cost for reply in replies])


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_walk_is_what_the_mesh_does(outcomes: Outcomes, alpha: float) -> None:
    lab = with_overrides(load("lab"), runtime="local")
    policies = {a.name: build(POLICIES, a.policy.kind, "policy", **a.policy.options) for a in lab.agents}
    walked = walk(outcomes, policies, lab.build_topology(), alpha)
    assert_alike(outcomes, walked, live(lab, ASKED, alpha))
    assert len({len(path) for path in walked[1]}) > 2  # some went far


@pytest.mark.parametrize("full", [True, False])
def test_a_walk_by_profiles_is_what_the_mesh_does(outcomes: Outcomes, full: bool, tmp_path: Path) -> None:
    """Some questions are only looked at, some drafts thrown away, and some handed back."""
    known = outcomes.at(np.arange(0, len(outcomes), 2))  # half of them only: of others they are less sure
    told = profiles(priors(known, known), known, ALPHAS, full, "both")
    lab = with_overrides(load("lab"), runtime="local")
    agents = []
    for agent in lab.agents:
        path = tmp_path / f"{agent.name}.json"
        path.write_bytes(told[agent.name].written())
        agents.append(agent.model_copy(update={"profile": path, "policy": Spec("reservation")}))
    lab = lab.model_copy(update={"agents": tuple(agents), "topology": Spec("mesh")})
    steps: set[str] = set()
    for alpha in ALPHAS:
        walked = walk(outcomes, dict.fromkeys(outcomes.agents, Reservation()), lab.build_topology(), alpha, told)
        replies = live(lab, ASKED, alpha)
        assert_alike(outcomes, walked, replies)
        for reply in replies:
            left = [hop for hop in reply.path if hop.verdict == "refused"]
            steps |= {"passed" for hop in left if not hop.prompt_tokens}
            steps |= {"looked" for hop in left if hop.prompt_tokens and not hop.generated_tokens}
            steps |= {"drafted" for hop in left if hop.generated_tokens}
    assert steps >= ({"passed", "drafted"} if full else {"passed", "looked", "drafted"})


def test_a_walk_with_learnt_values_is_what_the_mesh_does(outcomes: Outcomes) -> None:
    """Asked one by one, and told of every other whether it was right, a mesh learns what walks learn."""
    mesh = with_overrides(load("lab"), runtime="local", topology="mesh")
    mesh = mesh.model_copy(
        update={"agents": tuple(a.model_copy(update={"policy": Spec("value")}) for a in mesh.agents)}
    )
    told = np.arange(len(outcomes)) % 2 == 0
    policies = {name: Value() for name in outcomes.agents}
    walked = walk(outcomes, policies, mesh.build_topology(), 0.8, feedback=told)
    replies = []
    with Mesh(mesh) as live:
        for question, feedback in zip(ASKED, told, strict=True):
            reply = live.ask(question.text, 0.8, id=question.id)
            if feedback:
                live.feedback(reply.id, grade(reply.text, question) >= 0.5)
            replies.append(reply)
    assert_alike(outcomes, walked, replies)
    unlearnt = {name: Value() for name in outcomes.agents}
    assert walk(outcomes, unlearnt, mesh.build_topology(), 0.8)[1] != walked[1]  # feedback has changed ways
