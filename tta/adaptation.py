"""The LightningModule that carries one adaptation method through a stream."""

from holdfast.tta.candidates import Candidates
from holdfast.tta.guarded import AdaptsAtTestTime
from holdfast.tta.methods.base import Method


class AdaptationModule(AdaptsAtTestTime):
    """One online pass: predict each batch with the weights as they are, then update.

    Use it in ``Trainer.fit`` for one epoch, or in ``validate``, ``test`` or ``predict``, with
    batches that are dictionaries, tuples ``(images, labels)`` or tensors of images.
    ``StepOutputs`` says what its steps return. To adapt a LightningModule of your own, derive from
    ``AdaptsAtTestTime``.

    Args:
        method: from ``create_method``.
        batch_size: nominal size of a batch; smaller ones are short. None: the largest so far.
        screen: skip the update on batches that teach the wrong thing (short ones, and those of
            hardly more than one class).
        candidates: the un-updated network under several statistics, for a method whose
            normalisation is chosen as it goes.

    Example:
        >>> import torch
        >>> from lightning import Trainer
        >>> from torch import nn
        >>> from holdfast.tta.methods import create_method
        >>> network = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2))
        >>> module = AdaptationModule(create_method("tent", network, num_classes=2, lr=0.01))
        >>> quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
        >>> loader = torch.utils.data.DataLoader(torch.randn(64, 3), batch_size=32)
        >>> len(Trainer(**quiet).predict(module, loader))
        2
    """

    def __init__(
        self,
        method: Method,
        batch_size: int | None = None,
        screen: bool = True,
        candidates: Candidates | None = None,
    ) -> None:
        super().__init__()
        self.adapt_by(method, batch_size, screen=screen, candidates=candidates)
