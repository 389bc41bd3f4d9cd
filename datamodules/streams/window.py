"""The images of a batch that count: each leaves the stream once, when it is new, and only if it
could be read.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from holdfast.tta.stages import StreamCallback
from holdfast.tta.step import StepOutputs


def counted(batch: Mapping[str, Any]) -> list[int]:
    """Places of the images in a batch of ``StreamLoader`` that are new and could be read."""
    lost = set(batch.get("lost", ()))
    places = range(batch.get("seen_before", 0), len(batch["id"]))
    return [place for place in places if place not in lost]


def taken(values: Any, places: list[int]) -> Any:
    """Some rows of a tensor, or entries of a list."""
    return values[places] if isinstance(values, Tensor) else [values[place] for place in places]


class NewestOnly(StreamCallback):
    """Takes from outputs and batch what earlier batches have already shown, and what could not be
    read.

    Place it behind the guard, which may see whole windows, and before what writes predictions.
    """

    def on_served(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutputs,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep the images that count."""
        keys = set(batch) if isinstance(batch, Mapping) else set()
        if not keys & {"seen_before", "lost"}:  # of another loader, which shows no image twice
            return
        places, shown = counted(batch), len(batch["id"])
        if len(places) == shown:
            return
        broken = outputs.pop("broken", None)  # numbers of images, not a value of each
        for content, kinds in ((cast(dict[str, Any], outputs), Tensor), (batch, (list, Tensor))):
            for key, value in content.items():
                if (
                    isinstance(value, kinds)
                    and not (isinstance(value, Tensor) and value.dim() == 0)
                    and len(value) == shown
                ):
                    content[key] = taken(value, places)
        batch["lost"] = []
        left = [] if broken is None else [places.index(n) for n in broken.tolist() if n in places]
        outputs["broken"] = torch.tensor(left) if left else None
