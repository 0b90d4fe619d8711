from __future__ import annotations

import pytest
import torch
from torch import nn

from ALPackage import ALStack
from ALPackage.stage.optimizer_watch import OptimizerWatch

from ..one_layer import dense_layer


def test_a_step_through_one_side_s_optimizer_is_no_change() -> None:
    """Guards a bug: a look at the wrong moment saw the optimizer with the one group that was taking its step."""
    layer = dense_layer()
    watch = OptimizerWatch(ALStack([layer]), alone=False, own={})
    seen = []

    def look(*_: object) -> None:
        seen.append(len(layer.optimizer.param_groups))
        watch.check()

    layer.optimizer.register_step_pre_hook(look)
    layer.enc_opt.step()
    assert seen == [1]


def test_another_group_is_a_change() -> None:
    layer = dense_layer()
    watch = OptimizerWatch(ALStack([layer]), alone=False, own={})
    watch.check()
    layer.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "name": "more"})
    with pytest.raises(RuntimeError, match="another number of parameter groups"):
        watch.check()
