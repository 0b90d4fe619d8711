"""A trained network from its kept weights, and what it says of a batch of inputs."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ALPackage import ALStack
from ALPackage.early_exit import EarlyExit
from ALPackage.errors import LayerError, PlacementError
from ALPackage.objectives.classification import ClassifierAL
from data.batches import Batches, Transform
from data.dataset import Inputs, Split
from data.text.unseen import Texts
from models import BPModel, registry

from ..checkpoints.tensors import load_tensors
from ..config.earlier import in_todays_keys, with_objectives
from ..config.load import method_title
from ..config.own_network import own_network
from ..config.schema import Config, schema
from ..errors import UsageError, reason
from ..runs.placement import set_layout
from ..runs.tasks import builder, samples_at_once, shape_from_json
from ..trainers.trainer import mixed_precision
from ..weights.info import KeptRun
from .choose import Kept
from .exits import Exit
from .own_network import check_network


class Reading(Protocol):
    """What reads inputs as those of a run's data set: `data.vision.unseen.Pictures` or `data.text.unseen.Texts`."""

    def read(self, inputs: Any, /) -> Inputs:
        """Return files or texts as a data set stores its inputs. Raises DataError."""

    def transform(self) -> Transform:
        """Return what turns a batch of these into the network's input."""


class Prediction(NamedTuple):
    """What a network says of a batch: probabilities float (B, C) on the CPU, and the depth of each, int64 (B,)."""

    probabilities: Tensor
    depth: Tensor


class Network:
    """A network that reads inputs and predicts their classes, as its run measured it.

    Args:
        kept: Its weights.
        depth: How many layers predict; None: all.
        leaving: When an input leaves before that; only without `depth`.
        device: Where they run; None: the first GPU, or else the CPU.

    Raises:
        UsageError: If a file is missing or broken, a plug-in is not loaded, a network of the user's is another one, or
            depth, thresholds or device do not fit.
    """

    def __init__(
        self, kept: Kept, *, depth: int | None = None, leaving: Exit | None = None, device: str | None = None
    ) -> None:
        self.run = kept.run
        self._config = _config(kept.run)
        self._unseen = _unseen(kept.run)
        self._transform = self._unseen.transform()
        shape = shape_from_json(kept.run.shape)
        #: What the user should know about the network.
        self.notes = check_network(kept.run, shape, self._config)
        self._model = _model(kept, builder(self._config, kept.run.model, shape)(kept.run.method))
        self.depth = self._depth(depth)
        self._exit = None if leaving is None else _early_exit(leaving, len(self._model))
        if device is None:
            device = "cuda:0" if torch.cuda.is_available() else "cpu"
        try:
            self._device = self._model.set_device([device] * len(self._model))[0]
        except PlacementError as error:
            raise UsageError(f"--device {device}: {error}") from None
        set_layout(self._model)
        self._model.eval()

    @property
    def batch_size(self) -> int:
        """How many inputs its run measured at once."""
        return samples_at_once(self._config)

    @property
    def depths(self) -> int:
        """How many there are."""
        return len(self._model)

    @torch.no_grad()
    def predict(self, inputs: Sequence[Any]) -> Prediction:
        """Return the prediction of a batch of files or texts. Raises DataError for one that cannot be read."""
        rows = len(inputs)
        split = Split(self._unseen.read(inputs), torch.zeros(rows, dtype=torch.int64), torch.arange(rows))
        found, depths = [], []
        with mixed_precision([self._device], self._config.precision):
            for x, _ in Batches(split, rows, self._transform, device=self._device):
                probabilities, depth = self._predict(x)
                found.append(probabilities.cpu())
                depths.append(depth.cpu())
        return Prediction(torch.cat(found), torch.cat(depths))

    def _predict(self, x: Any) -> tuple[Tensor, Tensor]:
        """Return the probabilities (B, C) and the depths (B,) of a batch."""
        if self._exit is not None and isinstance(self._model, ALStack):
            try:
                logits, depth = self._exit.predict(self._model, x)
            except (ValueError, LayerError) as error:  # a layer of the user's, whose rows cannot be told
                raise UsageError(f"--exit: {error}; leave it out") from None
            temperatures = logits.new_tensor(self._exit.temperature, dtype=torch.float32)[depth - 1]
            return torch.softmax(logits.float() / temperatures[:, None], dim=1), depth
        logits = self._model(x) if isinstance(self._model, BPModel) else self._model.inference(x, depth=self.depth)
        return self._probabilities(logits), torch.full((len(logits),), self.depth)

    def _probabilities(self, prediction: Tensor) -> Tensor:
        first = self._model[0] if isinstance(self._model, ALStack) else None
        if isinstance(first, ClassifierAL):
            return first.probabilities(prediction)
        return torch.softmax(prediction.float(), dim=1)

    def _depth(self, asked: int | None) -> int:
        whole = len(self._model)
        if asked is None or asked == whole:
            return whole
        if isinstance(self._model, BPModel):
            raise UsageError(
                f"--depth {asked}: BP trains all {whole} layers as one, which have one depth; leave it out"
            )
        if not 1 <= asked <= whole:
            raise UsageError(f"--depth {asked}: the network has {whole} layers; give a number from 1 to {whole}")
        return asked


def _config(run: KeptRun) -> Config:
    """Return the configuration of the run, without what was derived from its data. Raises UsageError."""
    _check_names(run)
    known = schema(run.task)
    saved = with_objectives(in_todays_keys(run.info["config"]), run.task, run.method)
    try:
        return known.model_validate({key: value for key, value in saved.items() if key in known.model_fields})
    except ValueError as error:
        problem = " ".join(str(error).split())[:200]
        raise UsageError(f"{run.place}: its configuration does not fit this program ({problem})") from None


def _check_names(run: KeptRun) -> None:
    """Raise UsageError where the run's model or method comes from a plug-in that is not loaded."""
    if run.info.get("network") is None and run.model not in registry.model_names(run.task):
        raise UsageError(f"model {run.model}: is not one of this program's; give the run's plug-in with --plugin FILE")
    if run.method not in registry.method_names():
        raise UsageError(
            f"method {run.method}: is not one of this program's; give the run's plug-in with --plugin FILE"
        )


def _unseen(run: KeptRun) -> Reading:
    """Return what reads inputs as those of the run's data set."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in run.inputs.items()
    }
    if run.task == "text":
        return Texts(**values)
    from data.vision.unseen import Pictures

    if values["channels"] not in (1, 3):
        raise UsageError(
            f"{run.place}: the network takes images of {values['channels']} channels, and pictures have 1 or 3"
        )
    return Pictures(**values)


def _early_exit(leaving: Exit, depths: int) -> EarlyExit:
    """Return when samples leave a stack of so many layers. Raises UsageError."""
    try:
        found = EarlyExit(leaving.thresholds, leaving.confidence, leaving.temperatures)
        found.thresholds(depths)
    except ValueError as error:
        raise UsageError(f"--exit: the thresholds in the results cannot be used ({error})") from None
    return found


def _model(kept: Kept, model: ALStack | BPModel) -> ALStack | BPModel:
    """Return the network with its weights. Raises UsageError."""
    run, file = kept.run, kept.folder / kept.turn.weights.name
    again = "put back the file of the run, or run the command again"
    try:
        states = load_tensors(file, kept.turn.weights.sha256)
    except FileNotFoundError:
        raise UsageError(f"{file}: is missing; {again}") from None
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({reason(error)})") from None
    except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UsageError(f"{file}: is broken ({str(error).partition(chr(10))[0]}); {again}") from None
    layers = dict(model.layers.items())
    problem = None
    if list(states) != list(layers):
        problem = f"it has the layers {', '.join(states)}, and this program's are {', '.join(layers)}"
    try:
        for name, layer in layers.items() if problem is None else ():
            layer.load_state_dict(states[name])
    except (RuntimeError, TypeError) as error:
        problem = f"layer {name}: {' '.join(str(error).split())[:200]}"
    if problem is not None:
        own = own_network(run.model)
        what = (
            f"{run.model} with {method_title(run.method)} in this program" if own is None else f"{own.typed} as it is"
        )
        raise UsageError(f"{file}: does not fit {what} ({problem})")
    return model


def top(probabilities: Sequence[float], classes: Sequence[str], count: int) -> list[tuple[str, float]]:
    """Return the most probable classes with their probabilities; of equals the first, as accuracy counts it."""
    ranked = sorted(range(len(classes)), key=lambda number: -probabilities[number])  # stable
    return [(classes[number], probabilities[number]) for number in ranked[:count]]
