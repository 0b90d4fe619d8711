"""Which function of a layer changes in place what is not its own, found on a copy of the layer and one batch.

An input belongs to the loader or to the layer below, and an output to the layer above: a bridge that starts with
`nn.ReLU(inplace=True)` would train the next layer on another tensor than the one that inference feeds it. Values are
compared, and not versions alone, because what is written through `.data` or NumPy leaves the version as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import Tensor, nn

from .base import AL
from .layer import LocalLayer
from .nested import memory, same_values, tensors, versions
from .objectives.headed import Headed

#: The functions that compute what a layer hands on; they may change their own results until they return them.
PRODUCERS = ("f", "g", "hidden")


class InPlaceChanges:
    """Watches the functions of one layer while it trains or infers, and keeps who has changed which tensors."""

    def __init__(self, layer: LocalLayer) -> None:
        self._layer = layer
        self._changed: list[tuple[str, list[Tensor]]] = []
        self._produced: list[Tensor] = []

    def finding(self, inputs: Any, handed_on: Any = None) -> str | None:
        """Return who has changed an input of the layer or what it hands on, in words; None if nobody has.

        `handed_on`: what the layer has returned; without it, if the layer failed, what f and g have returned.
        """
        given, outputs = _memory(inputs), _memory(self._produced if handed_on is None else handed_on)
        for name, tensors_changed in self._changed:
            touched = _memory(tensors_changed)
            if touched & given:
                return f"{name} changes the layer's input in place, but it belongs to the loader or to another layer"
            if touched & outputs and name not in PRODUCERS:
                return f"{name} changes the layer's output in place, but the next layer needs it unchanged"
        return None

    @contextmanager
    def watching(self) -> Iterator[InPlaceChanges]:
        """Watch within the `with` block; afterwards the layer is as it was."""
        undo: list[Callable[[], None]] = []
        try:
            for name, holder, attribute in _functions(self._layer):
                undo.append(self._watch(name, holder, attribute))
            yield self
        finally:
            for one in reversed(undo):
                one()

    def _watch(self, name: str, holder: nn.Module, attribute: str) -> Callable[[], None]:
        """Watch the function or the module `holder.attribute`; return what ends it."""
        function = getattr(holder, attribute)
        if isinstance(function, nn.Module):
            entered: list[_Given] = []
            hooks = [
                function.register_forward_pre_hook(
                    lambda _, *given: entered.append(_Given(given)), prepend=True, with_kwargs=True
                ),
                function.register_forward_hook(lambda *call: self._note(name, entered.pop(), call[-1])),
            ]

            def unhook() -> None:
                for hook in hooks:
                    hook.remove()

            return unhook

        @wraps(function)
        def watched(*arguments: Any, **options: Any) -> Any:
            given, result = _Given((arguments, options)), None
            try:
                result = function(*arguments, **options)
            finally:
                self._note(name, given, result)
            return result

        kept = vars(holder).get(attribute)
        vars(holder)[attribute] = watched

        def restore() -> None:
            if kept is None:
                del vars(holder)[attribute]
            else:
                vars(holder)[attribute] = kept

        return restore

    def _note(self, name: str, given: _Given, result: Any) -> None:
        if changed := given.changed():
            self._changed.append((name, changed))
        if name in PRODUCERS:
            self._produced += tensors(result)


class _Given:
    """The tensors that a function is called with, as they were then."""

    def __init__(self, arguments: Any) -> None:
        self._tensors = tensors(arguments)
        self._versions = versions(self._tensors)
        self._values = [one.detach().clone() for one in self._tensors]

    def changed(self) -> list[Tensor]:
        """Return those that have been changed since."""
        now = versions(self._tensors)
        if now != self._versions and len(now) == len(self._tensors):
            pairs = zip(self._tensors, self._versions, now, strict=True)
            return [one for one, before, after in pairs if before != after]
        return [one for one, before in zip(self._tensors, self._values, strict=True) if not same_values(one, before)]


def _functions(layer: LocalLayer) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield (name in a message, holder, attribute) of what is called with tensors that pass between layers.

    Methods as well as the modules behind them: a subclass may call either.
    """
    if not isinstance(layer, AL):
        yield from ((name, layer, name) for name in ("hidden", "readout", "decode"))
        if isinstance(layer, Headed):
            yield "f", layer, "f"
            yield from ((f"the head {name}", layer.heads, name) for name in layer.heads)
        return
    yield from (("f", layer.enc, name) for name in ("hidden", "f"))
    yield from (("b", layer.enc, name) for name in ("bridge", "b"))
    yield from (("the criterion of enc", layer.enc, name) for name in ("loss", "cri"))
    yield from (("g", layer.ae, name) for name in ("encode", "g"))
    yield from (("h", layer.ae, name) for name in ("decode", "h"))
    yield from (("the criterion of ae", layer.ae, name) for name in ("loss", "cri"))


def _memory(tree: Any) -> set[object]:
    return {place for leaf in tensors(tree) if (place := memory(leaf)) is not None}
