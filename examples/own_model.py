"""Adapt your own torch model to unlabelled images: ten lines, no Lightning.

python examples/own_model.py

A small network that was trained on one microscope meets another. Printed is its accuracy as it is,
under each batch's own normalisation statistics (the control), and adapted. Put your model and your
batches in place of ``trained`` and ``cells``: any network with a Linear head will do, 2D or 3D.
"""

import torch
from shapes import CLASSES, accuracy, cells, trained
from torch import Tensor, nn

from holdfast.tta.methods import create_method


def adapted(
    name: str, model: nn.Module, stream: list[Tensor], **hyperparameters: float | str
) -> Tensor:
    """Classes that the model gives to the stream's images while it adapts; the ten lines."""
    method = create_method(name, model, num_classes=len(CLASSES), **hyperparameters)
    predictions = []
    for images in stream:
        logits = method(images)  # predicts, then updates itself
        predictions.append(logits.argmax(1))
    method.reset()  # the weights are the source's again, bit for bit
    return torch.cat(predictions)


def main() -> dict[str, float]:
    """Print, and return, the accuracy of each run in percent."""
    model = trained()
    images, labels = cells(1280, contrast=0.6, seed=1)
    stream = list(images.split(64))
    runs = {
        "source": adapted("source", model, stream),
        "control": adapted("norm", model, stream),
        "tent": adapted("tent", model, stream, optimizer="adam", lr=1e-3),
        "dsbr": adapted("dsbr", model, stream, optimizer="adam", lr=1e-3),
    }
    scores = {name: accuracy(predictions, labels) for name, predictions in runs.items()}
    for name, score in scores.items():
        print(f"{name:8}{score:6.1f} %")
    return scores


if __name__ == "__main__":
    main()
