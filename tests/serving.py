"""The server's application on loopback, around a mesh in this process: everything of it but Ray Serve."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import uvicorn

from mesh.ingress.curves import Curves
from mesh.ingress.door import Door
from mesh.ingress.grpc_server import grpc_server
from mesh.ingress.http import application
from mesh.ingress.keys import Key, Keys
from mesh.ingress.ledger import Ledger
from mesh.ingress.limits import Limits
from mesh.ingress.patience import Impatient
from mesh.ingress.served import ServedMesh
from mesh.ingress.tls import PLAIN, ServerTLS

WORDS = "one two three four five six seven eight nine ten"


def pool(engines: Mapping[str, Mapping[str, Any]], **settings: Any) -> dict[str, Any]:
    """A pool of scripted agents, the dearest last."""
    agents = [
        {"name": name, "cost": round(0.1 + 0.8 * place / max(len(engines) - 1, 1), 3)}
        | {"engine": {"kind": "scripted", **engine}}
        for place, (name, engine) in enumerate(engines.items())
    ]
    return {"name": "test", "runtime": "local", "agents": agents, **settings}


@contextlib.contextmanager
def served(
    source: Mapping[str, Any] | str,
    keys: tuple[Key, ...] = (),
    limits: Limits | None = None,
    insecure: bool = False,
    grpc: bool = False,
    tls: ServerTLS = PLAIN,
    curves: Curves | None = None,
) -> Iterator[tuple[str, Door]]:
    """Its address, and its door, which has a ``grpc_port`` here. HTTP is as impatient as behind Ray Serve."""
    with ServedMesh.from_yaml(source) as mesh:
        door = Door(mesh, Ledger(), Keys(keys), limits, curves=curves)

        @contextlib.asynccontextmanager
        async def opened() -> AsyncIterator[Door]:
            async with grpc_server(door, "127.0.0.1", 0, tls) if grpc else contextlib.nullcontext(0) as door.grpc_port:
                yield door

        app = application(opened, local_only=not (keys or insecure))
        protocol = type("Protocol", (Impatient,), {"limits": limits or Limits()})
        options: dict[str, Any] = {"log_level": "warning", "ws": "none", "http": protocol}
        if tls:
            options |= {"ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, **options))
        thread = threading.Thread(target=server.run, name="server")
        thread.start()
        try:
            while not server.started:
                thread.join(0.01)
                assert thread.is_alive()
            yield f"{'https' if tls else 'http'}://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", door
        finally:
            server.should_exit = True
            thread.join()
