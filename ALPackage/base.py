"""One Associated Learning layer: four functions, two local losses, one optimizer.

    x_{i-1} --f--> x_i            f: the network's own layer        g: encoder of the target
                    |b            b: bridge                         h: decoder of the target
    y_{i-1} --g--> y_i --h--> y'  associated loss   L(b(f(x)), stop(g(y)))
                                  auto-encoder loss L(h(g(y)), y)

The outputs x_i and y_i are detached, so no gradient crosses a layer: a layer can run its backward pass and
its update while the next one runs forward. (Kao & Chen, Neural Computation 33(1), 2021, section 3;
Wu, Lin, Chen & Chen, ICLR 2022.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import MappingProxyType
from typing import Any, SupportsFloat, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .busy import refuse_if_busy
from .errors import LayerError, UnfitLayersError
from .layer import Criterion, LearningRate, LocalLayer
from .nested import detach, memory, tensors, to_device, versions
from .rates import checked_rates

# `torch` and `nn` too: files written for the earlier public code get them from `from ALPackage.base import *`.
__all__ = ["AE", "AL", "ENC", "nn", "torch"]


#: Criteria of torch that are means over rows, unless they are told otherwise.
MEANS = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.CrossEntropyLoss, nn.BCELoss, nn.BCEWithLogitsLoss)


class Kept:
    """Tensors that a layer is about to hand on, which what computes its losses must therefore leave as they are."""

    def __init__(self, *trees: Any) -> None:
        self._tensors = [] if torch.compiler.is_compiling() else tensors(trees)
        self._versions = versions(self._tensors)

    def check(self, who: str) -> None:
        """Raise LayerError if one of them has been changed in place meanwhile; `who` may have done it."""
        if versions(self._tensors) != self._versions:
            raise LayerError(
                f"{who} changes in place what f or g has returned, but the next layer needs it unchanged; use "
                "operations that are not in place, such as nn.ReLU(inplace=False)"
            )


class ENC(nn.Module):
    """The input side of a layer: `f`, then the bridge `b`.

    Training and inference both call `hidden` and `bridge`, so a subclass that computes something else overrides these.
    A subclass that overrides `forward` alone trains with it and infers without it; schedules refuse that before
    training (see `ALPackage.preflight`).

    Args:
        f: The network's own layer; it may take and return any nested structure of tensors.
        b: The bridge: takes what `f` returns, and returns what `cri` compares with the code g(y).
        cri: Called with (b(f(x)), g(y)); returns the associated loss, 0-d. Mean squared error by default.

    Example:
        >>> class Residual(ENC):
        ...     def hidden(self, x):
        ...         return x + self.f(x)
        >>> enc = Residual(f=nn.Linear(4, 4), b=nn.Linear(4, 2))
        >>> loss, hidden = enc(torch.randn(5, 4), torch.randn(5, 2))
        >>> loss.shape, hidden.shape
        (torch.Size([]), torch.Size([5, 4]))
    """

    def __init__(self, f: nn.Module, b: nn.Module, cri: Criterion | None = None) -> None:
        super().__init__()
        _refuse_uncallable("ENC", f=f, b=b, cri=cri)
        self.f = f
        self.b = b
        self.cri: Criterion = nn.MSELoss() if cri is None else cri

    def hidden(self, x: Any) -> Any:
        """Return f(x)."""
        return self.f(x)

    def bridge(self, hidden: Any) -> Any:
        """Return b(hidden), in the space of the code."""
        return self.b(hidden)

    def forward(self, x: Any, code: Any) -> tuple[Tensor, Any]:
        """Return (associated loss, f(x)), neither of them detached; the caller has detached `code`, g(y)."""
        hidden = self.hidden(x)
        kept = Kept(hidden, code)
        loss = self.loss(self.bridge(hidden), code)
        kept.check("b or the criterion of enc")
        return loss, hidden

    def loss(self, bridged: Any, code: Any) -> Tensor:
        """Return the associated loss of b(f(x)) against g(y), 0-d."""
        return self.cri(bridged, code)


class AE(nn.Module):
    """The target side of a layer: the encoder `g` and the decoder `h`.

    Training calls `encode` and `decode`, inference `decode`; a subclass that computes something else overrides these.

    Args:
        g: The encoder of the target; its output is the code, which the next layer takes as its target.
        h: The decoder, from the code back to the target.
        cri: Called with (h(g(y)), y); returns the auto-encoder loss, 0-d. Mean squared error by default.

    Example:
        >>> ae = AE(g=nn.Linear(3, 2), h=nn.Linear(2, 3))
        >>> loss, code = ae(torch.randn(5, 3))
        >>> loss.shape, code.shape
        (torch.Size([]), torch.Size([5, 2]))
    """

    def __init__(self, g: nn.Module, h: nn.Module, cri: Criterion | None = None) -> None:
        super().__init__()
        _refuse_uncallable("AE", g=g, h=h, cri=cri)
        self.g = g
        self.h = h
        self.cri: Criterion = nn.MSELoss() if cri is None else cri

    def encode(self, y: Any) -> Any:
        """Return the code g(y)."""
        return self.g(y)

    def decode(self, code: Any) -> Any:
        """Return h(code), in the space of y."""
        return self.h(code)

    def forward(self, y: Any) -> tuple[Tensor, Any]:
        """Return (auto-encoder loss, g(y)), neither of them detached."""
        code = self.encode(y)
        kept = Kept(code)
        loss = self.loss(self.decode(code), y)
        kept.check("h or the criterion of ae")
        return loss, code

    def loss(self, decoded: Any, y: Any) -> Tensor:
        """Return the auto-encoder loss of h(g(y)) against y, 0-d."""
        return self.cri(decoded, y)


class AL(LocalLayer):
    """An Associated Learning layer with its own optimizer.

    Args:
        enc: The input side, f and b.
        ae: The target side, g and h.
        lr: A number, or {"enc": number, "ae": number}.
        optimizer: Called with two parameter groups, named "enc" and "ae"; Adam by default.

    Raises:
        ValueError: For a learning rate that is not a finite number >= 0, or if there is no parameter to train.

    Subclasses in the protocol of the earlier public code may override `forward`, `backward`, `update` and `loss`;
    the schedules call only public methods.

    Example:
        >>> layer = AL(ENC(nn.Linear(4, 8), nn.Linear(8, 2)), AE(nn.Linear(3, 2), nn.Linear(2, 3)), lr=1e-3)
        >>> x, y = layer(torch.randn(5, 4), torch.randn(5, 3))
        >>> layer.backward_and_update()
        >>> x.shape, y.shape, sorted(layer.losses())
        (torch.Size([5, 8]), torch.Size([5, 2]), ['ae', 'assoc'])
    """

    loss_names = ("assoc", "ae")
    rate_names = ("enc", "ae")
    loss_titles = MappingProxyType({"assoc": "associated loss", "ae": "auto-encoder loss"})

    def __init__(
        self,
        enc: ENC,
        ae: AE,
        lr: LearningRate = 1e-3,
        optimizer: Callable[..., Optimizer] = torch.optim.Adam,
    ) -> None:
        super().__init__()
        for name, side, other in (("enc", enc, AE), ("ae", ae, ENC)):
            if not isinstance(side, nn.Module) or isinstance(side, other):
                kind = type(side).__name__
                raise TypeError(f"AL: got an object of type {kind} as {name}; expected AL(ENC(f, b), AE(g, h))")
        if not callable(optimizer):
            kind = type(optimizer).__name__
            raise TypeError(
                f"AL: got an object of type {kind} as optimizer; give what makes one from parameter groups, such as "
                "torch.optim.AdamW or lambda groups: torch.optim.SGD(groups, momentum=0.9)"
            )
        self.enc = enc
        self.ae = ae
        refuse_common_parameters(enc, ae)
        rates = checked_rates("AL", lr, ["enc", "ae"])
        groups = []
        for name, side in (("enc", enc), ("ae", ae)):
            rate = rates.get(name, rates.get(None))
            if rate is None:
                raise ValueError(f'AL: got no learning rate for {name}; give one number, or both "enc" and "ae"')
            groups.append({"params": [p for p in side.parameters() if p.requires_grad], "lr": rate, "name": name})
        if not any(group["params"] for group in groups):
            raise ValueError("AL: none of f, b, g, h has a parameter to train; give at least one of them weights")
        self.optimizer = optimizer(groups)

    @property
    def unchanged(self) -> bool:
        """Whether the losses are those that this file computes from what the criteria compare."""
        own = type(self).compute is AL.compute and type(self).forward is LocalLayer.forward
        sides: tuple[tuple[Any, Any], ...] = ((type(self.enc), ENC), (type(self.ae), AE))
        return own and all(side.forward is kind.forward and side.loss is kind.loss for side, kind in sides)

    @property
    def row_separable(self) -> bool:  # type: ignore[override]
        """Whether both criteria are means over rows: torch's own, or such that say so in their `row_separable`.

        What mixes the rows within f, g, b or h cannot be seen here.
        """
        return self.unchanged and means_over_rows(self.enc.cri) and means_over_rows(self.ae.cri)

    def compute(self, x: Any, y: Any) -> tuple[Any, Any, dict[str, Tensor]]:
        """Return (f(x), g(y), {"assoc": .., "ae": ..}) of one batch."""
        autoencoder, code = self.ae(y)
        associated, hidden = self.enc(x, detach(code))
        if torch.is_grad_enabled():
            self._require_graph(associated, self.enc, "associated loss", "f and b")
            self._require_graph(autoencoder, self.ae, "auto-encoder loss", "g and h")
        return hidden, code, {"assoc": associated, "ae": autoencoder}

    @staticmethod
    def _require_graph(loss: Tensor, side: ENC | AE, title: str, functions: str) -> None:
        """Raise LayerError if a loss cannot train its side, whose weights would keep their values for ever."""
        if not loss.requires_grad and any(parameter.requires_grad for parameter in side.parameters()):
            raise LayerError(
                f"AL: the {title} has no graph, so {functions} would never train; compute it without torch.no_grad(), "
                ".detach(), .item() and .argmax()"
            )

    def loss(self) -> tuple[Tensor, ...]:
        """Return (associated, auto-encoder) loss of the last batch: detached 0-d tensors, NaN before any batch.

        A subclass that overrides `forward` and keeps its own losses overrides this too, to report them.
        """
        return tuple(super().losses().values())

    def losses(self) -> dict[str, Tensor]:
        """Return what `loss` returns, detached and by name."""
        if type(self).loss is AL.loss:
            return super().losses()
        # Only what a subclass keeps may have a graph: an operation that is not needed would cost a thread switch.
        losses = (loss.detach() if loss.requires_grad else loss for loss in self.loss())
        return dict(zip(self.loss_names, losses, strict=True))

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return f, b and h as the modules behind "hidden", "readout" and "decode"."""
        return {"hidden": [self.enc.f], "readout": [self.enc.b], "decode": [self.ae.h]}

    @torch.no_grad()
    def inference(self, x: Any, path: str) -> Any:
        """Apply one function to `x` on the layer's device, without gradients: `path` is 'f', 'b' or 'h'.

        Full inference is f of every layer, b of the last, h of every layer in reverse.
        Raises ValueError for any other path.
        """
        refuse_if_busy(self, f"{type(self).__name__}.inference")
        functions = {"f": self.enc.hidden, "b": self.enc.bridge, "h": self.ae.decode}
        if path not in functions:
            raise ValueError(f"AL.inference: got path={path!r}; expected 'f', 'b' or 'h'")
        return functions[path](to_device(x, self.device))

    # These call `inference`, so that a subclass that overrides it decides what is predicted.
    def hidden(self, x: Any) -> Any:
        """Return f(x), without gradients."""
        return self.inference(x, "f")

    def readout(self, hidden: Any) -> Any:
        """Return b(hidden), without gradients."""
        return self.inference(hidden, "b")

    def decode(self, code: Any) -> Any:
        """Return h(code), without gradients."""
        return self.inference(code, "h")

    def set_lr(self, lr: LearningRate | Sequence[str], rate: SupportsFloat | None = None) -> None:
        """Set the learning rate: `set_lr(rate)`, `set_lr({"enc": rate})`, or `set_lr(["enc", "ae"], rate)`."""
        if rate is None:
            super().set_lr(cast(LearningRate, lr))
        else:
            super().set_lr(dict.fromkeys([lr] if isinstance(lr, str) else cast("Sequence[str]", lr), rate))

    # The rest belongs to the protocol of the earlier public code, whose files run unchanged.

    @property
    def enc_opt(self) -> GroupOptimizer:
        """The part of the layer's optimizer that updates f and b."""
        return GroupOptimizer(self.optimizer, "enc")

    @property
    def ae_opt(self) -> GroupOptimizer:
        """The part of the layer's optimizer that updates g and h."""
        return GroupOptimizer(self.optimizer, "ae")

    def record_backward_and_update(self) -> None:
        """Run `backward` and `update`, each inside a span of torch.profiler of that name."""
        with torch.profiler.record_function("backward"):
            self.backward()
        with torch.profiler.record_function("update"):
            self.update()

    def getParam(self) -> dict[str, int]:  # noqa: N802 (the name in the earlier public code)
        """Return the number of parameters of f, b, g and h."""
        functions = {"f": self.enc.f, "b": self.enc.b, "g": self.ae.g, "h": self.ae.h}
        return {name: _count(function.parameters()) for name, function in functions.items()}


class GroupOptimizer:
    """A view of one named parameter group of an optimizer, used like an optimizer of its own.

    One Adam with two groups computes what two Adams compute, so a layer needs only one.
    """

    def __init__(self, optimizer: Optimizer, name: str) -> None:
        self._optimizer = optimizer
        self._name = name

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The group itself, not a copy: a learning rate written here takes effect."""
        groups = [group for group in self._optimizer.param_groups if group.get("name") == self._name]
        if not groups:
            raise ValueError(
                f"AL.{self._name}_opt: the layer's optimizer has no parameter group named {self._name!r}; keep the two "
                "groups that `optimizer` is called with"
            )
        return groups

    def step(self) -> None:
        """Take an optimizer step on the group's parameters alone."""
        all_groups = self._optimizer.param_groups
        self._optimizer.param_groups = self.param_groups
        try:
            self._optimizer.step()
        finally:
            self._optimizer.param_groups = all_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the group's parameters."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad.detach_().zero_()


def refuse_common_parameters(enc: ENC, ae: AE) -> None:
    """Raise UnfitLayersError if one weight is on both sides: each would train it on its own loss, at its own rate."""
    of_enc = {key: path for path, parameter in enc.named_parameters() for key in _identities(parameter)}
    for path, parameter in ae.named_parameters():
        for key in _identities(parameter):
            if key in of_enc:
                raise UnfitLayersError(
                    f"AL: enc.{of_enc[key]} and ae.{path} are one weight, which both losses would train, each at its "
                    "own learning rate; give each its own, for example with copy.deepcopy"
                )


def means_over_rows(criterion: Criterion) -> bool:
    """Tell whether a criterion is a mean over the rows of a batch: one of torch's, or one that says so."""
    if type(criterion) not in MEANS:
        return getattr(criterion, "row_separable", False) is True
    # Otherwise it is a mean over the weights of the rows' classes, or over the rows that are not ignored.
    whole = getattr(criterion, "weight", None) is None and getattr(criterion, "ignore_index", -100) < 0
    return whole and getattr(criterion, "reduction", None) == "mean"


def _identities(parameter: nn.Parameter) -> list[object]:
    """Return what tells whether two parameters are one: the object, and where its values lie."""
    place = memory(parameter)
    return [id(parameter)] + ([] if place is None else [(place, parameter.storage_offset())])


def _refuse_uncallable(who: str, **functions: Any) -> None:
    """Raise TypeError for a class in the place of an object of it, and for what cannot be called."""
    for name, function in functions.items():
        if isinstance(function, type):
            raise TypeError(f"{who}: {name} is the class {function.__name__}; make a module of it, with ()")
        if function is not None and not callable(function):
            raise TypeError(f"{who}: {name} is of type {type(function).__name__}, which cannot be called")


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
