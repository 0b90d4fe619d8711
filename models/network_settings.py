"""How a network of the user's own is cut into layers. Nothing here needs torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .settings import Settings

Count = Annotated[int, Field(ge=1)]


class NetworkSettings(Settings):
    """The keys of a network that is named as module:function."""

    section: ClassVar[str] = "network"

    network_layers: Annotated[
        Count | list[Count] | None,
        Field(json_schema_extra={"expected": "a whole number of at least 1, a list of these such as [2, 1], or null"}),
    ] = None
    """A network of your own (`module:function`): into how many layers its blocks are joined, so that the largest has as
    little work as possible; or how many blocks each layer has; null: every block with weights is a layer."""

    network_bridge: Literal["auto", "linear", "hidden"] = "auto"
    """A network of your own: from what a layer returns to the codes: `linear`: means, then a linear layer; `hidden`: a
    hidden layer between them; `auto`: `linear` for tokens, else `hidden`."""
