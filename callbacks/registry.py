"""Which guards there are, and how one is made from its name, its settings and the source."""

from collections.abc import Mapping
from typing import Any

from holdfast.callbacks.base import Guard
from holdfast.callbacks.guard.evidence import Reference
from holdfast.callbacks.guard.guard import CollapseGuard
from holdfast.callbacks.labels import LabelBook
from holdfast.callbacks.policies import POLICIES, PolicyGuard
from holdfast.callbacks.settings import GuardConfig, NoGuardConfig
from holdfast.tta.checkpoint import SourceCheckpoint

#: Settings of each guard by name: ours, none, and the published ones.
GUARDS: Mapping[str, type] = {
    "on": GuardConfig,
    "off": NoGuardConfig,
    **{name: policy.Config for name, policy in POLICIES.items()},
}


#: Chance of ever taking a candidate for better, or worse, than what is served while labels show
#: nothing of the kind.
_LABEL_LEVEL = 0.05


def create_guard(
    kind: str, options: Any, checkpoint: SourceCheckpoint, labels: str | None = None
) -> Guard | None:
    """The guard of this name; None for "off".

    Args:
        kind: a name in ``GUARDS``.
        options: its settings, of the class that ``GUARDS`` names.
        checkpoint: the source.
        labels: CSV file of labels that come while the stream runs, for ours.

    Raises:
        InputError: the file of labels cannot be used, or is missing where it must tell.
    """
    if kind == "off":
        return None
    if kind == "on":
        reference = Reference(*checkpoint.features)
        names = checkpoint.class_names
        book = LabelBook(labels, names, _LABEL_LEVEL) if labels is not None else None
        return CollapseGuard(names, options, reference, checkpoint.calibration, book)
    policy = POLICIES[kind]
    return PolicyGuard(
        policy(
            options,
            len(checkpoint.class_names),
            {name: getattr(checkpoint, name) for name in policy.uses},
        )
    )
