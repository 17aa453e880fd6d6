"""Finding a plug-in: a name from a table, or any ``package.module:attr``."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any

from agents.errors import ConfigError


def resolve(table: Mapping[str, Any], name: str, what: str) -> Any:
    """What ``name`` stands for in ``table`` (which may name a place), or what is at ``package.module:attr``.

    Raises:
        ConfigError: neither; the message lists what there is.
    """
    found = table.get(name, name if ":" in name else None)
    if found is not None and not isinstance(found, str):
        return found
    if found is not None:
        try:
            return pkgutil.resolve_name(found)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f"{what} {name!r} cannot be imported: {error}") from error
    raise ConfigError(f"unknown {what} {name!r}: use one of {', '.join(sorted(table))}, or package.module:attr")


def build(table: Mapping[str, Any], kind: str, what: str, *args: Any, **options: Any) -> Any:
    """Resolve ``kind`` and call it with ``options``.

    Raises:
        ConfigError: unknown kind, an option it does not have, one it lacks, or one of a wrong type.
    """
    factory = resolve(table, kind, what)
    try:
        inspect.signature(factory).bind(*args, **options)
    except TypeError as error:
        known = [p.name for p in list(inspect.signature(factory).parameters.values())[len(args) :]]
        raise ConfigError(f"{what} {kind!r}: {error}; its options are {', '.join(known) or 'none'}") from None
    try:
        return factory(*args, **options)
    except TypeError as error:  # a value of another type than it takes
        raise ConfigError(f"{what} {kind!r}: {error}") from error
