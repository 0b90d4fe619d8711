"""Plug-ins: Python files or modules outside the packages, which register models, data sets and objectives.

They are imported before the rest of the command line is read, so that what they register is known everywhere: among
the names, among the keys of the configuration, in `--help` and in `--list`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from ..errors import UsageError
from .paths import user_path


def load_plugin(name: str) -> None:
    """Import a plug-in; see `import_named`."""
    import_named(name, "--plugin")


def import_named(name: str, option: str) -> ModuleType:
    """Import what a user names with `option`, once in a process, and return it.

    `name`: a path (see `is_path`), or a module's name. Raises `UsageError` where it cannot be imported, with the line
    that failed.
    """
    try:
        return _import_file(find_file(name, option), name, option) if is_path(name) else importlib.import_module(name)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # whatever it raises, it is the plug-in's mistake
        raise UsageError(f"{option} {name}: {_where(error, name)}{type(error).__name__}: {error}") from None


def is_path(name: str) -> bool:
    """Tell whether a name means a file (it ends in .py or has a separator), and not a module."""
    return name.endswith(".py") or os.sep in name or name.startswith(".")


def find_file(name: str, option: str) -> Path:
    """Return the Python file that a user names with `option`. Raises `UsageError` where there is none."""
    path = user_path(name)
    if not path.is_file():
        kind = "is not a file" if path.exists() else "there is no such file"
        raise UsageError(f"{option} {name}: {kind}; give a Python file or the name of a module")
    return path


def _import_file(path: Path, name: str, option: str) -> ModuleType:
    path = path.resolve()
    # The same file again is the same module, and another file of the same name is another.
    stem = path.stem.encode("ascii", "replace").decode()  # the name of a file need not be text
    key = f"{stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    if key in sys.modules:
        return sys.modules[key]
    spec = importlib.util.spec_from_file_location(key, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{option} {name}: is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module  # classes look up their module by name, for example when they are pickled
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[key]  # a second attempt must fail too
        raise
    return module


def _where(error: BaseException, name: str) -> str:
    """Return "line N: ", for the line of the plug-in that was at work when it failed, where there is one."""
    if isinstance(error, SyntaxError) and error.filename is not None and error.filename.endswith(Path(name).name):
        return f"line {error.lineno}: "
    module = name.rpartition(".")[2]
    ends = Path(name).name if name.endswith(".py") else f"{module}.py"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name == ends]
    return f"line {lines[-1]}: " if lines else ""
