"""Unit tests start no cluster: ``ray.init`` raises here."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a unit test started Ray: move it to tests/ray, and mark it so")

    if "ray" in sys.modules:  # else nothing of it is loaded, and test_architecture sees to it that it stays so
        monkeypatch.setattr("ray.init", refuse)
