"""Imports go downwards only, and the command starts without the heavy libraries."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import stream_coord

PACKAGE = Path(stream_coord.__file__).parent

HOUSE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # floor: its modules and packages; the floors below that it may import
    "base": (("", "ahead", "errors", "interval", "clock", "bars", "files", "pace", "spool"), ()),
    "config": (
        ("config",),
        ("base",),
    ),
    "calendars": (("calendars",), ("base",)),
    "compute": (("compute",), ("base",)),
    # compute: the ledger keeps rows of quality
    "stores": (("stores",), ("base", "compute")),
    "sources": (("sources",), ("base", "config", "compute", "stores")),
    "session": (("session",), ("base", "calendars", "compute")),
    "upkeep": (
        ("upkeep",),
        ("base", "calendars", "compute", "stores", "sources", "session"),
    ),
    "strategy": (("strategy", "delivery", "stream"), ("base", "compute", "session", "upkeep")),
    "loading": (
        ("history", "loading", "planning"),
        ("base", "calendars", "compute", "stores", "session"),
    ),
    "coordinator": (
        ("moment", "monitor", "coordinator"),
        ("base", "calendars", "compute", "stores", "session", "upkeep", "strategy", "loading"),
    ),
    "demo": (("demo",), ("base", "calendars")),
    "jobs": (
        (
            "copying",
            "filling",
            "importing",
            "live",
            "opening",
            "rolling",
            "runs",
            "setup",
            "storing",
        ),
        (
            "base",
            "config",
            "calendars",
            "compute",
            "stores",
            "sources",
            "session",
            "upkeep",
            "strategy",
            "loading",
            "coordinator",
            "demo",
        ),
    ),
    "render": (
        ("render",),
        (
            "base",
            "calendars",
            "compute",
            "stores",
            "session",
            "upkeep",
            "loading",
            "coordinator",
            "jobs",
        ),
    ),
    "cli": (
        ("cli",),
        (
            "base",
            "config",
            "calendars",
            "compute",
            "stores",
            "sources",
            "strategy",
            "coordinator",
            "jobs",
            "render",
        ),
    ),
}
FLOOR_OF = {module: floor for floor, (modules, _) in HOUSE.items() for module in modules}

HEAVY = (
    "adbc_driver_manager",
    "deltalake",
    "numpy",
    "pandas",
    "pandas_market_calendars",
    "polars",
    "pyarrow",
    "sqlalchemy",
)


def module_name(path: Path) -> str:
    """Return a file's module name within the package; "" is the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(path: Path) -> Iterator[str]:
    """Yield our own modules that a file imports: at its top, in functions, for type checking."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.partition(".")[0] == PACKAGE.name:
                inside = name.partition(".")[2]
                # `from a.b import c` imports the module a.b.c, or a name of the module a.b
                yield inside if inside in MODULES else inside.rpartition(".")[0]


def floor_of(module: str) -> str:
    return FLOOR_OF[module.partition(".")[0]]


def test_every_module_has_its_floor() -> None:
    rooms = {module.partition(".")[0] for module in MODULES}
    assert sorted(rooms) == sorted(FLOOR_OF), "name new modules in HOUSE, and drop old ones"


def test_the_plan_of_the_house_points_downwards() -> None:
    floors = list(HOUSE)
    for number, (floor, (_, below)) in enumerate(HOUSE.items()):
        assert set(below) <= set(floors[:number]), floor


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_downwards_only(module: str) -> None:
    floor = floor_of(module)
    allowed = {floor, *HOUSE[floor][1]}
    upward = {name for name in imports_of(MODULES[module]) if floor_of(name) not in allowed}
    assert not upward, f"{module or PACKAGE.name} ({floor}) may import only {sorted(allowed)}"


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph = {module: set(imports_of(path)) - {module} for module, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def test_every_floor_uses_what_the_plan_lets_it_use() -> None:
    """A permission that nobody needs is one that somebody will take for an invitation."""
    used: dict[str, set[str]] = {floor: set() for floor in HOUSE}
    for module, path in MODULES.items():
        used[floor_of(module)] |= {floor_of(name) for name in imports_of(path)}
    unused = {floor: set(below) - used[floor] for floor, (_, below) in HOUSE.items()}
    assert {floor: names for floor, names in unused.items() if names} == {}


def loaded_by(*arguments: str) -> set[str]:
    """Return the top-level packages that are loaded when ``sc`` has run with `arguments`."""
    code = (
        "import json, sys\n"
        "from stream_coord.cli import main\n"
        f"sys.argv = ['sc', *{list(arguments)!r}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as leaving:\n"
        "    assert leaving.code == 0, leaving.code\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "sc" in done.stdout or "stream-coord" in done.stdout
    modules: list[str] = json.loads(done.stderr.splitlines()[-1])
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["init", "--help"],
        ["import", "--help"],
        ["fill-gaps", "--help"],
        ["replay", "--help"],
        ["report", "--help"],
        ["roll", "--help"],
        ["store", "--help"],
        ["store", "copy", "--help"],
    ],
    ids=" ".join,
)
def test_help_loads_no_heavy_library(arguments: list[str]) -> None:
    loaded = loaded_by(*arguments)
    assert loaded & {*HEAVY, "typer"} == {"typer"}


@pytest.mark.parametrize(
    "module",
    sorted(module for module in MODULES if floor_of(module) not in {"cli", "render"}),
)
def test_heavy_libraries_are_imported_where_they_are_used(module: str) -> None:
    """At the top of a module numpy alone is allowed."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    assert not {name.partition(".")[0] for name in names} & set(HEAVY) - {"numpy"}
