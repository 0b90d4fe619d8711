"""The local objectives by the names that commands and `to_al` take."""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from .associated import Associated
from .contrastive import SupervisedContrastive
from .deinfo import InformationRegularization
from .infopro import InformationPropagation
from .local_classifier import LocalClassifier
from .part import Objective
from .predsim import PredictionAndSimilarity

#: Each is a dataclass of the objective's settings.
OBJECTIVES: dict[str, type[Any]] = {
    "al": Associated,
    "ce": LocalClassifier,
    "scl": SupervisedContrastive,
    "predsim": PredictionAndSimilarity,
    "deinfo": InformationRegularization,
    "infopro": InformationPropagation,
}


def settings_of(name: str) -> list[str]:
    """Return the names of an objective's settings."""
    return [field.name for field in fields(OBJECTIVES[name])]


def make_objective(name: str, **settings: Any) -> Objective:
    """Return an objective with its settings.

    Raises ValueError for an unknown name, and TypeError for an unknown setting.
    """
    if name not in OBJECTIVES:
        close = get_close_matches(str(name).lower(), OBJECTIVES, n=1)
        told = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(OBJECTIVES)}"
        raise ValueError(f"objective: got {name!r}; {told}")
    known = settings_of(name)
    if unknown := [key for key in settings if key not in known]:
        raise TypeError(f"{unknown[0]!r} is no setting; {name!r} has {', '.join(known)}")
    made: Objective = OBJECTIVES[name](**settings)
    return made
