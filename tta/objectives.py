"""Loss functions of test-time adaptation, pure and per sample."""

from torch import Tensor


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of softmax(logits), in nats.

    Args:
        logits: (N, C).

    Returns:
        (N,) values in [0, ln C].
    """
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def balanced_weights(labels: Tensor, marginal: Tensor, target: Tensor) -> Tensor:
    """Weights that give each predicted class its target share of the loss: target(ŷ) / marginal(ŷ).

    Args:
        labels: (N,) predicted classes.
        marginal: (C,) share of each class among recent predictions.
        target: (C,) share that each class should have.

    Returns:
        (N,) weights; their mean is 1 where ``marginal`` is exactly the labels' own.
    """
    return (target / marginal)[labels]
