"""``mesh up`` leaves a mesh running that other processes find, and ``mesh down`` ends it and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

POOL = """
name: {name}
agents:
  - {{name: a, cost: 0.1, engine: {{kind: scripted, refuse: 1.0}}}}
  - {{name: b, cost: 0.9, engine: {{kind: scripted, answer: "from {{agent}}"}}}}
"""


def run(*words: str, code: int = 0) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "mesh", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == code, done.stderr
    return done.stdout + (done.stderr if code else "")


@pytest.mark.timeout(400)
def test_up_ask_status_down(tmp_path: Path) -> None:
    name, other = f"test-{os.getpid()}", f"test-{os.getpid()}-2"
    for each in (name, other):
        (tmp_path / f"{each}.yaml").write_text(POOL.format(name=each))
    try:
        run("up", str(tmp_path / f"{name}.yaml"))
        assert f"{name!r} is up already" in run("up", str(tmp_path / f"{name}.yaml"), code=2)
        reply = json.loads(run("ask", "who?", "--name", name, "--json"))
        assert (reply["text"], [hop["agent"] for hop in reply["path"]]) == ("from b", ["a", "b"])

        ask = f"import mesh; print(mesh.connect({name!r}).ask('who?', 0.5))"
        printed = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=120, check=True)
        assert "a refused → b answered" in printed.stdout

        run("up", str(tmp_path / f"{other}.yaml"))
        rows = json.loads(run("status", "--name", name, "--json"))
        assert [(each["agent"], each["state"]) for each in rows] == [("a", "up"), ("b", "up")]
        run("down", name)
        assert "no mesh" in run("ask", "who?", "--name", name, code=2)
        assert json.loads(run("ask", "who?", "--name", other, "--json"))["text"] == "from b"
    finally:
        for each in (name, other):
            subprocess.run([sys.executable, "-m", "mesh", "down", each], capture_output=True, timeout=120, check=False)
    assert f"no mesh {other!r}" in run("ask", "who?", "--name", other, code=2)
