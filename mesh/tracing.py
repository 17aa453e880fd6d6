"""The trace: one JSON line an event, to a file that the user names. Metrics, replay and training read only that.

Every line has ``time`` (seconds since the epoch) and ``event``: ``asked``, then ``answered``, ``failed`` or
``cancelled``, and ``feedback`` of a query (with its ``id``); ``agent_up``, ``agent_down`` (with its ``why``),
``agent_given_up``, ``agent_removed``, ``agent_updated`` of an agent.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from typing import IO, Any

from msgspec import to_builtins

from agents.messages import Reply
from mesh.spans import Spans, environment_spans

log = logging.getLogger(__name__)


class Trace:
    """Appends events to ``path``; with None it writes nothing. Safe to use from several threads.

    Where the disk is full, lines are lost, which is logged; no query or agent suffers from it.

    Args:
        spans: are told of every event too; default: those that the environment asks for.
    """

    def __init__(self, path: Path | None, spans: Spans | None = None) -> None:
        self._lock = threading.Lock()
        self._spans = spans or environment_spans()
        self._file: IO[str] | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)

    def __call__(self, event: str, reply: Reply | None = None, **fields: Any) -> None:
        """Write an event, with a reply's fields where there is one."""
        if self._spans is not None:
            self._spans(event, reply, **fields)
        if self._file is not None:
            told = {"time": round(time.time(), 6), "event": event, **(reply_json(reply) if reply else {}), **fields}
            line = json.dumps(told, ensure_ascii=False)
            with self._lock:
                if not self._file.closed:
                    try:
                        self._file.write(line + "\n")
                    except OSError as error:
                        log.error("not in the trace: %s: %s", error, line)

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._spans is not None:
            self._spans.flush()
        if self._file is not None:
            with self._lock:
                try:
                    self._file.close()
                except OSError as error:
                    log.error("the trace is not whole: %s", error)


def reply_json(reply: Reply) -> dict[str, Any]:
    """A reply as JSON: every field of it, the path as a list of hops."""
    return {**to_builtins(reply), "confidence": reply.confidence}
