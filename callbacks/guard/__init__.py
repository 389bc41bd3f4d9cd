"""The guard: ``guard.py`` is the callback; ``evidence.py`` says whom to trust,
``signals.py`` what is watched for, ``modes.py`` what follows.
"""

from holdfast.callbacks.corrections import CORRECTIONS, Correctable, Correction, Guardable
from holdfast.callbacks.guard.evidence import Reference
from holdfast.callbacks.guard.guard import CollapseGuard
from holdfast.callbacks.settings import GuardConfig, NoGuardConfig, Tuned

__all__ = [
    "CORRECTIONS",
    "CollapseGuard",
    "Correctable",
    "Correction",
    "GuardConfig",
    "Guardable",
    "NoGuardConfig",
    "Reference",
    "Tuned",
]
