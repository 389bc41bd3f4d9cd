"""Networks, with their input scaling inside: MONAI's, split into features and a head, and those of
other libraries or of a user's own file, whole.
"""

from holdfast.tta.networks.classifiers import EfficientNetConfig, ResNetConfig, ViTConfig, stem
from holdfast.tta.networks.create import (
    MODELS,
    NETWORKS,
    Architecture,
    create_network,
    network_from,
    register_network,
)
from holdfast.tta.networks.dense import DenseNetwork
from holdfast.tta.networks.lookalikes import lookalikes
from holdfast.tta.networks.modules import Network, SplitNetwork, WholeNetwork
from holdfast.tta.networks.seal import check_seal, sealed
from holdfast.tta.networks.segmenters import DenseConfig
from holdfast.tta.networks.settings import ModelConfig

__all__ = [
    "MODELS",
    "NETWORKS",
    "Architecture",
    "DenseConfig",
    "DenseNetwork",
    "EfficientNetConfig",
    "ModelConfig",
    "Network",
    "ResNetConfig",
    "SplitNetwork",
    "ViTConfig",
    "WholeNetwork",
    "check_seal",
    "create_network",
    "lookalikes",
    "network_from",
    "register_network",
    "sealed",
    "stem",
]
