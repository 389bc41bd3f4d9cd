"""The guard on your own LightningModule, in a Trainer of your own.

python examples/own_module.py

``Adapting`` minimises the entropy of its predictions, at a rate at which that goes wrong, and knows
nothing of Holdfast's methods. What the guard asks of it are three methods, ``control``, ``reset``
and ``pause``, and a training step that returns logits and features. Printed are accuracy and
largest predicted share of the last quarter, without and with the guard.
"""

import copy
import logging

import torch
from lightning import Callback, LightningModule, Trainer
from shapes import CLASSES, accuracy, cells, trained
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from holdfast.callbacks import CollapseGuard
from holdfast.tta.methods import Prediction

Batch = tuple[Tensor, Tensor]


class Adapting(LightningModule):
    """Minimises prediction entropy by all weights, one step a batch."""

    def __init__(self, network: nn.Sequential, lr: float) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.lr, self.paused = (
            network.train(),
            lr,
            False,
        )  # in train mode: the batch's statistics
        self.twin = copy.deepcopy(self.network).requires_grad_(False)  # the un-updated one

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Your optimiser."""
        return torch.optim.Adam(self.network.parameters(), lr=self.lr)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Predict, then update; what is returned is what the guard sees, and changes when it
        alarms.
        """
        prediction = predict(self.network, batch[0])
        if not self.paused:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(
                torch.distributions.Categorical(logits=prediction.logits).entropy().mean()
            )
            optimizer.step()
        return {"logits": prediction.logits.detach(), "features": prediction.features.detach()}

    @torch.no_grad()
    def control(self, batch: Batch) -> Prediction:
        """What the un-updated twin says of the batch."""
        return predict(self.twin, batch[0])

    def reset(self) -> None:
        """The source's weights, and an optimiser that has seen nothing."""
        self.network.load_state_dict(self.twin.state_dict())
        self.optimizers().state.clear()

    def pause(self, paused: bool = True) -> None:
        """Stop updating, or go on."""
        self.paused = paused


def predict(network: nn.Sequential, images: Tensor) -> Prediction:
    """Logits, and the input of the last layer."""
    features = network[:-1](images)
    return Prediction(network[-1](features), features)


class Served(Callback):
    """Keeps the predictions that leave; it comes after the guard, which may have replaced them."""

    def __init__(self) -> None:
        self.classes: list[Tensor] = []

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Tensor],
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Keep the batch's classes."""
        self.classes.append(outputs["logits"].argmax(1))


def run(guard: CollapseGuard | None) -> Tensor:
    """Classes with which the stream's images leave."""
    stream = DataLoader(TensorDataset(*cells(3200, contrast=0.6, seed=1)), batch_size=64)
    served = Served()
    trainer = Trainer(
        max_epochs=1,
        callbacks=[*([guard] if guard else []), served],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Adapting(trained(), lr=0.1), stream)
    return torch.cat(served.classes)


def main() -> dict[str, float]:
    """Print, and return, the accuracy of the last quarter without and with the guard, in
    percent.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    last = cells(3200, contrast=0.6, seed=1)[1][2400:]
    guard = CollapseGuard(CLASSES)
    scores = {}
    for name, classes in {"unguarded": run(None)[2400:], "guarded": run(guard)[2400:]}.items():
        scores[name] = accuracy(classes, last)
        share = 100 * classes.bincount().max() / len(classes)
        print(f"{name:10}{scores[name]:6.1f} %, largest class {share:.0f} %")
    print(f"{guard.alarms} alarms, after batches {guard.alarmed}, and {len(guard.resets)} resets")
    return scores


if __name__ == "__main__":
    main()
