"""Options that networks share, and what they mean to MONAI."""

from dataclasses import dataclass
from typing import Any, Literal

from holdfast.tta.options import option


@dataclass
class ModelConfig:
    """A MONAI network."""

    norm: Literal["batch", "group", "instance"] = option(
        "batch", "normalisation layers: batch, group or instance"
    )


#: Normalisation layers by name, all with weights, as MONAI takes them.
NORMS: dict[str, Any] = {
    "batch": "batch",
    "group": ("group", {"num_groups": 8}),
    "instance": ("instance", {"affine": True}),
}
