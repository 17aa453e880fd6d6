"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Pool = Annotated[
    str | None, typer.Option(help="A ready pool (see `mesh pools`) or a YAML file; else the running mesh, or the lab.")
]
Name = Annotated[str | None, typer.Option(help="Which running mesh, where there are several.")]
Address = Annotated[
    str | None, typer.Option(help="The Ray cluster; default: RAY_ADDRESS, else the one that runs here.")
]
ModelsDir = Annotated[
    Path | None, typer.Option(help="Folder where models are looked for before the hub; default: MESH_MODELS.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TlsCa = Annotated[
    str, typer.Option(metavar="FILE", help="With --grpc: TLS; who signed the server's certificate, as PEM.")
]
TlsCert = Annotated[str, typer.Option(metavar="FILE", help="With --grpc: one's own certificate, as PEM.")]
TlsKey = Annotated[str, typer.Option(metavar="FILE", help="With --grpc: the private key of that, as PEM.")]
Priority = Annotated[
    Literal["low", "normal", "high"] | None, typer.Option(help="Where a queue is full, the lowest gives way.")
]
Elsewhere = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Ask a server elsewhere; its key: MESH_API_KEY.")
]
