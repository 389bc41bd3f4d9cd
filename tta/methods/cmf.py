"""CMF: ROID's loss under a Kalman filter on the weights."""

from typing import ClassVar

import torch
from torch import Tensor

from holdfast.tta.methods.roid import ROID
from holdfast.tta.methods.tensors import Tensors

#: How fast the hidden weights forget, and the adapted weights follow; both as published.
_ALPHA = _GAMMA = 0.99


class CMF(ROID):
    """ROID in which a filtered estimate of the weights takes the source's place in the average."""

    paper: ClassVar[str] = "Lee and Chang, ICLR 2024"
    hidden: Tensors
    variance: Tensor

    def register_state(self) -> None:
        """ROID's, the hidden weights and their variance."""
        super().register_state()
        self.hidden = Tensors(self.source_values)
        self.register_buffer("variance", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def average(self) -> None:
        """Predict the hidden weights, correct them by the adapted ones, and move those a hundredth
        towards them.
        """
        process = 0.005 * sum(p.numel() for p in self.adapted.values()) / 38400
        noise = 1 - process
        self.hidden.follow(self.source_values, 1 - _ALPHA)
        self.variance.mul_(_ALPHA**2).add_(process)
        trust = (noise / (self.variance + noise)).clamp(min=0.89)
        trust = torch.where(trust < 0.9999, trust, 1.0)
        self.variance.mul_(trust)
        self.hidden.follow(dict(self.adapted), 1 - float(trust))
        for name, hidden in self.hidden.values().items():
            self.adapted[name].lerp_(hidden, 1 - _GAMMA)
