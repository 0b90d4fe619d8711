"""Batch normalization over the rows of all replicas, on any device (torch.nn.SyncBatchNorm knows GPUs alone)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UnfitLayersError
from .averaging import ReplicaGroup

#: What is replaced; a subclass may compute anything.
KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class WholeBatchNorm(_BatchNorm):
    """A batch normalization whose mean and variance are those of all replicas' rows (Ioffe & Szegedy 2015, alg. 1).

    It takes the place of `module` and has its parameters and buffers. Outside of a training step, and in copies, it
    normalizes by what it gets.
    """

    def __init__(self, module: _BatchNorm, group: ReplicaGroup) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(module.__dict__)
        self.replaced = [module]  # in a list: it is no module of this one
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (B, C, ...) normalized over all dimensions but the second, times weight, plus bias."""
        by_statistics = not self.training and self.running_mean is not None
        if self.group is None or not self.group.in_step or by_statistics:
            return type(self.replaced[0]).forward(self, x)
        out: Tensor
        out, mean, variance, count = _Normalize.apply(x, self.weight, self.bias, self.eps, self.group)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                new = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), new)
                unbiased = variance * (count / (count - 1).clamp_min(1))
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), new)
        return out

    def _check_input_dim(self, x: Tensor) -> None:
        self.replaced[0]._check_input_dim(x)  # type: ignore[no-untyped-call]


class _Normalize(torch.autograd.Function):
    """Normalize by the mean and the variance of all replicas' rows; also returns these and the number of values."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: ReplicaGroup
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        others = [dim for dim in range(x.dim()) if dim != 1]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        own = wide.new_full((1,), x.numel() / x.shape[1])
        sums = group.sum(torch.cat([wide.sum(others), own]))
        count = sums[-1]
        mean = sums[:-1] / count
        centered = wide - mean.view(shape)
        variance = group.sum(centered.square().sum(others)) / count
        scale = (variance + eps).rsqrt()
        normal = centered * scale.view(shape)
        out = normal if weight is None else normal * weight.view(shape)
        out = out if bias is None else out + bias.view(shape)
        ctx.save_for_backward(normal, scale, weight, count)
        ctx.group, ctx.others, ctx.shape, ctx.dtype, ctx.has_bias = group, others, shape, x.dtype, bias is not None
        ctx.mark_non_differentiable(mean, variance, count)
        return out.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, d_out: Tensor, *_: Any) -> Any:
        normal, scale, weight, count = ctx.saved_tensors
        shape, others = ctx.shape, ctx.others
        d_out = d_out.to(normal.dtype)
        d_bias = d_out.sum(others)
        d_weight = (d_out * normal).sum(others)
        # Every replica's output depends on the rows of all.
        mean_d, mean_dn = (ctx.group.sum(torch.cat([d_bias, d_weight])) / count).view(2, -1)
        d_normal = d_out - mean_d.view(shape) - normal * mean_dn.view(shape)
        factor = scale if weight is None else scale * weight
        d_x = (d_normal * factor.view(shape)).to(ctx.dtype)
        return d_x, None if weight is None else d_weight, d_bias if ctx.has_bias else None, None, None


def synchronize(layer: nn.Module, group: ReplicaGroup) -> int:
    """Have the layer's batch normalizations count the rows of all replicas, and return how many there are."""
    found = 0
    for module in layer.modules():
        for name, child in module._modules.items():
            if type(child) in KNOWN:
                module._modules[name] = WholeBatchNorm(child, group)  # type: ignore[arg-type]
                found += 1
    return found


def undo(layer: nn.Module) -> None:
    """Put the modules back that `synchronize` has replaced, in the modes that they have now."""
    for module in layer.modules():
        for name, child in module._modules.items():
            if isinstance(child, WholeBatchNorm):
                module._modules[name] = original = child.replaced[0]
                for setting in ("training", "eps", "momentum"):
                    setattr(original, setting, getattr(child, setting))


def refuse_unknown(layers: Sequence[tuple[str, nn.Module]]) -> None:
    """Raise UnfitLayersError for a batch normalization that `synchronize` would leave as it is."""
    for name, layer in layers:
        for path, module in layer.named_modules():
            if isinstance(module, _BatchNorm) and type(module) not in KNOWN:
                raise UnfitLayersError(
                    f"layer {name!r}: {path} is a {type(module).__name__}, which cannot be synchronized; use one of "
                    f"{', '.join(kind.__name__ for kind in KNOWN)}, or leave sync_batchnorm out"
                )
