"""What a network says of a batch, as the rows that statistics and objectives see."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Prediction(NamedTuple):
    """What a network says of a batch, as rows that each belong to one of C classes.

    Where each image has one label, rows are images and nothing but ``logits`` and ``features`` is
    there. Other tasks (``holdfast.tta.tasks``) have several rows an image, as many of each, one
    image after the other.

    Attributes:
        logits: (M, C) of the rows.
        features: (M, D) of the rows: what goes into the network's head.
        output: what the network answered, (N, K) or (N, K, *spatial); None: the logits.
        image: (M,) the image of each row, 0..N-1; None: rows are images.
        group: (M,) the group of each row, whose C classes exclude each other (a finding, present
            or not); None: there is one.
        doubt: (N,) how little the model agrees with itself on the flipped images, from 0 to 1;
            None: nobody asked.
    """

    logits: Tensor
    features: Tensor
    output: Tensor | None = None
    image: Tensor | None = None
    group: Tensor | None = None
    doubt: Tensor | None = None

    @property
    def served(self) -> Tensor:
        """What leaves: (N, K) or (N, K, *spatial)."""
        return self.logits if self.output is None else self.output

    def detach(self) -> "Prediction":
        """The same values without their graph."""
        output = None if self.output is None else self.output.detach()
        return self._replace(
            logits=self.logits.detach(), features=self.features.detach(), output=output
        )

    def cells(self, labels: Tensor) -> Tensor:
        """Where classes (M,) of the rows stand among those of all groups, one group's C after the
        other's: (M,) of 0..G·C-1; the classes themselves where there is one group.
        """
        return labels if self.group is None else self.group * self.logits.shape[1] + labels

    def each_image(self, values: Tensor) -> Tensor:
        """Mean over the rows of each image, (N, ...) of values (M, ...)."""
        if self.image is None:
            return values
        images = len(self.served)
        rows = len(values) // max(images, 1)
        return values.reshape(images, rows, *values.shape[1:]).mean(1)

    def to(self, device: torch.device | str) -> "Prediction":
        """The same on a device."""
        parts = [None if part is None else part.to(device) for part in self[2:]]
        return Prediction(self.logits.to(device), self.features.to(device), *parts)

    def of_images(self, keep: Tensor) -> "Prediction":
        """Of some of the images.

        Args:
            keep: (N,) whether each stays.
        """
        if self.image is None:
            output = None if self.output is None else self.output[keep]
            return self._replace(
                logits=self.logits[keep], features=self.features[keep], output=output
            )
        rows = keep[self.image]
        image = (keep.long().cumsum(0) - 1)[self.image[rows]]
        return Prediction(
            self.logits[rows],
            self.features[rows],
            self.served[keep],
            image,
            None if self.group is None else self.group[rows],
            None if self.doubt is None else self.doubt[keep],
        )

    def at(self, rows: Tensor) -> "Prediction":
        """Some rows (m,) of it, by their numbers; what leaves is no part of that."""
        image = None if self.image is None else self.image[rows]
        group = None if self.group is None else self.group[rows]
        return Prediction(self.logits[rows], self.features[rows], None, image, group)


def joined(parts: Sequence[Prediction]) -> Prediction:
    """Predictions of one batch after the other as that of all images.

    Args:
        parts: at least one, of the same task.
    """
    logits = torch.cat([part.logits for part in parts])
    features = torch.cat([part.features for part in parts])
    outputs = [part.output for part in parts if part.output is not None]
    images, first = [], 0
    for part in parts:
        if part.image is not None:
            images.append(part.image + first)
        first += len(part.served)
    groups = [part.group for part in parts if part.group is not None]
    return Prediction(
        logits, features, *(torch.cat(x) if x else None for x in (outputs, images, groups))
    )
