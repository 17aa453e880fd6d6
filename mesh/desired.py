"""What a mesh is to be, kept where its supervisor's successor finds it: in the cluster's own store, under its name.

That store lives in Ray's head; it outlives the head too where the cluster keeps it in Redis (GCS fault tolerance).
"""

from __future__ import annotations

import pickle

from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put

from mesh.members import Saved

_NAMESPACE = b"mesh"


class Desired:
    """The wanted state of one mesh."""

    def __init__(self, mesh: str) -> None:
        self._key = f"desired/{mesh}".encode()

    def write(self, saved: Saved) -> None:
        """Keep this instead of what was there."""
        _internal_kv_put(self._key, pickle.dumps(saved), overwrite=True, namespace=_NAMESPACE)

    def read(self) -> Saved | None:
        """What was kept last; None where nothing is."""
        kept = _internal_kv_get(self._key, namespace=_NAMESPACE)
        if kept is None:
            return None
        saved: Saved = pickle.loads(kept)  # written by a supervisor of ours, in a store that only the cluster reaches
        return saved

    def forget(self) -> None:
        """The mesh is no more."""
        _internal_kv_del(self._key, namespace=_NAMESPACE)
