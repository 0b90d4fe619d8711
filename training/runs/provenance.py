"""Where figures come from: versions, machine, and the commit of the source."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ALPackage.stage.threads import available_cores

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "torchvision", "torchtext", "numpy")


def collect(devices: Iterable[torch.device | str]) -> dict[str, Any]:
    """Return date, versions, platform, the names of `devices` and the git commit, ready for JSON.

    Whatever cannot be found out is None.
    """
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
        "cores": available_cores(),
        "device_names": {str(name): _device_name(torch.device(name)) for name in dict.fromkeys(map(str, devices))},
        "git_commit": (commit := _commit()),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")) if commit else None,
        "command": [_from_root(sys.argv[0]), *sys.argv[1:]],
    }


def versions() -> dict[str, str | None]:
    """Return the versions that figures depend on; None for a package that is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _from_root(script: str) -> str:
    """Return the script's path as seen from the repository; `python -m` makes it absolute."""
    path = Path(script)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else script


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str | None:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device) if torch.cuda.is_available() else None
    return _processor() if device.type == "cpu" else None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the portable name is shorter, but it exists
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit of the source, or None where it merely lies inside another repository."""
    top = _git("rev-parse", "--show-toplevel")
    return _git("rev-parse", "--verify", "HEAD") if top and Path(top).resolve() == ROOT else None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
