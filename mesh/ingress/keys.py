"""API keys: kept as hashes only, found in constant time; pure.

A key file has one key a line, ``ROLE NAME sha256:HEX``; ``mesh key`` makes such a line. The environment's
``MESH_USER_KEYS`` and ``MESH_ADMIN_KEYS`` hold keys themselves, separated by commas.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast

from agents.errors import ConfigError

Role: TypeAlias = Literal["user", "admin"]
VARIABLES: Mapping[str, Role] = {"MESH_USER_KEYS": "user", "MESH_ADMIN_KEYS": "admin"}
_LINE = re.compile(r"(user|admin) ([A-Za-z0-9][A-Za-z0-9._-]{0,63}) sha256:([0-9a-f]{64})")
_PREFIX = "mesh-"
_SHORTEST = 20  # characters: a hash protects only what cannot be guessed


@dataclass(frozen=True, slots=True)
class Key:
    """Whoever asks: a name for logs and limits, what it may do, and the SHA-256 of its key."""

    name: str
    role: Role
    digest: str = ""


ANYBODY = Key("anybody", "user")  # where there are no keys: the server is reached from this machine only


class Keys:
    """All keys that are known."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self.keys = tuple(keys)

    def __bool__(self) -> bool:
        return bool(self.keys)

    def find(self, presented: str) -> Key | None:
        """Whose key this is; takes as long for a wrong one as for a right one."""
        digest, found = _digest(presented), None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def read_keys(text: str, source: str = "keys") -> tuple[Key, ...]:
    """The keys of a key file; empty lines and those that begin with # say nothing.

    Raises:
        ConfigError: names the line, not what stands on it, which may be a key.
    """
    keys: list[Key] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = " ".join(line.split())
        if not words or words.startswith("#"):
            continue
        read = _LINE.fullmatch(words)
        if read is None:
            raise ConfigError(f"{source}:{number}: no key; it must be `user|admin NAME sha256:HEX`, as `mesh key` says")
        keys.append(Key(read[2], cast(Role, read[1]), read[3]))
    return _distinct(keys, source)


def environment_keys(environ: MutableMapping[str, str]) -> tuple[Key, ...]:
    """The keys that the environment holds, hashed; they are taken out of it, so that no other process inherits them.

    Raises:
        ConfigError: one is too short to be safe.
    """
    keys: list[Key] = []
    for variable, role in VARIABLES.items():
        given = [each.strip() for each in environ.pop(variable, "").split(",")]
        for place, key in enumerate(each for each in given if each):
            if len(key) < _SHORTEST:
                raise ConfigError(f"{variable}: key {place + 1} has {len(key)} characters; it needs {_SHORTEST}")
            keys.append(Key(f"{role}-{place + 1}", role, _digest(key)))
    return _distinct(keys, "environment")


def gather_keys(file: Path | None, environ: MutableMapping[str, str]) -> tuple[Key, ...]:
    """All keys of a file and the environment. Raises ConfigError where one is wrong, OSError without the file."""
    found = read_keys(file.read_text(encoding="utf-8"), str(file)) if file else ()
    return _distinct([*found, *environment_keys(environ)], "keys")


def new_key(name: str, role: Role) -> tuple[str, str]:
    """A new key, and its line for the key file. Raises ConfigError for a name that cannot stand there."""
    key = _PREFIX + secrets.token_urlsafe(32)
    line = f"{role} {name} sha256:{_digest(key)}"
    if _LINE.fullmatch(line) is None:
        raise ConfigError(f"name: {name!r}; it must be 1 to 64 letters, digits, '.', '_' and '-'")
    return key, line


def bearer(authorization: str | None) -> str | None:
    """The key in an ``Authorization`` header; None where there is none."""
    scheme, _, key = (authorization or "").strip().partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _distinct(keys: Sequence[Key], source: str) -> tuple[Key, ...]:
    for field in ("name", "digest"):
        told = [getattr(key, field) for key in keys]
        if twice := next((key.name for place, key in enumerate(keys) if told[place] in told[:place]), None):
            raise ConfigError(f"{source}: {twice!r} has the {'name' if field == 'name' else 'key'} of another")
    return tuple(keys)
