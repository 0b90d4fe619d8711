"""An LSTM layer on a CPU whose input needs no gradient, as that of a local layer: a third less work in its backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ALPackage.stage.threads import Autocast


def lstm_states(lstm: nn.LSTM, x: Tensor) -> Tensor:
    """Return the states (B, T, H) of a one-directional LSTM of one layer, batch first, over x (B, T, D).

    torch's own LSTM on a CPU computes the gradient with respect to `x` even where nobody uses it. So where it is not
    asked for, the same is computed here: equal up to rounding, and as fast in the forward pass.
    """
    unused = torch.is_grad_enabled() and not x.requires_grad
    if not unused or x.device.type != "cpu" or torch.compiler.is_compiling() or Autocast().settings:
        states: Tensor = lstm(x)[0]
        return states
    weights = (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0)
    computed: Tensor = _States.apply(x, *weights)
    return computed


class _States(torch.autograd.Function):
    """The states of an LSTM, with gradients for its weights alone.

    Legend: T positions, B batch, D features, H hidden units. Gates stand in the order of `nn.LSTM`: input, forget,
    cell, output. Everything is kept with the positions first, so that one position is one block of memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_in: Tensor, w_state: Tensor, b_in: Tensor, b_state: Tensor) -> Tensor:
        B, T, D = x.shape
        H = w_state.shape[1]
        rows = x.transpose(0, 1).reshape(T * B, D)
        gates = torch.addmm(b_in + b_state, rows, w_in.t()).view(T, B, 4 * H)
        states, cells = x.new_zeros(T + 1, B, H), x.new_zeros(T + 1, B, H)
        squashed = x.new_empty(T, B, H)
        w = w_state.t()
        for t, gate in enumerate(gates):
            gate.addmm_(states[t], w)
            gate[:, : 2 * H].sigmoid_()
            i, f, g, o = gate.chunk(4, 1)
            torch.mul(f, cells[t], out=cells[t + 1]).addcmul_(i, g.tanh_())
            torch.tanh(cells[t + 1], out=squashed[t])
            torch.mul(o.sigmoid_(), squashed[t], out=states[t + 1])
        ctx.save_for_backward(rows, w_state, gates, states, cells, squashed)
        return states[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, w_state, gates, states, cells, squashed = ctx.saved_tensors
        T, B, H = squashed.shape
        sigmoid, tanh = torch.ops.aten.sigmoid_backward.grad_input, torch.ops.aten.tanh_backward
        d_states = grad.transpose(0, 1)
        d_gates = torch.empty_like(gates)
        d_cell, d_state = torch.zeros_like(squashed[0]), d_states[T - 1]
        for t in range(T - 1, -1, -1):
            i, f, g, o = gates[t].chunk(4, 1)
            d_i, d_f, d_g, d_o = d_gates[t].chunk(4, 1)
            d_cell += tanh(d_state * o, squashed[t])
            sigmoid(d_state * squashed[t], o, grad_input=d_o)
            sigmoid(d_cell * g, i, grad_input=d_i)
            sigmoid(d_cell * cells[t], f, grad_input=d_f)
            tanh.grad_input(d_cell * i, g, grad_input=d_g)
            if t:
                d_cell *= f
                d_state = torch.addmm(d_states[t - 1], d_gates[t], w_state)
        flat = d_gates.view(T * B, 4 * H).t()
        bias = flat.sum(1)
        return None, flat @ rows, flat @ states[:-1].reshape(T * B, H), bias, bias
