"""The live view: a row an agent, and queries drawn with who refused and who answered."""

from __future__ import annotations

import io

from rich.console import Console

from agents.errors import MeshError
from agents.messages import Hop, Reply
from benchmarks.walk import Walk, drawn
from mesh.config import load

PATH = (Hop("tiny", "refused", 0.31), Hop("huge", "failed", reason="died"), Hop("small", "answered", 0.93))
REPLY = Reply("q", "95", "small", 0.5, 0.3, 0.4, PATH, 0.1)


def shown(what: object) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(what)
    return console.export_text()


def test_a_reply_is_drawn() -> None:
    assert " ".join(shown(drawn("37+58=", REPLY, True)).split()) == "37+58= tiny ✗ .31 → huge died → small ✓ .93 95"
    assert "nobody" in shown(drawn("37+58=", MeshError("nobody is left"), False))


def test_the_view_counts() -> None:
    walk = Walk(load("scripted"), lambda: [{"agent": "tiny", "in_hand": 7}])
    walk.begin("alpha 0.5", 2)
    walk.add("37+58=", REPLY, True)
    walk.add("1+1=", MeshError("nobody is left"), False)
    lines = shown(walk).splitlines()
    assert "alpha 0.5: 2 of 2" in lines[0]
    cells = [[cell.strip() for cell in line.split("│")[1:]] for line in lines]
    rows = {row[0]: row for row in cells if len(row) > 5}
    assert rows["tiny"][:6] == ["tiny", "0.1", "small", "7", "1", "0"]
    assert rows["small"][:6] == ["small", "0.3", "medium", "", "0", "1"]
    assert rows["huge"][2:6] == ["answers what comes", "", "0", "0"]  # it died, which is no refusal
    walk.begin("alpha 0.8", 2)
    assert "0 of 2" in shown(walk)
