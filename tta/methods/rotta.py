"""RoTTA: learn from a class-balanced memory of recent samples, under robust statistics."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from holdfast.tta.errors import InputError
from holdfast.tta.methods.base import Prediction, Update
from holdfast.tta.methods.norm_affine import NormAffineMethod
from holdfast.tta.methods.settings import MethodConfig, Published, UpdateConfig
from holdfast.tta.methods.tensors import Tensors
from holdfast.tta.normalization import Normalization, statistics
from holdfast.tta.objectives import cross_entropy, entropy
from holdfast.tta.options import option, within


@dataclass
class RoTTAConfig(UpdateConfig):
    """Hyperparameters of RoTTA."""

    published = Published(optimizer="adam", lr=1e-3)

    normalization: Literal[Normalization, "auto"] = option(
        "robust",
        "statistics of BatchNorm layers: batch, source, blend (of the two), robust (moving "
        "average) or median",
    )
    alpha: float = option(0.05, "the batch's weight in blend and robust statistics, in (0, 1]")
    capacity: int = option(64, "samples in the memory")
    update_every: int = option(64, "samples between two updates")
    rate: float = option(
        1e-3, "share of the way that the teacher goes to the student after an update, in [0, 1]"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "rate", 0, 1)
        for name in ("capacity", "update_every"):
            if getattr(self, name) < 1:
                raise InputError(f"method.{name} must be at least 1")


class Sample(NamedTuple):
    """An image in memory: its row, what it mostly shows, the (mean) entropy of its prediction in
    nats, and age in samples.

    A sample is 0 old when it asks to enter, and 1 once it has, as in the released memory.
    """

    row: int
    label: int
    entropy: float
    age: int


class RoTTA(NormAffineMethod):
    """Cross-entropy to an averaging teacher on the memory, older samples counting less; the teacher
    predicts.

    Teacher and student each keep moving statistics of their own: the teacher's, in the model, of
    the memory's images, the student's of the views.
    """

    Config: ClassVar[type[MethodConfig]] = RoTTAConfig
    config: RoTTAConfig
    paper: ClassVar[str] = "Yuan et al., CVPR 2023"
    passes: ClassVar[str] = "1/0, and 2/1 an update"
    needs_mixed_batch: ClassVar[bool] = False
    teacher: Tensors
    student_moving: Tensors
    waiting: Tensor

    def register_state(self) -> None:
        """The teacher's weights, the student's moving statistics, and the samples since the last
        update.

        The memory fills later.
        """
        self.teacher = Tensors(self.source_values)
        self.student_moving = Tensors(self.moving_statistics())
        self.register_buffer("waiting", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """What the teacher says, under the statistics as they stand."""
        if all(layer.statistics != "robust" for layer in self.layers.values()):
            return self.run(images, self.teacher.values())
        with statistics(self.model, "moving"):
            return self.run(images, self.teacher.values())

    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        """Take each sample into the memory; update whenever enough have come."""
        labels = self.task.kind(prediction.detach()).tolist()
        entropies = prediction.each_image(entropy(prediction.logits.detach().float())).tolist()
        samples, pool = self._recall(), images
        if samples:
            pool = torch.cat([self.memory["images"], images])
        first, loss, waiting = len(samples), None, int(self.waiting)
        for index, (label, value) in enumerate(zip(labels, entropies, strict=True)):
            samples = [
                sample._replace(age=sample.age + 1)
                for sample in remembered(
                    samples,
                    Sample(first + index, label, value, 0),
                    self.config.capacity,
                    self.num_classes,
                    self.task.kinds,
                )
            ]
            waiting += 1
            if waiting >= self.config.update_every:
                waiting, loss = 0, self.learn_from(pool, samples)
        self.waiting.fill_(waiting)
        self.memory = {
            "images": pool[[sample.row for sample in samples]].clone(),
            "labels": torch.tensor([sample.label for sample in samples]),
            "entropies": torch.tensor([sample.entropy for sample in samples]),
            "ages": torch.tensor([sample.age for sample in samples]),
        }
        return Update(loss=loss)

    def learn_from(self, pool: Tensor, samples: list[Sample]) -> Tensor:
        """Updates on the memory; the teacher and the moving statistics follow."""
        images = pool[[sample.row for sample in samples]]
        ages = images.new_tensor([sample.age / self.config.capacity for sample in samples])
        for _ in range(self.config.steps):
            with torch.no_grad():
                taught = self.run(images, self.teacher.values())
            self.keep_moving()
            student = self.run_student(*self.viewed(images))
            costs = taught.each_image(cross_entropy(student.logits, taught.logits))
            loss = (costs * torch.sigmoid(-ages)).mean()  # e^−a / (1 + e^−a)
            self.descend(loss)
            self.teacher.follow(dict(self.adapted), self.config.rate)
        return loss.detach()

    def run_student(
        self, images: Tensor, back: Callable[[Tensor], Tensor] | None = None
    ) -> Prediction:
        """What the student says; its moving statistics take the images in."""
        prediction, moving = self.run_apart(images, {}, self.student_moving.values(), back)
        self.student_moving.take(moving)
        return prediction

    def _recall(self) -> list[Sample]:
        if not self.memory:
            return []
        columns = (self.memory[name].tolist() for name in ("labels", "entropies", "ages"))
        return [Sample(row, *values) for row, values in enumerate(zip(*columns, strict=True))]


def remembered(
    samples: list[Sample], new: Sample, capacity: int, num_classes: int, kinds: int | None = None
) -> list[Sample]:
    """The memory after a new sample asked to enter.

    A class with its fair share replaces its own worst sample, one with less the worst of the most
    frequent classes; worse is older and less certain, and a sample worse than all of those stays
    outside.

    Args:
        samples: the memory.
        new: the sample.
        capacity: samples that the memory holds.
        num_classes: C, by which entropies are measured.
        kinds: how many labels share the memory; None: C.
    """

    def badness(sample: Sample) -> float:
        return 1 / (1 + math.exp(-sample.age / capacity)) + sample.entropy / math.log(num_classes)

    counts: dict[int, int] = {}
    for sample in samples:
        counts[sample.label] = counts.get(sample.label, 0) + 1
    if counts.get(new.label, 0) < capacity / (kinds or num_classes):
        if len(samples) < capacity:
            return [*samples, new]
        most = max(counts.values())
        rivals = {label for label, count in counts.items() if count == most}
    else:
        rivals = {new.label}
    worst = max((s for s in samples if s.label in rivals), key=badness, default=None)
    if worst is None:
        return [*samples, new]
    return (
        samples
        if badness(worst) <= badness(new)
        else [*(s for s in samples if s is not worst), new]
    )
