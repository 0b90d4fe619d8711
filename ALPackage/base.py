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

from .layer import Criterion, LearningRate, LocalLayer, checked_rates
from .nested import detach, to_device

# `torch` and `nn` too: files written for the earlier public code count on `from ALPackage.base import *` for them.
__all__ = ["AE", "AL", "ENC", "nn", "torch"]


class ENC(nn.Module):
    """The input side of a layer: `f`, then the bridge `b`.

    `cri(b(f(x)), g(y))` is the associated loss, a 0-d tensor; MSE by default. `f` may take and return any nested
    structure; `b` takes what `f` returns. A subclass may replace `forward` whole; it then replaces `hidden` and
    `bridge` as well where inference is to follow, because these two are what both training and inference call.
    """

    def __init__(self, f: nn.Module, b: nn.Module, cri: Criterion | None = None) -> None:
        super().__init__()
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
        return self.loss(self.bridge(hidden), code), hidden

    def loss(self, bridged: Any, code: Any) -> Tensor:
        """Return the associated loss of b(f(x)) against g(y), 0-d."""
        return self.cri(bridged, code)


class AE(nn.Module):
    """The target side of a layer: the encoder `g` and the decoder `h`.

    `cri(h(g(y)), y)` is the auto-encoder loss, a 0-d tensor; MSE by default.
    """

    def __init__(self, g: nn.Module, h: nn.Module, cri: Criterion | None = None) -> None:
        super().__init__()
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
        return self.loss(self.decode(code), y), code

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
        ValueError: A learning rate that is no finite number >= 0, or no parameter to train.

    Subclasses in the protocol of the earlier public code may replace `forward`, `backward`, `update` and `loss`;
    the schedules call nothing but the public methods.

    Example:
        >>> layer = AL(ENC(nn.Linear(4, 8), nn.Linear(8, 2)), AE(nn.Linear(3, 2), nn.Linear(2, 3)), lr=1e-3)
        >>> x, y = layer(torch.randn(5, 4), torch.randn(5, 3))
        >>> layer.backward_and_update()
        >>> x.shape, y.shape, sorted(layer.losses())
        (torch.Size([5, 8]), torch.Size([5, 2]), ['ae', 'assoc'])
    """

    loss_names = ("assoc", "ae")
    loss_titles = MappingProxyType({"assoc": "associated loss", "ae": "auto-encoder loss"})

    def __init__(
        self,
        enc: ENC,
        ae: AE,
        lr: LearningRate = 1e-3,
        optimizer: Callable[..., Optimizer] = torch.optim.Adam,
    ) -> None:
        super().__init__()
        self.enc = enc
        self.ae = ae
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

    def compute(self, x: Any, y: Any) -> tuple[Any, Any, dict[str, Tensor]]:
        """Return (f(x), g(y), {"assoc": .., "ae": ..}) of one batch."""
        autoencoder, code = self.ae(y)
        associated, hidden = self.enc(x, detach(code))
        return hidden, code, {"assoc": associated, "ae": autoencoder}

    def loss(self) -> tuple[Tensor, ...]:
        """Return (associated, auto-encoder) loss of the last batch: detached 0-d tensors, NaN before any.

        A subclass that replaces `forward` and keeps its losses elsewhere replaces this too, to report them.
        """
        return tuple(super().losses().values())

    def losses(self) -> dict[str, Tensor]:
        """Return the losses of the last batch by name, as `loss` gives them: detached 0-d tensors."""
        return {name: loss.detach() for name, loss in zip(self.loss_names, self.loss(), strict=True)}

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return f, b and h as the modules behind "hidden", "readout" and "decode"."""
        return {"hidden": [self.enc.f], "readout": [self.enc.b], "decode": [self.ae.h]}

    @torch.no_grad()
    def inference(self, x: Any, path: str) -> Any:
        """Apply one function to `x` on the layer's device, without gradients: `path` is 'f', 'b' or 'h'.

        Full inference is f of every layer, b of the last, h of every layer in reverse.
        Raises ValueError for another path.
        """
        functions = {"f": self.enc.hidden, "b": self.enc.bridge, "h": self.ae.decode}
        if path not in functions:
            raise ValueError(f"AL.inference: got path={path!r}; expected 'f', 'b' or 'h'")
        return functions[path](to_device(x, self.device))

    # By way of `inference`, so that a subclass that replaces it decides what is predicted.
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

    # The rest is the protocol of the earlier public code, whose files run unchanged.

    @property
    def enc_opt(self) -> GroupOptimizer:
        """The optimizer of the input side: that of the layer, as far as f and b are concerned."""
        return GroupOptimizer(self.optimizer, "enc")

    @property
    def ae_opt(self) -> GroupOptimizer:
        """The optimizer of the target side: that of the layer, as far as g and h are concerned."""
        return GroupOptimizer(self.optimizer, "ae")

    def record_backward_and_update(self) -> None:
        """Do what `backward_and_update` does, with a span of torch.profiler around each half."""
        with torch.profiler.record_function("backward"):
            self.backward()
        with torch.profiler.record_function("update"):
            self.update()

    def getParam(self) -> dict[str, int]:  # noqa: N802 (the name in the earlier public code)
        """Return the number of parameters of f, b, g and h."""
        functions = {"f": self.enc.f, "b": self.enc.b, "g": self.ae.g, "h": self.ae.h}
        return {name: _count(function.parameters()) for name, function in functions.items()}


class GroupOptimizer:
    """One named parameter group of an optimizer, to be read and stepped as if it were an optimizer of its own.

    One Adam with two groups computes what two Adams do, so a layer has one.
    """

    def __init__(self, optimizer: Optimizer, name: str) -> None:
        self._optimizer = optimizer
        self._name = name

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The group itself, not a copy: a learning rate that is written here takes effect."""
        return [group for group in self._optimizer.param_groups if group.get("name") == self._name]

    def step(self) -> None:
        """Take an optimizer step on the group's parameters alone."""
        every = self._optimizer.param_groups
        self._optimizer.param_groups = self.param_groups
        try:
            self._optimizer.step()
        finally:
            self._optimizer.param_groups = every

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the group's parameters."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad.detach_().zero_()


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
