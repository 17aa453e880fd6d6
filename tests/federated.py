"""A mesh in a process of its own, served over gRPC: ``python -m tests.federated PORT POOL``, until its stdin ends."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import grpc

from benchmarks.served import free_port
from mesh.ingress import mesh_pb2 as pb
from mesh.ingress.door import Door
from mesh.ingress.grpc_server import grpc_server
from mesh.ingress.ledger import Ledger
from mesh.ingress.mesh_pb2_grpc import MeshStub
from mesh.ingress.served import ServedMesh


class Elsewhere:
    """Another mesh, in another process."""

    def __init__(self, pool: Mapping[str, Any], port: int = 0) -> None:
        self.port = port or free_port()
        self.target = f"127.0.0.1:{self.port}"
        self._command = (sys.executable, "-m", "tests.federated", str(self.port), json.dumps(pool))
        self.start()

    def start(self) -> None:
        """Start it, again where it has been killed, and wait until it listens."""
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        """End it without a word."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def status(self) -> dict[str, Any]:
        """What it tells of each of its agents."""
        with grpc.insecure_channel(self.target) as channel:
            return {agent.name: agent for agent in MeshStub(channel).Status(pb.StatusRequest()).agents}

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.communicate()  # its stdin ends


async def _serve(port: int, pool: Mapping[str, Any]) -> None:
    mesh = ServedMesh.from_yaml(pool)
    await asyncio.to_thread(mesh.start)
    door = Door(mesh, Ledger())
    async with grpc_server(door, "127.0.0.1", port):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await asyncio.to_thread(mesh.close)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), json.loads(sys.argv[2])))
