"""A network of the user's own as the command line's model: `package.module:function` or `path/to/file.py:function`.

Nothing here needs torch: the user's module, which does, is imported when a command runs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import registry
from models.network_settings import NetworkSettings

from ..errors import UsageError, closest
from .plugins import find_file, import_named, is_path
from .schema import Task

#: The longest name that files of results get as it is.
LONGEST = 100


def names_function(text: str) -> bool:
    """Tell whether a model's name means a function, or was meant to: a file, or with a colon."""
    return ":" in text or text.endswith(".py")


def register(text: str, task: Task) -> str:
    """Make a network known to the registry, and return the name under which it is known and its results are kept.

    Raises UsageError for a text that names no function, and where there is no such file or module.
    """
    own = named(text)
    own.check()
    name = own.name
    if name in registry.model_names("vision") + registry.model_names("text"):
        raise UsageError(f'"{text}": there is a registered model of the name {name}; rename the function')
    register_as(name, own, task)
    return name


def register_as(name: str, own: OwnNetwork, task: Task) -> None:
    """Make a network known to the registry by a name, such as that of a run from another folder."""
    registry.register_network(
        registry.ModelEntry(name=name, title=own.typed, task=task, settings=NetworkSettings, layers=None, build=own)
    )


def named(text: str) -> OwnNetwork:
    """Return the function that a text names, without looking for it. Raises UsageError for one that names none."""
    source, colon, function = text.rpartition(":")
    if not colon or not source or not function.isidentifier():
        file = source or text
        raise UsageError(
            f'"{text}" names no function: give a network as package.module:function or path/to/file.py:function, for '
            f"example {file if file.endswith('.py') else 'my_networks.py'}:build"
        )
    return OwnNetwork(text, source, function)


@dataclass(frozen=True)
class OwnNetwork:
    """A function that returns a network's blocks; as a builder it returns them as layers, with the head."""

    typed: str
    """As the user has named it."""
    source: str
    """The file or the module in which it is."""
    function: str

    @property
    def name(self) -> str:
        """What files of results call it: the module and the function with dots, made unique where they do not say all.

        A file below the current folder is called as its module would be.
        """
        unique, module = True, self.source
        if is_path(self.source):
            path = Path(self.source).expanduser().resolve()
            unique = path.is_relative_to(Path.cwd())
            module = ".".join((path.relative_to(Path.cwd()) if unique else Path(path.name)).with_suffix("").parts)
        name = f"{module}.{self.function}"
        safe = re.sub(r"[^A-Za-z0-9_.+-]", "_", name)[-LONGEST:].lstrip("._+-")
        if unique and safe == name:
            return safe
        of_all = str(path) if is_path(self.source) else name
        return f"{safe}-{hashlib.sha256(os.fsencode(of_all)).hexdigest()[:8]}"

    def check(self) -> None:
        """Raise UsageError where there is no such file or module; nothing is imported."""
        if is_path(self.source):
            find_file(self.source, "network")
            return
        top = self.source.partition(".")[0]
        _make_importable(os.getcwd())
        found = None
        with suppress(ImportError, ValueError):  # a module that is half there
            found = importlib.util.find_spec(top) if top.isidentifier() else None
        if found is None:
            raise self._no_module(top, [module.name for module in pkgutil.iter_modules()])

    def load(self) -> Callable[..., Any]:
        """Import the module, once in a process, and return the function. Raises UsageError."""
        _make_importable(
            str(find_file(self.source, "network").resolve().parent) if is_path(self.source) else os.getcwd()
        )
        self._check_parts()
        module = import_named(self.source, "network")
        try:
            function = getattr(module, self.function, None)
        except Exception as error:  # a module may make its functions when they are asked for
            raise UsageError(f"network {self.typed}: {type(error).__name__}: {error}") from None
        if function is None:
            known = [name for name, one in vars(module).items() if callable(one) and not name.startswith("_")]
            own = [name for name in known if getattr(vars(module)[name], "__module__", None) == module.__name__]
            close = closest(self.function, known)
            hint = f'did you mean "{close}"?' if close else f"it has {', '.join(own) or 'no function of its own'}"
            raise UsageError(f"network {self.typed}: there is no function {self.function} in {self.source}; {hint}")
        if not callable(function):
            raise UsageError(
                f"network {self.typed}: {self.function} is an object of type {type(function).__name__}; expected a "
                "function that returns blocks"
            )
        return function  # type: ignore[no-any-return]

    def file(self) -> str | None:
        """Return the path of the file with the function; None where it has none."""
        try:
            return inspect.getsourcefile(inspect.unwrap(self.load()))
        except TypeError:  # it was not written in Python
            return None

    def digest(self) -> str | None:
        """Return the SHA-256 of the file with the function; None where it has none."""
        try:
            return hashlib.sha256(Path(self.file() or "").read_bytes()).hexdigest()
        except OSError:  # it was not written in a file, or that is gone
            return None

    def __call__(self, shape: Any, settings: NetworkSettings) -> Any:
        """Return the blocks and the head for data of this shape, as `models.registry.ModelEntry.build` does."""
        from models.own_network import blocks_and_head

        return blocks_and_head(self.typed, self.load(), shape, settings)

    def read(self, shape: Any, config: NetworkSettings) -> Any:
        """Return how the network is cut, an `ALPackage.network.Network`. Raises `RegistryError`."""
        from models.own_network import cut

        return cut(self.typed, self.load(), shape, config)

    def _check_parts(self) -> None:
        """Raise UsageError for a package without the module that is named, with the nearest one that it has."""
        parts = [] if is_path(self.source) else self.source.split(".")
        for depth in range(1, len(parts)):
            package = import_named(".".join(parts[:depth]), "network")
            inside = [module.name for module in pkgutil.iter_modules(getattr(package, "__path__", []))]
            known = hasattr(package, "__path__") and importlib.util.find_spec(".".join(parts[: depth + 1]))
            if not known:
                raise self._no_module(parts[depth], inside, ".".join(parts[:depth]))

    def _no_module(self, name: str, known: list[str], package: str = "") -> UsageError:
        close = closest(name, known)
        hint = f'did you mean "{close}"?' if close else "modules are looked for in the current folder too"
        if package:
            return UsageError(f"network {self.typed}: there is no module {name} in {package}; {hint}")
        return UsageError(f"network {self.typed}: there is no module {name}; {hint}")


def own_network(model: str) -> OwnNetwork | None:
    """Return the network behind a model's name; None for a model of the registry's."""
    build = registry.model(model).build
    return build if isinstance(build, OwnNetwork) else None


def _make_importable(folder: str) -> None:
    """Let modules of a folder be imported, behind all others."""
    if folder not in sys.path:
        sys.path.append(folder)
