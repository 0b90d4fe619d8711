"""The optimizer of every shipped model, AL and BP alike."""

from __future__ import annotations

from typing import Any

import torch


def adamw(parameters: Any, **options: Any) -> torch.optim.AdamW:
    """Return AdamW in the fused form, one pass over the weights per step; arguments as for `torch.optim.AdamW`.

    Where torch has that for GPUs only (before 2.4) and the weights are on the CPU, it is the plain form.
    """
    # A refusal comes late: the iterator is used up by then, and the groups have been marked as fused.
    given = list(parameters)
    copies = [dict(item) if isinstance(item, dict) else item for item in given]
    try:
        return torch.optim.AdamW(copies, fused=True, **options)
    except RuntimeError:
        return torch.optim.AdamW(given, **options)
