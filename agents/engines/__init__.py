"""Engines: one model behind one agent. The table names modules, so that nothing heavy loads before it is used."""

from __future__ import annotations

from agents.engines.base import Capabilities, Engine, Setup, room

ENGINES: dict[str, str] = {
    "scripted": "agents.engines.scripted:ScriptedEngine",
    "measured": "agents.engines.measured:MeasuredEngine",
    "transformers": "agents.engines.transformers:TransformersEngine",
    "vllm": "agents.engines.vllm:VllmEngine",
    "openai": "agents.engines.openai:OpenAIEngine",
    "replay": "agents.engines.replay:ReplayEngine",
    "mesh": "mesh.ingress.federation:RemoteMesh",  # it speaks the server's own protocol, and so lives with it
}

__all__ = ["ENGINES", "Capabilities", "Engine", "Setup", "room"]
