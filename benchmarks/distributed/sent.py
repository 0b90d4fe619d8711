"""What a batch sends, for the tables."""

from __future__ import annotations

from typing import Any


def megabytes(run: dict[str, Any]) -> str:
    """Return what all processes of a run together send per batch, in MB, as counted from the tensors' sizes."""
    return f"{sum(run['sent'].values()) / 1e6:.2f}" if "sent" in run else ""
