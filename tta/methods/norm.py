"""Batch statistics in the place of the source's, nothing learned."""

from typing import ClassVar

from tta.methods.base import Method


class Norm(Method):
    """Predict with the source's weights and each batch's own statistics."""

    paper: ClassVar[str] = "Nado et al., 2020; Schneider et al., NeurIPS 2020"
    static: ClassVar[bool] = True
