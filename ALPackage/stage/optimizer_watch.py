"""Finds out whether anyone but the run changes the optimizers' settings while the run is open.

In the pipeline several batches are under way while the caller holds a result. A rate that changes then, because of
`scheduler.step()` in the loop over `run`, would hold for some layers on one batch and for others on another, as timing
decides. So every schedule refuses it, also those in which no layer is at work meanwhile.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.utils._pytree import tree_leaves

from ..layer import LearningRate, LocalLayer
from ..nested import held_by
from ..optimized import OwnSettings, same_setting
from ..stack import ALStack

#: What schedulers change. An optimizer from elsewhere than torch may change any other entry of its groups by itself.
SCHEDULED = ("lr", "momentum", "betas", "weight_decay")


class OptimizerWatch:
    """Watches the optimizers of a stack through one run.

    Args:
        stack: The layers that train.
        alone: Whether no layer is at work while the caller holds a result. Then every change that shows is the
            caller's; else a change that a layer makes itself must be told from the caller's.
        own: The settings that a layer's own step changes, by layer.
    """

    def __init__(self, stack: ALStack, *, alone: bool, own: OwnSettings) -> None:
        self._alone = alone
        self._own = own
        self._layers = list(stack.items())
        self._holds_scheduler = {name for name, layer in self._layers if _steps_scheduler(layer)}
        #: The learning rates that the run has set last, by layer; before it sets any, those that it began with.
        self._rates = {name: _rates(layer) for name, layer in self._layers}
        self._sets_rates = False
        self._save()

    def _save(self) -> None:
        # The list itself: while `enc_opt` or `ae_opt` of an AL takes a step, the optimizer has another one.
        lists = [(name, layer, layer.optimizer, layer.optimizer.param_groups) for name, layer in self._layers]
        self._optimizers = [(*one, len(one[-1])) for one in lists]
        self._groups = [
            (name, group, dict(group), {key: one._version for key, one in group.items() if isinstance(one, Tensor)})
            for name, _, _, groups, _ in self._optimizers
            for group in groups
        ]

    def hand_over(self) -> None:
        """Take the settings as they are for right; call it before the caller gets a result, and only if `alone`."""
        self._save()

    def set_lr(self, name: str, layer: LocalLayer, lr: LearningRate) -> None:
        """Set the rate of a layer's next batch, on its worker's thread. Raises RuntimeError if another one was set."""
        self._sets_rates = True
        if not self._alone:
            self._check_rates(name, layer)
        layer.set_lr(lr)
        self._rates[name] = _rates(layer)

    def check(self) -> None:
        """Raise RuntimeError if a setting has changed that only the caller can have changed; for the caller's thread.

        It costs a comparison of dicts whose values are the same objects, per parameter group.
        """
        for name, layer, optimizer, groups, count in self._optimizers:
            if layer.optimizer is not optimizer:
                raise _changed(name, "it has another one now")
            if len(groups) != count:
                raise _changed(name, "it has another number of parameter groups now")
        for name, group, saved, versions in self._groups:
            try:
                differs = group != saved
            except RuntimeError:  # another tensor of several numbers, which has no truth value
                differs = True
            if differs or (versions and self._moved(saved, versions)):
                self._judge(name, group, saved, versions)

    def finish(self) -> None:
        """Do what `check` does at the end of a run, when no layer is at work."""
        self.check()
        for name, layer in self._layers if self._sets_rates and not self._alone else ():
            self._check_rates(name, layer)

    def _check_rates(self, name: str, layer: LocalLayer) -> None:
        if _rates(layer) != self._rates[name] and not self._changes_itself(name, layer, "lr"):
            raise _changed(name, "another learning rate than the run's was set")

    def _moved(self, saved: dict[str, Any], versions: dict[str, int]) -> bool:
        """Tell whether a setting that is a tensor was changed in place, but for rates that the run itself sets."""
        return any(
            saved[key]._version != version and not (key == "lr" and self._sets_rates and not self._alone)
            for key, version in versions.items()
        )

    def _judge(self, name: str, group: dict[str, Any], saved: dict[str, Any], versions: dict[str, int]) -> None:
        """Raise for the settings that differ, unless the run or the layer itself may have changed them."""
        layer = dict(self._layers)[name]
        told = []
        for key, value in saved.items():
            now: Any = group.get(key)
            same = same_setting(value, now) and (key not in versions or now._version == versions[key])
            by_run = not self._alone and key == "lr" and self._sets_rates
            if key == "params" or same or by_run or (not self._alone and self._changes_itself(name, layer, key)):
                continue
            # A tensor may have been changed in place: what it was is not known.
            told.append(key if isinstance(value, Tensor) else f"{key} from {value} to {now}")
        if told:
            raise _changed(name, ", ".join(told) + (f" in group {saved['name']!r}" if "name" in saved else ""))

    def _changes_itself(self, name: str, layer: LocalLayer, key: str) -> bool:
        """Tell whether the layer's own step may change a setting."""
        foreign = not type(layer.optimizer).__module__.startswith("torch.")
        scheduled = key in SCHEDULED
        return (
            key in self._own.get(name, ())
            or (foreign and not scheduled)
            or (scheduled and name in self._holds_scheduler)
        )


def _steps_scheduler(layer: LocalLayer) -> bool:
    """Tell whether the layer itself may step a scheduler: it holds one, or a hook after its optimizer's step does."""
    hooks = getattr(layer.optimizer, "_optimizer_step_post_hooks", {}).values()
    held = [list(vars(layer).values()), *map(held_by, hooks)]
    return any(isinstance(one, LRScheduler) for one in tree_leaves(held))


def _rates(layer: LocalLayer) -> list[Any]:
    """Return something that tells whether a learning rate has changed; one in a tensor may change in place."""
    rates = [group["lr"] for group in layer.optimizer.param_groups]
    return [(id(rate), rate._version) if type(rate) is Tensor else rate for rate in rates]


def _changed(name: str, what: str) -> RuntimeError:
    return RuntimeError(
        f"the optimizer of layer {name!r} was changed while a run is open ({what}), so timing would decide for which "
        "batch of which layer that holds; give every batch its rate with run(lr=..), or change the optimizer, as with "
        "scheduler.step(), between two runs"
    )
