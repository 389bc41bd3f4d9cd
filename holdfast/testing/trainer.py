"""A method in Lightning's Trainer, as adapt.py runs it: in AdaptationModule, under the guard."""

from dataclasses import fields
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from holdfast.callbacks import CollapseGuard
from holdfast.testing.subject import CLASSES, Subject, images
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.candidates import Candidates
from holdfast.tta.stages import StreamCallback
from holdfast.tta.step import StepOutputs

_BATCHES = 5


class _Kept(StreamCallback):
    """Keeps what is served."""

    def __init__(self) -> None:
        self.logits: list[Tensor] = []

    def on_served(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutputs,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep the logits."""
        self.logits.append(outputs["logits"])


def runs_guarded(subject: Subject) -> None:
    """Check that each batch is served and watched, and that the module's state can be saved."""
    names = {option.name for option in fields(subject.method.Config)}
    chosen = {"normalization": "auto"} if "normalization" in names - subject.options.keys() else {}
    method = subject.create(**chosen)
    guard, kept = CollapseGuard([f"class {index}" for index in range(CLASSES)]), _Kept()
    module = AdaptationModule(method, len(images()), candidates=Candidates(method))
    batches: Any = [{"image": images(seed)} for seed in range(_BATCHES)]
    Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[guard, kept],
    ).fit(module, DataLoader(batches, batch_size=None))
    served = len(kept.logits) == guard.batch == _BATCHES
    subject.require(
        served and all(bool(logits.isfinite().all()) for logits in kept.logits),
        "does not serve every batch under the guard",
        "leave predict, control and source to Method, or return what they return",
    )
    module.reset()
    subject.require(
        all(torch.equal(p, method.source_values[name]) for name, p in method.adapted.items()),
        "is not at the source once the guard has reset it",
        "where reset is overridden, call super().reset()",
    )
