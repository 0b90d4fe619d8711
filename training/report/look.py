"""How methods are told apart in pictures and pages.

Colors are those of Okabe and Ito, which color-blind readers can tell apart; the methods differ in line style and in
marker as well.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

from models.registry import method_names


class Style(NamedTuple):
    """How a method is drawn."""

    color: str
    line: Literal["-", "--", "-.", ":"]
    marker: str


AL, BP = Style("#0072B2", "-", "o"), Style("#D55E00", "--", "s")
#: For further methods.
OTHERS = [
    Style("#009E73", "-.", "^"),
    Style("#CC79A7", ":", "v"),
    Style("#E69F00", "-.", "D"),
    Style("#56B4E9", ":", "<"),
    Style("#000000", "-.", ">"),
    Style("#882255", "-.", "p"),
    Style("#999999", ":", "D"),
]


def styles(methods: Collection[str]) -> dict[str, Style]:
    """Return how each method is drawn: the first that were registered always alike, the others as what is left allows.

    With more methods than styles, some have the same.
    """
    fixed = dict(zip(method_names(), (AL, BP, *OTHERS), strict=False))
    others = [method for method in methods if method not in fixed]
    free = [style for style in OTHERS if all(style != fixed.get(method) for method in methods)] or OTHERS
    return fixed | {method: free[number % len(free)] for number, method in enumerate(others)}


#: For the layers of a timeline, whose order says little; further layers start over.
LAYERS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442",
    "#882255", "#44AA99", "#999933", "#332288", "#661100",
)  # fmt: skip
