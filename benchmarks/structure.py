"""How the packages of a checkout hang together: files, imports between files, levels, circles.

    python -m benchmarks.structure [CHECKOUT ..]

Read from the sources, nothing is imported, so checkouts of any age can be set side by side. A level is one more than
the highest level that a file imports from its own package; a circle is a group of files each of which imports, by way
of others, itself. Imports inside functions and those for the type checker count: a reader has to know them too.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.storage.streams import exit_code

PACKAGES = ("ALPackage", "models", "data", "training")
ROOT = Path(__file__).resolve().parents[1]

Graph = dict[str, set[str]]


def read(checkout: Path) -> Graph:
    """Return which module imports which, over all packages, by dotted names."""
    files = {_name(file, checkout): file for package in PACKAGES for file in sorted((checkout / package).rglob("*.py"))}
    return {
        name: {target for target in _imports(file, name, set(files)) if target != name} for name, file in files.items()
    }


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups of modules that import one another in a circle, each sorted."""
    reach = {name: _reach(graph, name) for name in graph}
    groups = {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in graph}
    return [list(group) for group in sorted(groups) if group]


def levels(graph: Graph) -> int:
    """Return how many levels the modules stand on; those of a circle share one."""
    reach = {name: _reach(graph, name) for name in graph}
    height: dict[str, int] = {}

    def level(name: str) -> int:
        if name not in height:
            below = (other for other in reach[name] if name not in reach[other])
            height[name] = 1 + max((level(other) for other in below), default=0)
        return height[name]

    return max(map(level, graph), default=0)


def table(checkout: Path) -> str:
    """Return a line per package, as Markdown."""
    graph = read(checkout)
    lines = ["| package | files | imports between files | levels | circles |", "|---|---|---|---|---|"]
    for package in PACKAGES:
        own = {name for name in graph if name.split(".")[0] == package}
        inside = {name: graph[name] & own for name in own}
        found = circles(inside)
        named = f": {'; '.join(', '.join(group) for group in found)}" if found else ""
        count = sum(len(targets) for targets in inside.values())
        lines.append(f"| {package} | {len(own)} | {count} | {levels(inside)} | {len(found)}{named} |")
    return "\n".join(lines)


def _name(file: Path, checkout: Path) -> str:
    parts = file.relative_to(checkout).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(file: Path, name: str, modules: set[str]) -> Iterator[str]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from . import step` names a module, `from .step import Step` something in it
                whole = f"{source}.{alias.name}"
                yield from (
                    target
                    for target in (whole, source)
                    if target in modules and not (target == source and whole in modules)
                )


def _reach(graph: Graph, name: str) -> set[str]:
    seen: set[str] = set()
    ahead = list(graph[name])
    while ahead:
        other = ahead.pop()
        if other not in seen:
            seen.add(other)
            ahead += graph.get(other, ())
    return seen


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table per checkout."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.structure", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkouts", nargs="*", type=Path, default=[ROOT], metavar="CHECKOUT")
    for checkout in parser.parse_args(argv).checkouts:
        if not (checkout / "ALPackage").is_dir():
            print(
                f"error: {checkout}: is no checkout of this project; give the folder that holds ALPackage/",
                file=sys.stderr,
            )
            return 2
        print(f"{checkout.resolve().name}\n\n{table(checkout)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
