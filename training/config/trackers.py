"""The names that `--tracker` takes: "tensorboard", a module that can be imported, or a Python file.

A name is checked at once, without an import: some of these modules take seconds to load.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
from types import ModuleType

from ..errors import UsageError, closest
from .plugins import find_file, import_named, is_path

TENSORBOARD = "tensorboard"
#: What people have on their minds when they mistype a name, and what a package index has under that name.
KNOWN = (TENSORBOARD, "wandb", "trackio", "swanlab")
#: How the functions of a module are called, with examples of the arguments.
CALLS: dict[str, tuple[str, tuple[object, ...], dict[str, object]]] = {
    "init": ("init(project=, name=, config=)", (), {"project": "", "name": "", "config": {}}),
    "log": ("log(values, step=)", ({},), {"step": 1}),
    "finish": ("finish()", (), {}),
}


def check_tracker(name: str) -> None:
    """Raise UsageError for a name behind which nothing can be imported."""
    if is_path(name):
        find_file(name, "--tracker")
        return
    parts = name.split(".")
    spec = None
    if all(part.isidentifier() for part in parts):
        try:
            spec = importlib.util.find_spec(parts[0])  # of `a.b` too, which would import `a`
        except (ImportError, ValueError):  # a module that is half there
            spec = None
    if spec is None:
        raise UsageError(f"--tracker {name}: there is no module of that name{_instead(name)}")
    if spec.origin is None and spec.submodule_search_locations is not None:
        # wandb leaves a folder `wandb` in the working directory, and Python takes every folder for a package.
        folder = next(iter(spec.submodule_search_locations), name)
        raise UsageError(f"--tracker {name}: there is a folder of that name ({folder}), and no module{_instead(name)}")


def load_tracker(name: str) -> ModuleType:
    """Import a tracker's module. Raises UsageError where that fails, or where it lacks what a tracker needs."""
    module = import_named(name, "--tracker")
    try:
        found = {function: getattr(module, function, None) for function in CALLS}
    except Exception as error:  # a module may make its functions when they are asked for
        raise UsageError(f"--tracker {name}: {type(error).__name__}: {error}") from None
    missing = [CALLS[function][0] for function, value in found.items() if not callable(value)]
    if missing:
        raise UsageError(
            f"--tracker {name}: this module is not a tracker: it lacks {', '.join(missing)}; give tensorboard, "
            "wandb, or another module or Python file with these functions"
        )
    for function, (call, arguments, named) in CALLS.items():
        try:
            # What a decorator wraps may take other arguments than the function that is called.
            signature = inspect.signature(found[function], follow_wrapped=False)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            continue  # a function that is not written in Python may not tell
        try:
            signature.bind(*arguments, **named)
        except TypeError as error:
            raise UsageError(f"--tracker {name}: {function}{signature} cannot be called as {call}: {error}") from None
    return module


def _instead(name: str) -> str:
    """Return what to do about a module that is not there."""
    if name in KNOWN:
        return f"; pip install {name}"
    if os.path.isfile(f"{name}.py"):  # unlike Path.is_file, it takes every text
        return f'; did you mean "{name}.py"?'
    close = closest(name, KNOWN)
    return f'; did you mean "{close}"?' if close else "; install it, or give the path of a Python file"
