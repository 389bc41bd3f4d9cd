"""Networks whose weights have the same shapes."""

from collections.abc import Mapping
from typing import Any

from holdfast.tta.networks.classifiers import ResNetConfig, ViTConfig, stem
from holdfast.tta.networks.create import MODELS
from holdfast.tta.networks.settings import ModelConfig


def lookalikes(description: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Options under which a network would have the very same weights and compute something else.

    Args:
        description: of the network, from ``create_network``.

    Returns:
        The options that differ, of each such network: another stem of a ResNet, group in place of
        instance normalisation or the reverse, other heads of a transformer.
    """
    kind = description["kind"]
    config = MODELS[kind](**description["options"])
    if not isinstance(config, ViTConfig | ModelConfig):
        return []
    if isinstance(config, ViTConfig):
        heads = [count for count in _HEADS if config.hidden_size % count == 0]
        return [{"heads": count} for count in heads if count != config.heads]
    norms: list[dict[str, Any]] = [{}]
    if config.norm != "batch":
        norms.append({"norm": "instance" if config.norm == "group" else "group"})
    stems = _other_stems(config, kind == "compact") if isinstance(config, ResNetConfig) else [{}]
    return [{**one, **other} for one in stems for other in norms if one or other]


#: How many heads transformers have.
_HEADS = (1, 2, 3, 4, 6, 8, 12, 16)


def _other_stems(config: ResNetConfig, small: bool) -> list[dict[str, Any]]:
    """What differs in each stem that a ResNet could have; first nothing, which is its own."""
    stride, pool = stem(config, small)
    strides = [{}, {"conv1_stride": 3 - stride}]  # the other of 1 and 2
    pools = [{}, {"max_pool": not pool}]
    return [{**one, **other} for one in strides for other in pools]
