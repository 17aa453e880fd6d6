"""Which plug-in a setting names, with which options: checked where it is written, not where it is first used."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import core_schema

from agents.plugins import build, resolve
from mesh.yamlsource import Wrong, known_words, refused


@dataclass(frozen=True, slots=True)
class Spec:
    """Which plug-in, by its name in a table or as ``package.module:attr``, and its options.

    In YAML: the name alone, or a mapping with ``kind`` and the options beside it.
    """

    kind: str
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: Any) -> Spec:
        """Raises ValueError where ``value`` is neither a name nor a mapping with ``kind``."""
        if isinstance(value, Spec):
            return value
        options = dict(value) if isinstance(value, Mapping) else {"kind": value}
        kind = options.pop("kind", None)
        if not isinstance(kind, str) or not all(isinstance(key, str) for key in options):
            raise ValueError("should be a name, or a mapping with `kind` and options")
        return cls(kind, options)

    def written(self) -> dict[str, Any]:
        """As in YAML, so that it can be parsed again."""
        return {"kind": self.kind, **self.options}


@dataclass(frozen=True)
class Plugin:
    """Annotates a ``Spec``: its kind stands in ``table`` and has its options.

    ``given`` are parameters that the mesh supplies, ``paths`` options that are files (or what is in them); a
    plug-in that is cheap to make is made on ``trial``, so that it can refuse an option's value.
    """

    table: Mapping[str, Any]
    what: str
    given: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    trial: bool = False

    def check(self, value: Any, info: ValidationInfo) -> Spec:
        spec = Spec.parse(value)
        factory = resolve(self.table, spec.kind, self.what)
        if not callable(factory):
            raise ValueError(f"should be a class or function, which {factory!r} is not")
        self._check_options(spec, factory)
        files = {
            key: absolute(Path(path), info)
            for key, path in spec.options.items()
            if key in self.paths and isinstance(path, str | Path)
        }
        if self.trial:
            build(self.table, spec.kind, self.what, **{**spec.options, **dict.fromkeys(files)})
        return Spec(spec.kind, {**spec.options, **files})

    def _check_options(self, spec: Spec, factory: Callable[..., Any]) -> None:
        parameters = inspect.signature(factory).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        known = [p.name for p in parameters.values() if p.name not in self.given and p.kind is not p.VAR_KEYWORD]
        what = f"{self.what} {spec.kind!r}"
        wrong: list[Wrong] = [
            ((key,), f"no option of {what}; {known_words(key, known, 'its options are')}", option)
            for key, option in spec.options.items()
            if key in self.given or not (anything or key in known)
        ]
        wrong += [
            ((key,), "should be a path", spec.options[key])
            for key in self.paths
            if key in known and not isinstance(spec.options.get(key, ""), str | Path | Mapping)
        ]
        if wrong:
            raise refused(*wrong)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self.check, serialization=core_schema.plain_serializer_function_ser_schema(Spec.written)
        )


def absolute(path: Path, info: ValidationInfo) -> Path:
    """Relative paths are relative to the file they stand in, or else to the current folder."""
    base: Path = (info.context or {}).get("base") or Path.cwd()
    return base / path.expanduser()
