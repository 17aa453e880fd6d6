"""Options that several benchmarks have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Work = Annotated[
    Path | None, typer.Option(help="Folder for what agents reply; asked again, it goes on. Default: a passing one.")
]
Out = Annotated[Path | None, typer.Option(help="Folder of the result file; default: benchmarks/results.")]
Processes = Annotated[int, typer.Option(min=1, help="That ask, learn and walk at a time.")]
