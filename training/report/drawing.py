"""matplotlib, however the user has set it up: imported here first, and drawing with its own defaults.

Pictures go into files, which needs no backend. A notebook sets MPLBACKEND for itself, and each `!python ..` in it
inherits the name of a backend that may not be installed; settings files may be broken, or ask for a LaTeX that this
machine has not. None of that may end a run.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def _load() -> None:
    """Import matplotlib without asking for a backend; then give the user's choice back, for whatever else draws."""
    backend = os.environ.pop("MPLBACKEND", None)
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.CRITICAL)  # about settings that are not used here, and folders for caches
    try:
        matplotlib = _without_broken_settings()
    finally:
        log.setLevel(level)
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):  # it does not know that one
            matplotlib.rcParams["backend"] = backend


def _without_broken_settings() -> Any:
    """Import matplotlib; where it cannot read the user's settings, with its own."""
    try:
        return import_module("matplotlib")
    except (OSError, ValueError) as error:
        spec = find_spec("matplotlib")
        if spec is None or spec.origin is None:
            raise
        # It holds parts of itself that were loaded before it failed.
        for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
            del sys.modules[name]
        here = os.getcwd()
        # The first place where it looks for settings is the working folder.
        os.chdir(Path(spec.origin).parent / "mpl-data")
        try:
            matplotlib = import_module("matplotlib")
        except OSError:
            raise error from None
        finally:
            os.chdir(here)
        return matplotlib


if "matplotlib" not in sys.modules:
    _load()

# From here, so that whatever draws gets matplotlib loaded as above.
from matplotlib import colormaps as colormaps  # noqa: E402
from matplotlib import rc_context, rcParamsDefault  # noqa: E402
from matplotlib.axes import Axes as Axes  # noqa: E402
from matplotlib.colors import to_hex as to_hex  # noqa: E402
from matplotlib.colors import to_rgb as to_rgb  # noqa: E402
from matplotlib.figure import Figure as Figure  # noqa: E402
from matplotlib.lines import Line2D as Line2D  # noqa: E402
from matplotlib.patches import Patch as Patch  # noqa: E402
from matplotlib.ticker import MaxNLocator as MaxNLocator  # noqa: E402


@contextmanager
def plain_settings() -> Iterator[None]:
    """Draw with matplotlib's defaults inside the block, or the decorated function, whatever the user's settings are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old names among the settings
        defaults = {key: value for key, value in rcParamsDefault.items() if not key.startswith("backend")}
    with rc_context(defaults):
        yield
