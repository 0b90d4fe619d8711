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

from collections.abc import Callable, Mapping
from typing import Any, SupportsFloat

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .nan_guard import Guard
from .nested import detach, tensors, to_device, versions

__all__ = ["AE", "AL", "ENC"]

Criterion = Callable[[Any, Any], Tensor]
LearningRate = SupportsFloat | Mapping[str, SupportsFloat]


class ENC(nn.Module):
    """The input side of a layer: `f`, then the bridge `b`.

    `cri(b(f(x)), g(y))` is the associated loss, a 0-d tensor; MSE by default. `f` may take and return any nested
    structure; `b` takes what `f` returns.
    """

    def __init__(self, f: nn.Module, b: nn.Module, cri: Criterion | None = None) -> None:
        super().__init__()
        self.f = f
        self.b = b
        self.cri: Criterion = nn.MSELoss() if cri is None else cri

    def forward(self, x: Any) -> tuple[Any, Any]:
        """Return (f(x), b(f(x))), neither of them detached."""
        hidden = self.f(x)
        return hidden, self.b(hidden)

    def loss(self, bridged: Any, code: Any) -> Tensor:
        """Return the associated loss of b(f(x)) against g(y); the caller has detached `code`."""
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

    def forward(self, y: Any) -> tuple[Any, Any]:
        """Return (g(y), h(g(y))), neither of them detached."""
        code = self.g(y)
        return code, self.h(code)

    def loss(self, decoded: Any, y: Any) -> Tensor:
        """Return the auto-encoder loss of h(g(y)) against y."""
        return self.cri(decoded, y)


class AL(nn.Module):
    """An Associated Learning layer with its own optimizer.

    `lr`: a number, or {"enc": number, "ae": number}. `optimizer`: called with two parameter groups, named
    "enc" and "ae"; Adam by default. One batch is in flight at a time: `forward` refuses a second one until
    `backward` has used up the first (or `discard` has dropped it), because the update in between would change
    the weights under it. Subclasses may replace any method; the schedules call nothing but the public ones.
    """

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
        rates = _rates(lr)
        for side in {"enc", "ae"} - set(rates):
            raise ValueError(f'AL: got no learning rate for {side}; give one number, or both "enc" and "ae"')
        groups = [
            {"params": [p for p in part.parameters() if p.requires_grad], "lr": rates[name], "name": name}
            for name, part in (("enc", enc), ("ae", ae))
        ]
        if not any(group["params"] for group in groups):
            raise ValueError("AL: none of f, b, g, h has a parameter to train; give at least one of them weights")
        self.optimizer = optimizer(groups)
        #: Give it a `Guard` to leave out the steps of batches whose loss is no finite number.
        self.guard: Guard | None = None
        self._pending: Tensor | None = None
        self._updating = False
        self._losses: tuple[Tensor, Tensor] | None = None

    @property
    def device(self) -> torch.device:
        """The device of the layer's parameters, to which inputs are moved."""
        return next(self.parameters()).device

    def forward(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Compute both local losses and return (f(x), g(y)), detached, on the layer's device.

        Raises RuntimeError if the previous batch still waits for its `backward` or is being updated on, and if a
        function changed the input in place.
        """
        if self._pending is not None and torch.is_grad_enabled():
            raise RuntimeError(
                "AL.forward: the previous batch still waits for backward(); call backward_and_update() first, "
                "or discard() to drop it, or use torch.no_grad() where no training is meant"
            )
        if self._updating:
            raise RuntimeError(
                "AL.forward: backward_and_update() is at work on another thread; join that thread first, "
                "or discard() what an interrupt has left"
            )
        x, y = to_device(detach((x, y)), self.device)
        if self.guard is not None and torch.is_grad_enabled():
            self.guard.enter(self.buffers())
        given = tensors((x, y))
        before = versions(given)
        hidden, bridged = self.enc(x)
        code, decoded = self.ae(y)
        if versions(given) != before:
            raise RuntimeError(
                "AL.forward: the input was changed in place, by f, b, g or h or by who handed it on; use the form that "
                "is not in place, such as nn.ReLU(inplace=False), and hand on new tensors"
            )
        associated = self.enc.loss(bridged, detach(code))
        autoencoder = self.ae.loss(decoded, y)
        self._losses = associated.detach(), autoencoder.detach()
        if torch.is_grad_enabled():
            self._pending = associated + autoencoder
        return detach(hidden), detach(code)

    def loss(self) -> tuple[Tensor, Tensor]:
        """Return (associated, auto-encoder) loss of the last batch: detached 0-d tensors, NaN before any.

        A subclass that replaces `forward` and keeps its losses elsewhere replaces this too, to report them.
        """
        if self._losses is None:
            nan = torch.full((), float("nan"))
            return nan, nan
        return self._losses

    def backward(self) -> None:
        """Back-propagate the local losses of the batch in flight. Raises RuntimeError if there is none."""
        if self._pending is None:
            raise RuntimeError("AL.backward: no batch in flight; call forward(x, y) first, with gradients enabled")
        pending, self._pending = self._pending, None
        try:
            torch.autograd.backward(pending)
        except BaseException:
            self.discard()  # half of the gradients would be added to the next batch's
            raise

    def update(self) -> None:
        """Take one optimizer step and clear the gradients."""
        known = len(self.optimizer.state)
        try:
            if self.guard is None:
                self.optimizer.step()
            else:
                self.guard.step(self.optimizer, torch.stack(self.loss()).sum())
        except BaseException:
            # Ctrl-C in the first step of a parameter leaves some of its moments out, and no step could follow.
            for parameter in list(self.optimizer.state)[known:]:
                del self.optimizer.state[parameter]
            raise
        self.optimizer.zero_grad(set_to_none=True)

    def backward_and_update(self) -> None:
        """Run `backward`, then `update`: the part of a batch that no other layer waits for."""
        try:
            self._updating = True  # inside, or a signal that comes as it returns would leave the layer locked
            self.backward()
            self.update()
        finally:
            self._updating = False

    def discard(self) -> None:
        """Drop the batch in flight and any gradients, as after a failure, so that the layer can go on."""
        self._pending = None
        self._updating = False  # a signal may have come before `backward_and_update` could say so
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def inference(self, x: Any, path: str) -> Any:
        """Apply one function to `x` on the layer's device, without gradients: `path` is 'f', 'b' or 'h'.

        Full inference is f of every layer, b of the last, h of every layer in reverse.
        Raises ValueError for another path.
        """
        functions = {"f": self.enc.f, "b": self.enc.b, "h": self.ae.h}
        if path not in functions:
            raise ValueError(f"AL.inference: got path={path!r}; expected 'f', 'b' or 'h'")
        return functions[path](to_device(x, self.device))

    def set_lr(self, lr: LearningRate) -> None:
        """Set the learning rate: a number, or {"enc": number, "ae": number}, of which one may be left out."""
        for name, rate in _rates(lr).items():
            for group in self.optimizer.param_groups:
                if group.get("name", name) != name:
                    continue
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)  # where a CUDA graph has captured its address
                else:
                    group["lr"] = rate

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AL:
        """Move the optimizer's moments along when the layer is moved or cast."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):  # as a CUDA graph wants it, and only on its device
                on_gpu = self.device.type == "cuda"
                group["lr"] = group["lr"].to(self.device) if on_gpu else float(group["lr"])
                group["capturable"] = on_gpu
        if self.optimizer.state:
            self.optimizer.load_state_dict(self.optimizer.state_dict())
        return self


def _rates(lr: LearningRate) -> dict[str, float]:
    """Return {"enc": float, "ae": float} from a number, or the given subset from a mapping."""
    if not isinstance(lr, Mapping):
        lr = {"enc": lr, "ae": lr}
    unknown = set(lr) - {"enc", "ae"}
    if unknown or not lr:
        raise ValueError(f'AL: got learning rates for {sorted(map(str, lr))}; expected "enc" and "ae"')
    rates: dict[str, float] = {}
    for name, given in lr.items():
        if isinstance(given, (str, bytes)):
            raise ValueError(f"AL: got learning rate {given!r} for {name}; expected a number, not text")
        rate = rates[name] = float(given)
        if not 0.0 <= rate < float("inf"):
            raise ValueError(f"AL: got learning rate {rate} for {name}; expected a finite number >= 0")
    return rates
