"""Any torch network, guarded, in a loop of your own: ten lines, no Lightning.

python examples/own_loop.py

The network of examples/shapes.py meets another microscope, at a learning rate at which Tent
collapses. Printed are the accuracy of the last quarter without and with the guard, and what the
guard did. Put your network, some labelled images that it was trained on, and your stream in place.
"""

import torch
from shapes import CLASSES, accuracy, cells, trained
from torch import Tensor

import holdfast


def guarded(model: torch.nn.Module, known: list[tuple[Tensor, Tensor]]) -> holdfast.GuardedMethod:
    """The network with a method that adapts it, and a guard beside that."""
    method = holdfast.create_method(
        "tent", model, num_classes=len(CLASSES), optimizer="adam", lr=0.1, normalization="auto"
    )
    return holdfast.guard(method, source=known, class_names=CLASSES)


def main() -> dict[str, float]:
    """Print, and return, the accuracy of the last quarter in percent."""
    images, labels = cells(2560, contrast=0.6, seed=1)
    model = guarded(trained(), known=[cells(512, seed=2)])
    alone = holdfast.create_method(
        "tent", trained(), num_classes=len(CLASSES), optimizer="adam", lr=0.1
    )
    scores = {}
    for name, serve in (("unguarded", alone), ("guarded", model)):
        served = torch.cat([serve(batch).argmax(1) for batch in images.split(64)])
        scores[name] = accuracy(served[-640:], labels[-640:])
        print(f"{name:10}{scores[name]:6.1f} %")
    print(
        f"mode: {model.mode}; {len(model.events)} events, the first: {model.events[0]['message']}"
    )
    return scores


if __name__ == "__main__":
    main()
