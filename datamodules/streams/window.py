"""The part of a sliding window that counts: each image leaves the stream once, when it is new."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor


class NewestOnly(Callback):
    """Takes from outputs and batch what earlier batches have already shown.

    Place it behind the guard, which may see whole windows, and before what writes predictions.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the images that are new."""
        seen, shown = batch["seen_before"], len(batch["id"])
        broken = outputs.pop("broken", None)  # numbers of images, not a value of each
        for content, kinds in ((outputs, Tensor), (batch, (list, Tensor))):
            for key, value in content.items():
                if (
                    isinstance(value, kinds)
                    and not (isinstance(value, Tensor) and value.dim() == 0)
                    and len(value) == shown
                ):
                    content[key] = value[seen:]
        left = None if broken is None else broken[broken >= seen] - seen
        outputs["broken"] = None if left is None or not len(left) else left
