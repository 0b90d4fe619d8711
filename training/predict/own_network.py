"""A network of the user's own, from its kept weights: the run's function is found again, and has to be the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from models.registry import RegistryError

from ..config.own_network import named, own_network, register_as
from ..errors import UsageError
from ..weights.info import KeptRun

if TYPE_CHECKING:
    from models import ImageShape, TextShape

    from ..config.schema import Config


def find_network(run: KeptRun, text: str | None) -> None:
    """Make the network of a run known to the registry, if it is one of the user's; nothing is imported.

    `text`: the function that --network names; None: what the run's command named. Raises UsageError where there is no
    such file or module, and for --network with a model that is registered.
    """
    then = run.info.get("network")
    if then is None:
        if text is not None:
            raise UsageError(f"--network {text}: {run.model} is no network of your own; leave it out")
        return
    own = named(then["function"] if text is None else text)
    try:
        own.check()
    except UsageError as error:
        if text is not None:
            raise
        file = then["file"] or then["function"]
        raise UsageError(
            f"{error}; the run had it from {file}: go to the folder where the run began, or say with --network "
            f"FILE:{own.function} where it is now"
        ) from None
    register_as(run.model, own, run.task)


def check_network(run: KeptRun, shape: ImageShape | TextShape, config: Config) -> list[str]:
    """Return notes about a network of the user's, after its function has been called; none for another model.

    Raises UsageError for a function that is gone or fails, and where it is cut into other layers than in the run.
    """
    own, then = own_network(run.model), run.info.get("network")
    if own is None or then is None:
        return []
    try:
        network = own.read(shape, config)
    except RegistryError as error:
        raise UsageError(str(error)) from None
    before = {name: list(layer["blocks"]) for name, layer in then["layers"].items()}
    now = {name: list(blocks) for name, blocks in network.blocks.items()}
    if list(before.items()) != list(now.items()):
        raise UsageError(
            f"network {own.typed}: is cut into {_listed(now)}, and was cut into {_listed(before)} in the run; give the "
            "function back what it returned then, or run the command again"
        )
    if then["sha256"] in (None, own.digest()):
        return []
    return [f"{own.file()} is not as it was in the run (SHA-256); what it computes may be something else"]


def _listed(layers: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{name}: {', '.join(blocks)}" if [name] != blocks else name for name, blocks in layers.items())
