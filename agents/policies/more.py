"""Policies that learn, or go by more than their own verdict: ways to route among others."""

from __future__ import annotations

from agents.policies.base import Policy
from agents.policies.value import Value

MORE: dict[str, type[Policy]] = {
    "value": Value,
}
