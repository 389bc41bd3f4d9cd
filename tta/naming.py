"""What libraries call the layers of one network: names that mean the same become equal.

Vision transformers are known by timm's names, whoever held the weights: torchvision's, those that
Hugging Face publishes for ViT and DINOv2, and MONAI's. DynUNet's layers stand twice in its files:
they are known by those names that its forward pass goes by.
"""

import re
from collections.abc import Iterable

#: First parts of a name that say who held the network, not what is in it: wrappers, and how our
#: networks and MONAI's DenseNet, ViT and DynUNet hold their layers.
_HOLDERS = frozenset(
    {"model", "net", "network", "encoder", "backbone", "features", "vit", "dinov2", "0"}
    | {"skip_layers"}
)
#: Parts that say nothing wherever they stand: what DataParallel and torch.compile put around a
#: module, and the list in which MONAI's DenseNet holds what torchvision's holds itself.
_SILENT = frozenset({"module", "_orig_mod", "layers"})
#: What networks call the last layer.
_HEADS = (
    "fc",
    "_fc",
    "class_layers.out",
    "classification_head.0",
    "classification_head",
    "classifier",
    "heads.head",
    "head",
    # MONAI's networks of pixels: BasicUNet, SegResNet, DynUNet and Swin UNETR.
    "final_conv",
    "conv_final.2.conv",
    "output_block.conv.conv",
    "out.conv.conv",
)
#: A block of a transformer: timm's and MONAI's, torchvision's, Hugging Face's.
_BLOCK = r"^(?:blocks\.|encoder_layer_|layer\.)(\d+)\."
#: Within a block, what others call timm's layers.
_WITHIN = (
    (r"layernorm_before|ln_1", "norm1"),
    (r"layernorm_after|ln_2", "norm2"),
    (r"attention\.attention\.query", "attn.qkv.0"),
    (r"attention\.attention\.key", "attn.qkv.1"),
    (r"attention\.attention\.value", "attn.qkv.2"),
    (r"attention\.output\.dense|self_attention\.out_proj|attn\.out_proj", "attn.proj"),
    (r"self_attention\.in_proj_", "attn.qkv."),
    (r"intermediate\.dense|mlp\.(?:linear_?1|0)(?=\.)", "mlp.fc1"),
    (r"output\.dense|mlp\.(?:linear_?2|3)(?=\.)", "mlp.fc2"),
    (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
)
#: Around the blocks.
_AROUND = (
    (r"embeddings\.cls_token|class_token", "cls_token"),
    (r"embeddings\.position_embeddings|pos_embedding", "pos_embed"),
    (r"patch_embedding\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection|conv_proj", "patch_embed.proj"),
    (r"patch_embedding\.patch_embeddings", "patch_embed.proj"),
    (r"layernorm|ln", "norm"),
)


def plain(name: str) -> str:
    """A tensor's name without its holders, by timm's words in a transformer, the last layer being
    ``head``.

    >>> plain("module.vit.encoder.layer.3.attention.output.dense.bias")
    'blocks.3.attn.proj.bias'
    >>> plain("_orig_mod.backbone.fc.weight")
    'head.weight'
    """
    parts = [part for part in name.split(".") if part not in _SILENT]
    while len(parts) > 1 and parts[0] in _HOLDERS:
        parts = parts[1:]
    short = ".".join(parts)
    head = next((head for head in _HEADS if short.startswith(f"{head}.")), None)
    if head is not None:
        return f"head.{short.removeprefix(f'{head}.')}"
    if short.startswith("denseblock"):  # as torchvision's published files have it: norm.1
        return re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", short)
    block = re.match(_BLOCK, short)
    if block is None:
        return _renamed(short, _AROUND)
    return f"blocks.{block[1]}.{_renamed(short[block.end() :], _WITHIN)}"


def nested(name: str, levels: int) -> str:
    """The name that a layer of DynUNet has in its forward pass, where each level holds the next.

    >>> nested("downsamples.0.conv1.conv.weight", 2)
    'next_layer.downsample.conv1.conv.weight'

    Args:
        name: without holders.
        levels: how many ``downsamples`` it has.
    """
    stage, _, rest = name.partition(".")
    if stage == "input_block":
        return f"downsample.{rest}"
    if stage == "bottleneck":
        return "next_layer." * (levels + 1) + rest
    if stage not in ("downsamples", "upsamples"):
        return name
    place, _, rest = rest.partition(".")
    depth = int(place) + 1 if stage == "downsamples" else levels - int(place)
    return "next_layer." * depth + f"{stage.removesuffix('s')}.{rest}"


def holders(names: Iterable[str]) -> list[str]:
    """What stands before all or some of the names and says only who held the network, longest
    first, each with its dot; the empty one is the last.
    """
    found = {""}
    for name in names:
        parts = name.split(".")
        for count in range(1, len(parts)):
            if parts[count - 1] not in _HOLDERS | _SILENT:
                break
            found.add(".".join(parts[:count]) + ".")
    return sorted(found, key=len, reverse=True)


def unwrapped(name: str) -> str:
    """A name without what DataParallel and torch.compile put around modules, wherever it stands."""
    return ".".join(part for part in name.split(".") if part not in ("module", "_orig_mod"))


def _renamed(name: str, rules: Iterable[tuple[str, str]]) -> str:
    for pattern, word in rules:
        found = re.match(rf"(?:{pattern})", name)
        # A whole word: ``ln`` is not the beginning of another.
        if found and (found.end() == len(name) or name[found.end()] == "." or word[-1] == "."):
            return found.expand(word) + name[found.end() :]
    return name
