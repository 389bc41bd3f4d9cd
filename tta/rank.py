"""How many directions features use: it falls when classes merge. Supporting evidence only."""

import torch
from torch import Tensor


def effective_rank(features: Tensor) -> Tensor:
    """Exponential of the entropy of the covariance's normalised eigenvalues (Roy and Vetterli, EUSIPCO 2007).

    From the eigenvalues of the centred features' Gram matrix, the smaller of the two, in O(N·D·min(N, D)); rows that are not
    finite are left out.

    Args:
        features: (N, D).

    Returns:
        Scalar between 1 and min(N − 1, D); 0 where nothing varies: fewer than two rows, or all alike.
    """
    features = features.detach().float()
    finite = torch.isfinite(features).all(1, keepdim=True)
    features = torch.where(finite, features, 0.0)
    centred = torch.where(finite, features - features.sum(0) / finite.sum().clamp(min=1), 0.0)
    gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    # On the CPU: of a matrix so small they take a GPU four to five times as long, the way there and back included.
    variances = torch.linalg.eigvalsh(gram.cpu()).to(gram.device).clamp(min=0)
    total = variances.sum()
    shares = variances / total.clamp(min=torch.finfo(total.dtype).tiny)
    varies = total > 1e-12 * features.square().sum()
    return torch.where(varies, torch.special.entr(shares).sum().exp(), 0.0)
