"""A detached mesh loses its supervisor: it answers on, says what it lacks, and can still be taken down."""

from __future__ import annotations

import pytest
import ray

import mesh
from mesh.running import _actors, down, up
from tests.ray.conftest import until

pytestmark = pytest.mark.ray


def test_a_mesh_without_its_supervisor_answers_until_it_is_taken_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.running._FRESH_S", 0.0)
    agents = [{"name": name, "cost": cost, "engine": "scripted"} for name, cost in (("a", 0.1), ("b", 0.9))]
    up({"name": "lost", "defaults": {"num_gpus": 0}, "agents": agents})
    pool = mesh.connect("lost")
    try:
        assert pool.ask("who?").agent == "a"
        ray.kill(ray.get_actor("lost/@supervisor", namespace="mesh"))
        assert until(lambda: "lost/@supervisor" not in _actors())
        assert pool.ask("who?").agent == "a"
        with pytest.raises(mesh.MeshClosed, match=r"supervisor.*nobody restarts its agents.*`mesh down`"):
            pool.status()
        with pytest.raises(mesh.ConfigError, match="no mesh 'lost': its supervisor has died; `mesh down`"):
            mesh.connect("lost")
        with pytest.raises(mesh.ConfigError, match="'lost' is up already"):
            up({"name": "lost", "agents": agents})
        assert down("lost") == "lost"
        assert until(lambda: not [actor for actor in _actors() if actor.startswith("lost/")])
        with pytest.raises(mesh.MeshClosed, match="'lost' is down"):
            pool.ask("who?")
        with pytest.raises(mesh.ConfigError, match="none is up"):
            down("lost")
    finally:
        pool.close()
