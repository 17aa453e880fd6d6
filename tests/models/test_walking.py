"""Walks on recorded outcomes against the mesh itself: the same paths, answers and prices."""

from __future__ import annotations

import pytest

from agents.plugins import build
from agents.policies import POLICIES
from benchmarks.outcomes import Outcomes
from benchmarks.recording import Recording
from benchmarks.walking import walk
from mesh.askfile import Job, ask_all
from mesh.client import Mesh
from mesh.config import load, with_overrides
from training.lab_questions import questions

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("default")]
ALPHAS = (0.2, 0.8)
ASKED = questions(84, "validation", 4)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    recording = Recording(load("lab"), ASKED, tmp_path_factory.mktemp("recording"), ALPHAS, p_true=False)
    recording.record()
    return recording.outcomes()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_walk_is_what_the_mesh_does(outcomes: Outcomes, alpha: float) -> None:
    lab = with_overrides(load("lab"), runtime="local")
    policies = {a.name: build(POLICIES, a.policy.kind, "policy", **a.policy.options) for a in lab.agents}
    found, paths = walk(outcomes, policies, lab.build_topology(), alpha)
    live = {}
    with Mesh(lab) as mesh:
        ask_all(mesh, [Job(q, alpha) for q in ASKED], lambda job, reply: live.__setitem__(job.question.id, reply))
    replies = [live[question.id] for question in ASKED]
    assert [tuple(outcomes.agents[hop] for hop in path) for path in paths] == [
        tuple(hop.agent for hop in reply.path) for reply in replies
    ]
    assert found.cost.tolist() == pytest.approx([reply.cost for reply in replies])
    assert found.full_cost.tolist() == pytest.approx([reply.full_cost for reply in replies])
    assert len({len(path) for path in paths}) > 2  # some went far
