"""Makes mesh/ingress/mesh_pb2.py and mesh_pb2_grpc.py from mesh.proto.

The build of the package runs it (so does ``pip install -e .``), and ``python deploy/protos.py`` by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

PROTO = "mesh/ingress/mesh.proto"
MADE = ("mesh/ingress/mesh_pb2.py", "mesh/ingress/mesh_pb2_grpc.py")


def make(repo: Path) -> None:
    """Write them. Raises RuntimeError with what protoc said."""
    from grpc_tools import protoc

    words = ["protoc", f"-I{repo}", f"--python_out={repo}", f"--grpc_python_out={repo}", str(repo / PROTO)]
    if code := protoc.main(words):
        raise RuntimeError(f"protoc ended with {code} on {PROTO}")


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand
    pass
else:

    class Protos(BuildHookInterface):
        """The build's hook."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Make them, and have them in what is built although git ignores them."""
            make(Path(self.root))
            build_data["artifacts"] += [f"/{path}" for path in MADE]


if __name__ == "__main__":
    make(Path(__file__).parents[1])
