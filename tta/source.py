"""Source training: the LightningModule, and what adaptation will need to know of the source."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor

from holdfast.tta.correction import class_conditional_moments
from holdfast.tta.distributed import objects_of_all
from holdfast.tta.layout import asked, fastest_layout
from holdfast.tta.methods import Prediction, create_method
from holdfast.tta.networks import Network
from holdfast.tta.normalization import is_norm
from holdfast.tta.objectives import entropy
from holdfast.tta.separation import separation
from holdfast.tta.tasks import Task
from holdfast.tta.windows import drawn


class SourceModule(LightningModule):
    """Supervised training of a network, watched on validation images by the task's own figure.

    Args:
        network: the network, its ``mean`` and ``std`` set.
        task: what its answer means: it has the loss, and the figure.
        lr: peak learning rate of AdamW under a one-cycle schedule.
        weight_decay: of AdamW.
    """

    def __init__(self, network: Network, task: Task, *, lr: float, weight_decay: float) -> None:
        super().__init__()
        self.layout = fastest_layout(network)
        self.layout.lay_out(network)
        self.network, self.task = network, task
        self.lr, self.weight_decay = lr, weight_decay
        self.scorer = task.scorer()

    def forward(self, images: Tensor) -> Tensor:
        """The task's output, such as logits (N, C)."""
        answer, self.layout = asked(self.network, self.layout, images, self.network)
        return self.task.output(answer)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The task's loss."""
        loss = self.task.loss(self(batch["image"]), batch[self.task.target])
        size = len(batch["image"])
        self.log(
            "train/loss",
            loss,
            prog_bar=True,
            on_epoch=True,
            on_step=False,
            sync_dist=True,
            batch_size=size,
        )
        return loss

    def on_validation_epoch_start(self) -> None:
        """Count from nothing."""
        self.scorer = self.task.scorer()

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Take the batch into the epoch's figure."""
        self.scorer.add(self(batch["image"]), batch[self.task.target])

    def on_validation_epoch_end(self) -> None:
        """Log the figure, as a share, of the images of all processes."""
        first, *others = objects_of_all(self.scorer)
        for other in others:
            first.merge(other)
        value = first.scores().get(self.task.watch, 0.0) / 100
        self.log(f"val/{self.task.watch}", value, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """AdamW and one cycle of the learning rate over all steps."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Evaluation(NamedTuple):
    """A network's prediction of a whole set.

    Attributes:
        logits: (N, C) of its rows, which are images.
        features: (N, D).
        labels: (N,).
        output: (N, ...) as its task has it; None: the logits.
    """

    logits: Tensor
    features: Tensor
    labels: Tensor
    output: Tensor | None = None

    @property
    def served(self) -> Tensor:
        """(N, ...) the output."""
        return self.logits if self.output is None else self.output


def evaluate(
    network: Network,
    batches: Iterable[Mapping[str, Any]],
    num_classes: int,
    task: str | Task = "single",
) -> Evaluation:
    """Predict all batches with the source's weights and statistics, on the device of the
    network.

    Args:
        network: the source model.
        batches: of labelled images.
        num_classes: C.
        task: whose rows are images.
    """
    method = create_method("source", network, num_classes=num_classes, task=task)
    device = network.mean.device
    predictions, labels, outputs = [], [], []
    for batch in batches:
        said = method.predict(batch["image"].to(device))
        predictions.append(Prediction(said.logits.cpu(), said.features.cpu()))
        labels.append(batch["label"].cpu())
        if said.output is not None:
            outputs.append(said.output.cpu())
    return Evaluation(
        torch.cat([p.logits for p in predictions]).float(),
        torch.cat([p.features for p in predictions]).float(),
        torch.cat(labels),
        torch.cat(outputs).float() if outputs else None,
    )


def channel_moments(batches: Iterable[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (channels,) of all pixels; a channel that never varies gets 1."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        pixels = batch["image"].double().transpose(0, 1).flatten(1)
        count += pixels.shape[1]
        total, squares = total + pixels.sum(1), squares + pixels.square().sum(1)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    return mean.float(), torch.where(std > 1e-6, std, 1.0).float()


def class_statistics(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (C, D) of each class's features; zeros for a class without images.

    Args:
        features: (N, D).
        labels: (N,) true classes; rows with a negative one count for none.
        num_classes: C.
    """
    means = features.new_zeros(num_classes, features.shape[1])
    variances = torch.zeros_like(means)
    for label in range(num_classes):
        rows = features[labels == label]
        if len(rows):
            means[label], variances[label] = rows.mean(0), rows.var(0, correction=0)
    return means, variances


def source_statistics(train: Evaluation, val: Evaluation, num_classes: int) -> dict[str, Any]:
    """Class-wise feature statistics, separation, temperature and entropy quantiles of a source
    model.

    Args:
        train: its predictions of the training images, which give the features' statistics by true
            class.
        val: of the validation images, which give the rest.
        num_classes: C.

    Returns:
        The fields of ``SourceCheckpoint`` of the same names.
    """
    means, variances = class_statistics(train.features, train.labels, num_classes)
    known = val.labels >= 0
    return {
        "prevalence": torch.bincount(train.labels, minlength=num_classes) / len(train.labels),
        "feature_mean": means,
        "feature_var": variances,
        "separation": separation(
            val.features.cpu().numpy(), val.logits.argmax(1).cpu().numpy(), num_classes
        ),
        "temperature": fit_temperature(val.logits[known], val.labels[known]),
        "entropy_quantiles": torch.quantile(entropy(val.logits), torch.linspace(0, 1, 101)),
    }


def fisher_information(
    network: Network,
    batches: Iterable[Mapping[str, Any]],
    num_classes: int,
    task: str | Task = "single",
) -> dict[str, Tensor] | None:
    """Diagonal Fisher information of the normalisation layers' weights and biases, as EATA
    regularises them.

    Squared gradients of the cross-entropy to the network's own predictions, under batch statistics,
    averaged over batches of 64 (Niu et al., ICML 2022).

    Args:
        network: the source model.
        batches: of its images.
        num_classes: C, or number of findings.
        task: what the network's answer means; of masks, pixels are averaged over.

    Returns:
        A tensor on the CPU for each parameter, by its name in ``network.named_parameters()``; None
        where there is no image or the network has no such layer.
    """
    if not any(is_norm(module) for module in network.modules()):
        return None
    method = create_method("tent", network, num_classes=num_classes, task=task)
    smallest = 2 if method.task.screens_mix else 1
    device = network.mean.device
    total = {name: torch.zeros_like(p) for name, p in method.adapted.items()}
    count = 0
    for batch in batches:
        for part in batch["image"].split(64):
            if len(part) < smallest:
                continue
            seen = part.to(device)
            if method.in_windows(seen):
                seen = drawn(seen, cast(Sequence[int], network.window), 1, method.generator)
            logits = method.predict(seen).logits
            network.zero_grad()
            F.cross_entropy(logits, logits.detach().argmax(1)).backward()  # type: ignore[no-untyped-call]
            for name, p in method.adapted.items():
                if p.grad is not None:
                    total[name] += p.grad.square()
            count += 1
    network.zero_grad()
    return {name: (value / count).cpu() for name, value in total.items()} if count else None


def layer_moments(
    network: Network, batches: Iterable[Mapping[str, Any]], num_classes: int
) -> dict[str, Tensor] | None:
    """What each class looks like to each BatchNorm layer, by which ``normalization=auto`` tells a
    new scanner from a new mix.

    Returns:
        Mean and mean square (2, C, channels) by layer; None where there is no such layer, or where
        the table would outgrow the network because there are so many classes.
    """
    method = create_method("source", network, num_classes=num_classes)
    moments = class_conditional_moments(method.model, batches, num_classes, network.mean.device)
    size = sum(value.numel() for value in moments.values())
    return moments if moments and size <= sum(p.numel() for p in network.parameters()) else None


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T in [0.05, 20] that minimises the cross-entropy of logits / T (Guo et al.,
    ICML 2017).

    Args:
        logits: (N, C).
        labels: (N,).
    """
    log_t = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits / log_t.exp(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return float(log_t.detach().exp().clamp(0.05, 20))
