"""Batch statistics in the place of the source's, nothing learned."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from holdfast.tta.methods.base import Method
from holdfast.tta.methods.settings import MethodConfig
from holdfast.tta.options import option


@dataclass
class NormConfig(MethodConfig):
    """Which statistics."""

    normalization: Literal["batch", "auto"] = option(
        "batch", "batch: each batch's own, or auto: chosen by the guard as it goes"
    )


class Norm(Method):
    """Predict with the source's weights and each batch's own statistics."""

    Config: ClassVar[type[MethodConfig]] = NormConfig
    config: NormConfig
    paper: ClassVar[str] = "Nado et al., 2020; Schneider et al., NeurIPS 2020"
    static: ClassVar[bool] = True
