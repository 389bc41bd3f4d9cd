"""How little a source agrees with itself on mirror images of its own cases."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from holdfast.tta.batches import images_of
from holdfast.tta.methods import Method


@torch.no_grad()
def doubt_quantiles(method: Method, batches: Iterable[Any]) -> Tensor | None:
    """Quantiles 0 to 1 (101,) of ``Task.doubt`` over images; None where a task has none.

    Args:
        method: that has learned nothing yet.
        batches: in any form that ``images_of`` reads.
    """
    task, device = method.task, next(method.model.parameters()).device
    found = []
    for batch in batches:
        images = images_of(batch).to(device)
        said, mirrored = (method.source(view).served for view in (images, images.flip(-1)))
        if task.dense:  # what is said of pixels goes back to where they were
            mirrored = mirrored.flip(-1)
        p, q = (task.probabilities(output.float()) for output in (said, mirrored))
        doubt = task.doubt(p, q)
        if doubt is None:
            return None
        found.append(doubt.cpu())
    return torch.quantile(torch.cat(found), torch.linspace(0, 1, 101)) if found else None
