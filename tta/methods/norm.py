"""Batch statistics in the place of the source's, nothing learned."""

from tta.methods.base import Method


class Norm(Method):
    """Predict with the source's weights and each batch's own statistics.

    Schneider et al., "Improving robustness against common corruptions by covariate shift adaptation", NeurIPS 2020.
    """
