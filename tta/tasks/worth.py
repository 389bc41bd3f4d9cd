"""What probabilities of a stream are worth by the figure that a task has, in all and in parts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdfast.tta.scores import named_values, pooled
from holdfast.tta.tasks.kept import Column, Scorer


def figures_of(
    scorer: Callable[[], Scorer],
    outputs: Callable[[Tensor], Tensor],
    probabilities: Tensor,
    truth: Tensor,
    domains: Sequence[str],
    *,
    groups: Column,
    columns: Mapping[str, Column],
    aggregate: bool = False,
) -> dict[str, Any]:
    """Figures of images, or of groups, in all and in each domain and subgroup.

    Args:
        scorer: makes a new one.
        outputs: from probabilities to the outputs that it takes.
        probabilities: (N, C) in stream order.
        truth: (N,) labels, -1 where unknown.
        domains: (N,) domain of each image.
        groups: (N,) patient or slide of each image.
        columns: (N,) subgroup of each image, by the column's name.
        aggregate: each group counts once in each domain, by its mean probabilities.

    Returns:
        ``level``, what counts once, ``images`` and ``groups`` of which something is known, the
        scorer's figures, and ``domains`` and where asked for ``subgroups`` with the same of each
        part; empty where nothing is known.
    """
    names = np.asarray(domains, dtype=object)
    if aggregate:
        first, _, probabilities, truth = pooled(probabilities, truth, groups, list(domains))
        names, groups = names[first], groups[first]
        columns = {name: values[first] for name, values in columns.items()}

    def part(rows: Column) -> dict[str, Any]:
        member = torch.from_numpy(rows) & (truth >= 0)
        counted = scorer()
        counted.add(outputs(probabilities[member]), truth[member])
        found = {name: round(value, 4) for name, value in counted.scores().items()}
        own = len(np.unique(groups[member.numpy()]))
        return {"images": int(member.sum()), "groups": own, **found} if found else {}

    whole = part(np.ones(len(names), dtype=np.bool_))
    if not whole:
        return {}
    found = {"level": "group" if aggregate else "image", **whole}
    found["domains"] = {str(name): part(names == name) for name in dict.fromkeys(names.tolist())}
    if columns:
        found["subgroups"] = {
            name: {value: part(named == value) for value in dict.fromkeys(named.tolist())}
            for name, named in ((name, named_values(of)) for name, of in columns.items())
        }
    return found
