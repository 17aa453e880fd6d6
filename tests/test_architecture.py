"""The house rules, read from the source: who may import whom, what is pure, what stays small, what is explained.

A failing test names the rule, every place that breaks it, and what to do. Each rule's table stands above its
test; an exception goes into the table, with its reason.
"""

from __future__ import annotations

import ast
import functools
import io
import json
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pytest

REPO = Path(__file__).parents[1]
PACKAGES = ("topologies", "agents", "mesh", "training", "benchmarks")
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


def modules(*folders: str) -> list[str]:
    """Every module below these folders, as a path from the repository's root."""
    found = (path for folder in folders for path in (REPO / folder).rglob("*.py"))
    return sorted(path.relative_to(REPO).as_posix() for path in found if "_pb2" not in path.stem)  # made by the build


def source(path: str) -> str:
    return (REPO / path).read_text(encoding="utf-8")


@functools.cache
def tree(path: str) -> ast.Module:
    return ast.parse(source(path), path)


def hold(rule: str, broken: Iterable[str], remedy: str) -> None:
    """Fail where the rule is broken anywhere."""
    if places := sorted(broken):
        pytest.fail("\n".join([f"Rule: {rule}", *(f"  {p}" for p in places), f"What to do: {remedy}"]), pytrace=False)


def within(path: str, places: Iterable[str]) -> bool:
    """Whether ``path`` is one of ``places``; those that end with a slash are folders."""
    return any(path == place or (place.endswith("/") and path.startswith(place)) for place in places)


# ---------------------------------------------------------------------------------- who imports whom


class Import(NamedTuple):
    """``name`` is all that the statement spells: ``agents.messages.Card``. ``lazy``: it stands in a function."""

    name: str
    line: int
    lazy: bool


def imports(path: str) -> Iterator[Import]:
    """Every import of a module, wherever it stands."""
    yield from _imports(tree(path), path, lazy=False)


def _imports(node: ast.AST, path: str, lazy: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno, lazy) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        here = Path(path).parts[: -node.level] if node.level else ()
        base = ".".join([*here, *([node.module] if node.module else [])])
        yield from (Import(f"{base}.{alias.name}", node.lineno, lazy) for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, path, lazy or isinstance(node, Function))


ONE_WAY = {  # package -> the packages that it may import besides itself
    "topologies": (),
    "agents": (),
    "mesh": ("topologies", "agents"),
    "training": ("topologies", "agents", "mesh"),
    "benchmarks": ("topologies", "agents", "mesh", "training"),
}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_one_way(package: str) -> None:
    ours, may = {*PACKAGES, "tests"}, {package, *ONE_WAY[package]}
    hold(
        f"{package} imports of ours only {' and '.join(ONE_WAY[package]) or 'itself'}",
        (
            f"{path}:{found.line} imports {found.name}"
            for path in modules(package)
            for found in imports(path)
            if (top := found.name.partition(".")[0]) in ours and top not in may
        ),
        "put the code where both sides may import it, or hand the value over as an argument; "
        "topologies | agents <- mesh <- training <- benchmarks <- tests",
    )


INSIDE_AGENTS = {  # part of agents -> the parts that it may import besides itself
    "errors": "",
    "names": "",
    "offers": "",
    "profile": "errors offers",
    "messages": "errors offers profile",
    "plugins": "errors",
    "prompts": "messages",
    "wire": "messages",
    "calibration": "errors offers profile",
    "policies": "errors offers profile messages calibration",
    "assess": "errors offers profile messages prompts calibration",
    "beside": "errors names offers profile messages policies",
    "overload": "errors offers profile messages",
    "node": "errors offers profile messages prompts calibration policies assess beside overload",  # and no engine
    "engines": "errors offers profile messages prompts",
    "host": "errors offers profile messages assess node engines wire",
    "spec": "errors offers profile messages prompts calibration policies assess node engines host plugins wire",
    "actor": "errors offers profile messages prompts calibration policies assess node engines host plugins spec wire",
    "__init__": "",
}


def test_inside_agents_imports_go_one_way() -> None:
    broken = []
    for path in modules("agents"):
        part = Path(path).parts[1].removesuffix(".py")
        if part not in INSIDE_AGENTS:
            broken.append(f"{path}:1 is in no row of INSIDE_AGENTS")
            continue
        may = {part, *INSIDE_AGENTS[part].split()}
        broken += [
            f"{path}:{found.line} imports {found.name}"
            for found in imports(path)
            if found.name.startswith("agents.") and found.name.split(".")[1] not in may
        ]
    hold(
        "errors <- profile <- messages <- prompts, calibration <- policies, assess, overload <- node; messages, errors "
        "<- engines; node, engines, wire <- host <- spec <- actor",
        broken,
        "let the node say what it wants as a command and the host do it; a new module gets a row in INSIDE_AGENTS",
    )


ONLY_IN = {  # libraries -> where they may be imported, and why there
    "ray": {
        "agents/actor.py": "an agent in a process of its own is a Ray actor",
        "mesh/runtimes/ray.py": "the runtime that launches these actors and reaches them",
        "mesh/running.py": "what `mesh up` leaves behind is a detached actor, found again by its name",
        "mesh/desired.py": "what a mesh is to be is kept in the cluster's own store",
        "mesh/ingress/": "HTTP and gRPC stand in Ray Serve replicas",
        "training/driver.py": "every training job is a Ray task",
        "benchmarks/": "some of them measure Ray itself",
    },
    "torch transformers vllm peft trl": {
        "agents/engines/": "one model behind one agent",
        "training/": "models are trained there",
        "benchmarks/baselines/": "learnt baselines",
    },
    "fastapi starlette grpc": {
        "mesh/ingress/": "what is served over HTTP and gRPC",
        "benchmarks/bare.py": "the barest server, to which ours is held",
    },
    "sklearn": {"training/": "calibration maps are fitted there", "benchmarks/": "baselines and their scores"},
}


@pytest.mark.parametrize("libraries", ONLY_IN)
def test_heavy_libraries_stay_where_they_are_needed(libraries: str) -> None:
    places = ONLY_IN[libraries]
    hold(
        f"{libraries.replace(' ', ', ')}: only in " + "; ".join(f"{place} ({why})" for place, why in places.items()),
        (
            f"{path}:{found.line} imports {found.name}"
            for path in modules(*PACKAGES)
            for found in imports(path)
            if found.name.partition(".")[0] in libraries.split() and not within(path, places)
        ),
        "go through an engine, a runtime or a training job; a new place for one needs a row in ONLY_IN that says why",
    )


def test_engines_load_their_libraries_late() -> None:
    heavy = {name for libraries in ONLY_IN for name in libraries.split()} | {"openai", "huggingface_hub", "tokenizers"}
    hold(
        "engine files import model libraries inside functions, so that the table of engines costs nothing",
        (
            f"{path}:{found.line} imports {found.name} for the whole module"
            for path in modules("agents/engines")
            for found in imports(path)
            if found.name.partition(".")[0] in heavy and not found.lazy
        ),
        "move the import into the function that needs it",
    )


@pytest.mark.parametrize("module", ["agents", "agents.spec", "mesh", "mesh.cli", "training.cli"])
def test_importing_us_loads_nothing_heavy(module: str) -> None:
    heavy = sorted(name for libraries in ONLY_IN for name in libraries.split())
    code = f"import sys, json, {module}; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    hold(
        f"`import {module}` loads none of {', '.join(heavy)}: people wait for it",
        (f"import {module} loads {name}" for name in json.loads(done.stdout)),
        f'`python -X importtime -c "import {module}"` shows who asks for it; import it where it is used',
    )


# ---------------------------------------------------------------------------------- what is pure

PURE = (
    *modules("topologies", "agents/policies"),
    *("agents/messages.py", "agents/errors.py", "agents/node.py", "agents/assess.py", "agents/prompts.py"),
    *("agents/calibration.py", "agents/overload.py", "agents/plugins.py"),
    *("mesh/owner.py", "mesh/directory.py", "mesh/runtimes/sim.py", "mesh/runtimes/virtual.py"),
    "mesh/ingress/gateway.py",
    *("mesh/runtimes/trouble.py", "mesh/churn.py", "mesh/restarts.py"),
)
WORLD = {  # modules through which the world comes in
    *("asyncio", "concurrent", "multiprocessing", "subprocess", "threading"),
    *("datetime", "time", "secrets", "uuid"),
    *("os", "ray", "select", "socket"),
}


def impurities(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and description of everything in ``node`` that depends on more than its arguments."""
    for part in ast.walk(node):
        match part:
            case ast.AsyncFunctionDef() | ast.AsyncFor() | ast.AsyncWith() | ast.Await():
                yield part.lineno, "is asynchronous"
            case ast.Name(id=name) if name in WORLD:
                yield part.lineno, f"uses {name}"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="random"), attr=drawn)) if drawn != "Random":
                yield part.lineno, f"draws from the module's generator: random.{drawn}"
            case ast.Call(func=ast.Attribute(attr="Random") | ast.Name(id="Random"), args=[]):
                yield part.lineno, "makes a generator without a seed"


def test_pure_modules_are_pure() -> None:
    broken = [f"{path}:{line} {what}" for path in PURE for line, what in impurities(tree(path))]
    for path in PURE:
        for found in imports(path):
            if found.name.partition(".")[0] in WORLD:
                broken.append(f"{path}:{found.line} imports {found.name}")
            elif found.name.startswith("random.") and found.name != "random.Random":
                broken.append(f"{path}:{found.line} imports {found.name}, which draws from the module's generator")
    hold(
        "pure modules know no clock, no chance, no network and no event loop, so that Ray, asyncio and virtual time "
        "play the same decisions",
        broken,
        "take `now` or a seeded random.Random as an argument, or return a command and let the shell around do it",
    )


@pytest.mark.parametrize(
    "code",
    [
        "async def f(): pass",
        "def f():\n  return time.monotonic()",
        "x = random.random()",
        "x = random.Random()",
        "x = Random()",
    ],
)
def test_impurity_is_seen(code: str) -> None:
    assert len(list(impurities(ast.parse(code)))) == 1


def test_seeded_chance_is_pure() -> None:
    assert list(impurities(ast.parse("x = random.Random(7).random() + Random('a').random() + rng.random()"))) == []


# ---------------------------------------------------------------------------------- what stays small

CORE_LINES = 2_100  # an evening; it should become 1,500
WAYS = ("reservation", "more", "cells", "learner", "value", "budget", "bandit", "irt", "cluster_card", "pheromone")
WAYS += ("similarity", "shortest_path", "committee", "speculative", "guard")
PLUG_INS = (
    "agents/beside.py",
    "agents/offers.py",
    "agents/profile.py",
    *(f"agents/policies/{way}.py" for way in WAYS),
)  # ways to route among others
CORE = (
    *modules("topologies"),
    *(path for path in modules("agents") if not path.startswith("agents/engines/") and path not in PLUG_INS),
    *("mesh/owner.py", "mesh/client.py"),
)
MODULE_LINES, FUNCTION_LINES = 400, 60
LONGER = {  # module -> (lines it may have, why it is one module)
    "agents/node.py": (600, "one state machine: its stages are understood together or not at all"),
}


def docstring(node: ast.AST) -> ast.Expr | None:
    """The statement that is the docstring of a module, class or function."""
    body = getattr(node, "body", None)
    first = body[0] if isinstance(body, list) and body else None
    holds = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return first if holds and isinstance(node, ast.Module | ast.ClassDef | Function) else None


def code_lines(text: str) -> int:
    """Lines with code on them: not blank, not only a comment, not of a docstring."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if (words := docstring(node)) is not None:
            lines.difference_update(range(words.lineno, (words.end_lineno or words.lineno) + 1))
    return len(lines)


def test_code_lines_are_counted_rightly() -> None:
    text = '"""A module\nof two."""\n\n# why\nX = """a\n\nb"""  # three lines\n\n\ndef f(\n    x: int,\n) -> int:\n'
    assert code_lines(text + '    """Words."""\n    return x  # one\n') == 3 + 3 + 1


def test_the_core_is_an_evenings_read() -> None:
    counts = {path: (code_lines(source(path)), len(source(path).splitlines())) for path in CORE}
    total, physical = (sum(column) for column in zip(*counts.values(), strict=True))
    hold(
        f"topologies, agents without engines and PLUG_INS, mesh/owner.py, mesh/client.py have fewer than {CORE_LINES} "
        "lines of code (not blank, comment or docstring)",
        [f"{path}: {code} lines of code, {lines} in all" for path, (code, lines) in counts.items()]
        if total >= CORE_LINES
        else [],
        f"it has {total} now ({physical} in all): take something out, or say it in fewer words",
    )


def test_modules_are_short() -> None:
    counts = {path: len(source(path).splitlines()) for path in modules(*PACKAGES)}
    hold(
        f"no module has more than {MODULE_LINES} lines",
        (
            f"{path}:{count} is its last line"
            for path, count in counts.items()
            if count > LONGER.get(path, (MODULE_LINES, ""))[0]
        ),
        "split it where it does two things; where it does one, give it a row in LONGER that says so",
    )
    spare = [path for path in LONGER if counts.get(path, 0) <= MODULE_LINES]
    hold("LONGER lists only modules that need it", spare, "take the row out of LONGER")


def test_functions_are_short() -> None:
    hold(
        f"no function has more than {FUNCTION_LINES} lines",
        (
            f"{path}:{node.lineno} {node.name} has {lines}"
            for path in modules(*PACKAGES)
            for node in ast.walk(tree(path))
            if isinstance(node, Function)
            and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
        ),
        "name a part of it and move it out; about 12 lines are usual here",
    )


# ---------------------------------------------------------------------------------- what is explained

UNEXPLAINED = {  # public names without a docstring -> why that is right
    "agents/engines/batching.py TextStream.push": "the class tells what comes back",
    "agents/engines/batching.py Batch.clear": "three assignments",
    "agents/engines/guard.py main": "the module tells what the process does",
    "mesh/askfile.py Tally.add": "the class tells what is added up",
    "mesh/cli.py Commands.get_command": "overrides typer's",
    "mesh/pluginspec.py Plugin.check": "the class tells what is checked",
    "mesh/runtimes/virtual.py VirtualHost.cancel": "as agents.host.Host.cancel",
    "mesh/runtimes/virtual.py VirtualHost.probe": "as agents.host.Host.probe",
    "training/calibrate.py Result.meta": "the class tells what it holds",
}


def test_what_is_public_is_explained() -> None:
    """Every public class and function has a docstring, but for what is plain without one:

    a method whose name a base class or a protocol of ours explains, and a body of a single statement.
    """
    classes = {
        node.name: node
        for path in modules(*PACKAGES)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
    }
    silent = {
        f"{path} {name}": node.lineno
        for path in modules(*PACKAGES)
        for name, node, owner in public(tree(path))
        if docstring(node) is None and not (isinstance(node, Function) and plain(node, owner, classes))
    }
    hold(
        "every public class, function and method has a docstring",
        (f"{key.replace(' ', f':{line} ')}" for key, line in silent.items() if key not in UNEXPLAINED),
        "say what it is for, its arguments with shapes and units, and what it raises; or give it a row in UNEXPLAINED",
    )
    hold("UNEXPLAINED lists only what needs it", UNEXPLAINED.keys() - silent.keys(), "take the row out of UNEXPLAINED")


def public(
    node: ast.Module | ast.ClassDef, prefix: str = ""
) -> Iterator[tuple[str, ast.ClassDef | Function, ast.ClassDef | None]]:
    """Name, definition and class of what is public in a module; nothing inside functions."""
    owner = node if isinstance(node, ast.ClassDef) else None
    for part in node.body:
        if isinstance(part, ast.ClassDef | Function) and not part.name.startswith("_"):
            yield prefix + part.name, part, owner
            if isinstance(part, ast.ClassDef):
                yield from public(part, f"{prefix}{part.name}.")


def plain(method: Function, owner: ast.ClassDef | None, classes: dict[str, ast.ClassDef]) -> bool:
    """Whether a function needs no docstring of its own."""
    if len(method.body) == 1:
        return True
    if owner is None:
        return False
    above = {*ancestors(owner, classes), *(name for name, node in classes.items() if "Protocol" in bases(node))}
    return any(
        isinstance(node, Function) and node.name == method.name and docstring(node) is not None
        for name in above - {owner.name}
        for node in classes[name].body
    )


def bases(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]


def ancestors(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> set[str]:
    """Names of the classes of ours that ``node`` derives from."""
    direct = [base for base in bases(node) if base in classes and base != node.name]
    return set(direct).union(*(ancestors(classes[base], classes) for base in direct))


# ---------------------------------------------------------------------------------- what stands in no file

FOREIGN = re.compile(r"(?<!\w)/(?:work|root)/")  # folders of somebody's own machine
GENERATED = {"__pycache__", "build", "dist", "node_modules"}


def text_files() -> Iterator[tuple[str, str]]:
    """Path and text of everything that is ours to write."""
    folders: Sequence[Path] = [REPO]
    while folders:
        inside = [path for folder in folders for path in sorted(folder.iterdir()) if not path.is_symlink()]
        for path in inside:
            if path.is_file():
                try:
                    yield path.relative_to(REPO).as_posix(), path.read_text(encoding="utf-8")
                except UnicodeDecodeError:  # a picture, an archive
                    continue
        ours = (path for path in inside if path.is_dir() and path.name not in GENERATED)
        folders = [path for path in ours if not path.name.endswith(".egg-info") and not path.name.startswith(".")]
        folders += [REPO / ".ci"] if inside and inside[0].parent == REPO else []


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    hold(
        "no file names a folder that only one machine has",
        (
            f"{path}:{number} {found.group()}"
            for path, text in text_files()
            for number, line in enumerate(text.splitlines(), start=1)
            if (found := FOREIGN.search(line))
        ),
        "speak of --models-dir or MESH_MODELS, of MESH_DATA, or of a path relative to the repository",
    )


def test_every_kind_of_file_is_read() -> None:
    read = {path for path, _ in text_files()}
    assert {"README.md", "pyproject.toml", ".ci/run", "mesh/pools/small.yaml", "tests/test_architecture.py"} <= read
    assert FOREIGN.search("cd " + "/".join(["", "work", "main"]))
