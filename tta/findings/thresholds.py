"""From which probability on a finding is called present."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from holdfast.tta.findings.curves import best_f1, counts, ranked
from holdfast.tta.saying import warn

#: Images with a finding, and images without, of which its threshold can be told.
_FEWEST = 10
#: The threshold of a finding of which too few are known.
DEFAULT = 0.5


def fit_thresholds(
    probabilities: Tensor, findings: Tensor, class_names: Sequence[str]
) -> list[float]:
    """The threshold of each finding at which its F1 is best (Lipton et al., ECML 2014), in the
    middle between the two scores that it divides.

    Args:
        probabilities: (N, L) of validation images.
        findings: (N, L) 1 present, 0 absent, NaN unknown.
        class_names: names of the L findings.

    Returns:
        L probabilities; .5 of findings that fewer than ten images are known to have, or to lack,
        which a warning names.
    """
    found, few = [], []
    for finding, name in enumerate(class_names):
        known = findings[:, finding].isfinite()
        present = (findings[known, finding] > 0.5).numpy()
        if min(present.sum(), (~present).sum()) < _FEWEST:
            few.append(name)
            found.append(DEFAULT)
            continue
        rank = ranked(probabilities[known, finding].numpy(), present)
        above = int(best_f1(*counts(rank))[1][0])
        next_ = rank.scores[above] if above < len(rank.scores) else 0.0
        found.append(float(np.round((rank.scores[above - 1] + next_) / 2, 6)))
    if few:
        warn(
            f"too few validation images have, or lack, {', '.join(few)}: called present from a "
            f"probability of {DEFAULT} on"
        )
    return found
