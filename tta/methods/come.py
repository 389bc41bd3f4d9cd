"""COME: an entropy that leaves room for doubt, in the place of other methods' entropy."""

from typing import ClassVar

from torch import Tensor

from holdfast.tta.methods.eata import EATA
from holdfast.tta.methods.sar import SAR
from holdfast.tta.methods.tent import Tent
from holdfast.tta.objectives import opinion_entropy

_PAPER = "Zhang et al., ICLR 2025"


class ComeTent(Tent):
    """Tent on the entropy of a subjective opinion."""

    paper: ClassVar[str] = _PAPER

    def uncertainty(self, logits: Tensor) -> Tensor:
        """Entropy of beliefs and uncertain mass, in nats."""
        return opinion_entropy(logits)


class ComeEATA(EATA):
    """EATA on the entropy of a subjective opinion."""

    paper: ClassVar[str] = _PAPER

    def uncertainty(self, logits: Tensor) -> Tensor:
        """Entropy of beliefs and uncertain mass, in nats."""
        return opinion_entropy(logits)


class ComeSAR(SAR):
    """SAR on the entropy of a subjective opinion."""

    paper: ClassVar[str] = _PAPER

    def uncertainty(self, logits: Tensor) -> Tensor:
        """Entropy of beliefs and uncertain mass, in nats."""
        return opinion_entropy(logits)
