"""How many directions features use: it falls when classes merge. Supporting evidence only."""

import torch
from torch import Tensor

#: Rows of a matrix that is best left to the CPU.
_SMALL = 128


def effective_rank(features: Tensor) -> Tensor:
    """Exponential of the entropy of the covariance's normalised eigenvalues (Roy and Vetterli,
    EUSIPCO 2007).

    From the eigenvalues of the centred features' Gram matrix, the smaller of the two, in
    O(N·D·min(N, D)); rows that are not finite are left out.

    Args:
        features: (N, D).

    Returns:
        Scalar between 1 and min(N − 1, D); 0 where nothing varies: fewer than two rows, or all
        alike.
    """
    features = features.detach().float()
    finite = torch.isfinite(features).all(1, keepdim=True)
    features = torch.where(finite, features, 0.0)
    centred = torch.where(finite, features - features.sum(0) / finite.sum().clamp(min=1), 0.0)
    gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    # A small matrix (64 rows) takes a GPU four to five times as long as the CPU, the way there and
    # back included.
    gram = gram.cpu() if len(gram) <= _SMALL else gram
    variances = torch.linalg.eigvalsh(gram).to(features.device).clamp(min=0)
    total = variances.sum()
    shares = variances / total.clamp(min=torch.finfo(total.dtype).tiny)
    varies = total > 1e-12 * features.square().sum()
    return torch.where(varies, torch.special.entr(shares).sum().exp(), 0.0)
