"""Your own LightningModule and DataModule, adapted and guarded by a Trainer of your own.

python examples/own_module.py

``Classifier`` and ``Cells`` know nothing of Holdfast. ``Adapting`` is the same module with a method
that learns from each batch of ``Trainer.predict``, at a rate at which that goes wrong. The mixin
gives the guard what it asks for: the un-updated twin, the choice of normalisation statistics, and
ways to take the model back. Printed are accuracy and largest predicted share of the last quarter,
without and with the guard.
"""

import logging

import torch
import torch.nn.functional as F
from lightning import LightningDataModule, LightningModule, Trainer
from shapes import CLASSES, accuracy, cells, trained
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from holdfast import AdaptsAtTestTime, CollapseGuard, create_method, source_facts

Batch = tuple[Tensor, Tensor]
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Cells(LightningDataModule):
    """Cells under our microscope, to train on, and under theirs; batches are (images, labels)."""

    def setup(self, stage: str) -> None:
        """Draw them."""
        self.ours = TensorDataset(*cells(1500))
        self.theirs = TensorDataset(*cells(3200, contrast=0.6, seed=1))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Labelled."""
        return DataLoader(self.ours, batch_size=50, shuffle=True)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The stream; its labels are looked at by nobody but the last lines of this file."""
        return DataLoader(self.theirs, batch_size=64)


class Classifier(LightningModule):
    """Trains a network on labelled cells."""

    def __init__(self) -> None:
        super().__init__()
        self.network = trained(epochs=0).train()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Yours."""
        return torch.optim.Adam(self.parameters(), lr=1e-2)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a labelled batch."""
        images, labels = batch
        return F.cross_entropy(self.network(images), labels)


class Adapting(AdaptsAtTestTime, Classifier):
    """The trained classifier, which goes on learning from unlabelled cells."""

    def __init__(self, classifier: Classifier, data: Cells) -> None:
        super().__init__()
        self.network.load_state_dict(classifier.network.state_dict())
        method = create_method(
            "tent",
            self.network,
            num_classes=len(CLASSES),
            normalization="auto",  # the guard chooses the statistics
            optimizer="adam",
            lr=0.1,
        )
        self.adapt_by(method, batch_size=64, source=source_facts(method, data.train_dataloader()))


def run(classifier: Classifier, data: Cells, guard: CollapseGuard | None) -> Tensor:
    """Classes with which the stream's images leave."""
    trainer = Trainer(**QUIET, callbacks=[guard] if guard else [])
    served = trainer.predict(Adapting(classifier, data), datamodule=data)
    return torch.cat([batch["logits"].argmax(1) for batch in served])


def main() -> dict[str, float]:
    """Print, and return, the accuracy of the last quarter without and with the guard, in
    percent.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    data, classifier = Cells(), Classifier()
    Trainer(**QUIET, max_epochs=6).fit(classifier, datamodule=data)
    guard = CollapseGuard(CLASSES)
    last, scores = data.theirs.tensors[1][2400:], {}
    for name, watch in {"unguarded": None, "guarded": guard}.items():
        classes = run(classifier, data, watch)[2400:]
        scores[name] = accuracy(classes, last)
        share = 100 * classes.bincount().max() / len(classes)
        print(f"{name:10}{scores[name]:6.1f} %, largest class {share:.0f} %")
    print(f"{guard.alarms} alarms, after batches {guard.alarmed}, and {len(guard.resets)} resets")
    print(f"trusted at the end: {guard.experts.trusted}")
    return scores


if __name__ == "__main__":
    main()
