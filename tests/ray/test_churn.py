"""The short form of ``mesh bench churn``: every kind of fault once, on a Ray of three nodes of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.churn_faults import KINDS

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.timeout(400)
def test_every_query_is_answered_once_or_clearly_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mesh", "bench", "churn", "--queries", "300", "--seed", "3", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.rpartition("RESULT ")[2])
    assert (told["asked"], told["lost"], told["duplicates"], told["hung"]) == (300, 0, 0, 0)
    assert told["answered"] + told["clear_errors"] == 300
    assert told["answered"] >= 297
    refused = {each.partition(":")[0] for each in told["refused_changes"]}  # where a node was lost just then
    assert Counter(told["faults"]) + Counter(refused) == Counter(KINDS)
    assert len(refused) <= 1
