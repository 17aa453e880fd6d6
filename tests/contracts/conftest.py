"""The contract of engines holds for one on a real model too."""

from __future__ import annotations

from tests.models.conftest import smollm2

__all__ = ["smollm2"]
