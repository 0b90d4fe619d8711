"""The optimizer of every shipped model, AL and BP alike."""

from __future__ import annotations

from typing import Any

import torch


def adamw(parameters: Any, **options: Any) -> torch.optim.AdamW:
    """Return AdamW in the fused form, one pass over the weights per step; arguments as for `torch.optim.AdamW`.

    Before 2.4 torch has the fused form for GPUs only; for weights on the CPU it is the plain form there.
    """
    # torch refuses only after it has used up the iterator and marked the groups as fused, so it gets copies.
    given = list(parameters)
    copies = [dict(item) if isinstance(item, dict) else item for item in given]
    try:
        return torch.optim.AdamW(copies, fused=True, **options)
    except RuntimeError:
        return torch.optim.AdamW(given, **options)
