"""Which guards there are, and how one is made from its name, its settings and the source."""

from collections.abc import Mapping
from typing import Any

from callbacks.base import Guard
from callbacks.guard import CollapseGuard, GuardConfig, NoGuardConfig, Reference
from callbacks.policies import POLICIES, PolicyGuard
from tta.checkpoint import SourceCheckpoint

#: Settings of each guard by name: ours, none, and the published ones.
GUARDS: Mapping[str, type] = {
    "on": GuardConfig,
    "off": NoGuardConfig,
    **{name: policy.Config for name, policy in POLICIES.items()},
}


def create_guard(kind: str, options: Any, checkpoint: SourceCheckpoint) -> Guard | None:
    """The guard of this name; None for "off".

    Args:
        kind: a name in ``GUARDS``.
        options: its settings, of the class that ``GUARDS`` names.
        checkpoint: the source.
    """
    if kind == "off":
        return None
    if kind == "on":
        reference = Reference(checkpoint.feature_mean, checkpoint.feature_var)
        return CollapseGuard(checkpoint.class_names, options, reference, checkpoint.calibration)
    policy = POLICIES[kind]
    return PolicyGuard(
        policy(
            options,
            len(checkpoint.class_names),
            {name: getattr(checkpoint, name) for name in policy.uses},
        )
    )
