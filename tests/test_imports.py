"""Imports run one way, read from the sources: between packages, between the levels of the library, and no circles."""

from __future__ import annotations

import ast
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SINGLE_FILES = {"cvmain": "entry points", "nlpmain": "entry points", "utils": "utils"}
#: What each may import besides itself. Benchmarks measure everything, and nothing but tests imports them.
MAY_IMPORT: dict[str, set[str]] = {
    "ALPackage": set(),
    "models": {"ALPackage"},
    "data": {"ALPackage"},
    "utils": {"ALPackage"},
    "training": {"ALPackage", "models", "data", "utils"},
    "entry points": {"ALPackage", "models", "data", "training", "utils"},
    "benchmarks": {"ALPackage", "models", "data", "training", "utils", "entry points"},
}
#: The library from the bottom up: a module, or a whole folder, imports from those before it.
LEVELS = (
    *(
        "_moved",
        "errors",
        "busy",
        "given",
        "nested",
        "flops",
        "rows",
        "optimized",
        "randomness",
        "nan_guard",
        "rates",
        "layer",
        "base",
        "bridges",
        "objectives",
    ),
    *(
        "devices",
        "loading",
        "stack",
        "exits",
        "early_exit",
        "draws",
        "in_place",
        "idle",
        "preflight",
        "stage",
        "placement",
        "heads",
        "traced",
        "pieces",
        "network",
        "convert",
        "ranks",
        "schedules",
        "testing",
        "__init__",
    ),
)


def sources() -> list[Path]:
    """Return every source file but tests, relative to the root."""
    folders = [folder for folder in MAY_IMPORT if (ROOT / folder).is_dir()]
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in [*found, *(ROOT / f"{name}.py" for name in SINGLE_FILES)])


def package_of(path: Path) -> str:
    return SINGLE_FILES[path.stem] if len(path.parts) == 1 else path.parts[0]


@cache
def imports(path: Path) -> frozenset[Path]:
    """Return the files of the project that a file imports, anywhere in it: late and type-only imports count too."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {file for name in node.names if (file := file_of(name.name.split(".")))}
        elif isinstance(node, ast.ImportFrom):
            module = node.module.split(".") if node.module else []
            if node.level:
                module = [*path.parent.parts[: len(path.parent.parts) - node.level + 1], *module]
            for name in node.names:
                if file := file_of([*module, name.name]) or file_of(module):
                    found.add(file)
    return frozenset(found - {path})


def file_of(module: list[str]) -> Path | None:
    """Return the file of a module of the project, None for one that is not its own."""
    base = Path(*module)
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if module and (ROOT / path).is_file() and (path.parts[0] in MAY_IMPORT or module[0] in SINGLE_FILES):
            return path
    return None


def test_the_sources_are_found_and_read() -> None:
    assert len(sources()) > 80
    step = imports(Path("ALPackage/stage/step.py"))
    assert {Path("ALPackage/layer.py"), Path("ALPackage/randomness.py")} <= step
    assert Path("ALPackage/__init__.py") in imports(Path("models/assemble.py"))
    assert Path("ALPackage/base.py") in imports(Path("ALPackage/__init__.py"))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_is_below_it(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    wrong = [
        f"{path} imports {other}"
        for path in sources()
        if package_of(path) == package
        for other in sorted(imports(path))
        if package_of(other) not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_no_circles(package: str) -> None:
    graph = {path: imports(path) for path in sources() if package_of(path) == package}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(map(str, error.args[1])))


def test_the_library_imports_only_from_lower_levels() -> None:
    def level(path: Path) -> int:
        return LEVELS.index(path.parts[1].removesuffix(".py"))

    library = [path for path in sources() if package_of(path) == "ALPackage"]
    unknown = {path.parts[1].removesuffix(".py") for path in library} - set(LEVELS)
    assert not unknown, f"give {unknown} a place in LEVELS, and in CONTRIBUTING.md"
    wrong = [
        f"{path} imports {other}"
        for path in library
        for other in sorted(imports(path))
        if level(other) > level(path) or (level(other) == level(path) and len(path.parts) == 2)
    ]
    assert wrong == []


def test_the_library_needs_torch_alone() -> None:
    allowed = {"torch", "ALPackage", *sys.stdlib_module_names}
    wrong = []
    for path in sources():
        if package_of(path) != "ALPackage":
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module or "")
            wrong += [f"{path}: {name}" for name in names if name.split(".")[0] not in allowed]
    assert wrong == []
