"""A file of questions for a pool that cannot read all of them."""

from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from agents.errors import MeshError
from agents.messages import Reply
from mesh.askfile import Job, Replies, ask_all
from mesh.client import Mesh
from mesh.questions import Question


def test_what_a_pool_cannot_read_costs_no_other_question(tmp_path: Path) -> None:
    asked = [Question(text, text, "lab/add", None, "2") for text in ("1+1=", "who?", "2+0=")]
    pool = {"extends": "scripted", "name": "sums", "understands": {"pattern": "[0-9]+[+][0-9]+="}}
    outcomes: list[Reply | MeshError] = []
    with Replies(tmp_path / "out.jsonl", asked, [0.5]) as replies, Mesh.from_yaml(pool) as mesh:

        def record(job: Job, outcome: Reply | MeshError) -> None:
            replies.add(job, outcome)
            outcomes.append(outcome)

        ask_all(mesh, replies.missing(), record)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted((line["question"], line.get("error", "")) for line in lines) == [
        ("1+1=", ""),
        ("2+0=", ""),
        ("who?", "NotUnderstood"),
    ]
    assert len(outcomes) == 3


def test_with_one_seed_for_the_file_each_question_has_its_own() -> None:
    """With the same for all, all would draw alike: each would choose the option that the same chance fell on."""
    seeds: dict[tuple[int | None, str], Any] = {}

    class Asked:
        def __init__(self, seed: int | None) -> None:
            self.seed = seed

        def submit(self, query: str, alpha: float, id: str = "", **options: Any) -> Future[Reply]:
            seeds[self.seed, id] = options.get("seed")
            reply: Future[Reply] = Future()
            reply.set_result(Reply(id, id, query, "one", alpha, 0.0, 0.0, ()))
            return reply

    jobs = [Job(Question(text, text), 0.5) for text in ("a", "b", "c")]
    for seed in (0, 1, None):
        options = {} if seed is None else {"seed": seed}
        ask_all(Asked(seed), jobs, lambda job, outcome: None, **options)
    drawn = [given for (seed, _), given in seeds.items() if seed is not None]
    assert len(set(drawn)) == 6
    assert all(0 <= one < 2**32 for one in drawn)
    assert [given for (seed, _), given in seeds.items() if seed is None] == [None] * 3
