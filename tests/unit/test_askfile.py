"""A file of questions for a pool that cannot read all of them."""

from __future__ import annotations

import json
from pathlib import Path

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
