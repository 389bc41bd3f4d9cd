"""Add an adaptation method, in one place, and use it from Python and by adapt.py, guard included.

python examples/add_method.py

The method maximises the margin between the two likeliest classes of confident images.
``register_method`` makes its name known to the programs of this process, whenever it is called; an
installed package says the same by an entry point, and then its name works on every command line
(CONTRIBUTING.md). ``check_method`` holds it to what methods promise.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from shapes import CLASSES, accuracy, cells, trained
from torch import Tensor

from holdfast.programs import adapt, train
from holdfast.testing import check_method
from holdfast.tta.methods import (
    MethodConfig,
    Prediction,
    UpdateConfig,
    create_method,
    register_method,
)
from holdfast.tta.methods.norm_affine import NormAffineMethod
from holdfast.tta.options import option, within


@dataclass
class MarginConfig(UpdateConfig):
    """Hyperparameters of the margin method."""

    threshold: float = option(0.6, "least confidence of an image that is learned from, in [0, 1]")

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "threshold", 0, 1)


@register_method("margin")
class Margin(NormAffineMethod):
    """Minus the mean distance of the two largest logits, over the confident images."""

    Config: ClassVar[type[MethodConfig]] = MarginConfig
    config: MarginConfig
    paper: ClassVar[str] = "yours"

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor | None:
        """The loss; None where no image is confident."""
        kept = prediction.logits.detach().softmax(1).amax(1) > self.config.threshold
        first, second = prediction.logits.topk(2, dim=1).values.unbind(1)
        return -(first - second)[kept].mean() if kept.any() else None


def in_python() -> float:
    """Accuracy of the method on a plain torch model, in percent."""
    images, labels = cells(1280, contrast=0.6, seed=1)
    method = create_method(
        "margin", trained(), num_classes=len(CLASSES), optimizer="adam", lr=1e-3, threshold=0.7
    )
    hits = [
        accuracy(method(batch).argmax(1), truth)
        for batch, truth in zip(images.split(64), labels.split(64), strict=True)
    ]
    return sum(hits) / len(hits)


def by_program(output: str) -> int:
    """Train a source model on cells under our microscope, and adapt it to theirs by the method;
    returns the exit status.
    """
    Path(output).mkdir(parents=True, exist_ok=True)
    (ours, labels), (theirs, truth) = cells(1000), cells(640, contrast=0.6, seed=1)
    np.savez(
        f"{output}/cells.npz",
        images=torch.cat([ours, theirs])[:, 0].numpy(),
        labels=torch.cat([labels, truth]).numpy(),
        domain=np.repeat(["ours", "theirs"], [1000, 640]),
        split=np.repeat(["train", "val", "test"], [700, 150, 790]),
        class_names=np.array(CLASSES),
    )
    data = ["data=npz", f"data.path={output}/cells.npz", "data.source=ours", "data.target=theirs"]
    quiet = ["overwrite=true", "wandb.mode=disabled", "trainer.enable_progress_bar=false"]
    status = train.main([*data, "epochs=5", "calibrate=off", f"output={output}/source", *quiet])
    words = ["method=margin", "method.threshold=0.7"]
    return status or adapt.main(
        [f"source={output}/source", *words, f"output={output}/adapted", *quiet]
    )


def main(argv: Sequence[str]) -> int:
    """Check the method and run both; an argument names the folder of the results."""
    check_method(Margin, threshold=0.0)
    print(f"create_method: {in_python():.1f} %")
    return by_program(argv[0] if argv else "runs/examples/add_method")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
