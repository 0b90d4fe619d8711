"""What the results say of a network of the user's, and whether those that are there are of another one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from ALPackage.network import Network

from ..config.own_network import own_network
from ..config.spec import RunSpec
from ..report.output import json_path


def facts(model: str, network: Network | None) -> dict[str, Any] | None:
    """Return the function and the cut of a network of the user's, ready for JSON; None for a registered model."""
    own = own_network(model)
    if own is None or network is None:
        return None
    total = sum(network.flops.values()) or 1
    layers = {
        name: {"blocks": list(blocks), "work": network.flops[name] / total} for name, blocks in network.blocks.items()
    }
    return {"function": own.typed, "file": own.file(), "sha256": own.digest(), "layers": layers}


def note_another(specs: Iterable[RunSpec]) -> None:
    """Print a note for results of the same name that are of a function in another file: this run replaces them."""
    for spec in specs:
        if spec.network is None:
            continue
        path = json_path(spec.out, spec.dataset, spec.model, spec.method)
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            file = json.loads(path.read_text(encoding="utf-8"))["network"]["file"]
            if file != spec.network["file"]:
                print(f"note: {path} is of {spec.model} in {file}; this run replaces it: --out names another folder")
