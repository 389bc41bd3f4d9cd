"""Weights under the names of torchvision, timm, Hugging Face and MedicalNet: adopted, they give the
logits that their own library's network gives, and go back under the names that they came with.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import EfficientNetBN, ResNet, ViT
from torch import Tensor, nn

from holdfast.tta.errors import InputError
from holdfast.tta.matching import Match, restored
from holdfast.tta.networks import MODELS, Network, create_network
from holdfast.tta.weights import adopt
from tests.peers import peer
from tests.test_weights import saved

_CLASSES = 3
#: ViT-B/16 in small: another depth and width, the same names.
_SMALL = {"patch_size": 16, "hidden_size": 48, "layers": 2, "qkv_bias": True, "epsilon": 1e-6}
_BASE = {**_SMALL, "hidden_size": 768, "layers": 12, "heads": 12}
Size = tuple[int, ...]


def varied(network: nn.Module) -> nn.Module:
    """A network whose parameters and statistics all tell: none is 0, 1 or hardly anything."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in [*network.named_buffers(), *network.named_parameters()]:
            noise = torch.randn(value.shape, generator=draw)
            if name.endswith("running_var"):
                value.copy_(1 + 0.3 * noise.abs())
            elif value.is_floating_point() and (value.dim() < 2 or "embed" in name):
                value.add_(0.1 * noise)
            elif re.search(r"token|layer_scale|gamma|lambda", name):
                value.copy_(0.5 + 0.1 * noise)
            elif re.search(r"head|fc|classifier", name) and value.is_floating_point():
                value.copy_(5 * noise / value.shape[1] ** 0.5)
    return network.eval()


def built(kind: str, size: Size, classes: int = _CLASSES, **options: Any) -> Network:
    config = MODELS[kind](**options)
    return create_network(kind, config, num_classes=classes, channels=3, size=size)[0].eval()


def check(
    theirs: nn.Module,
    state: dict[str, Tensor],
    folder: Path,
    kind: str,
    size: Size = (64, 64),
    **options: Any,
) -> Match:
    """Adopt a state dict, compare the logits, write it back and adopt that."""
    ours = built(kind, size, **options)
    result = adopt(ours, saved(folder / "file.pt", state))
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        expected, found = theirs(images), ours(images)
        expected = expected[0] if isinstance(expected, tuple) else expected
        assert expected.std() > 0.05  # of a network that says the same of everything any fits
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        back = restored(result.origin, ours.state_dict())
        assert back.keys() == state.keys() - set(result.unused)
        assert all(value.shape == state[name].shape for name, value in back.items())
        again = built(kind, size, **options)
        adopt(again, saved(folder / "back.pt", back))
        torch.testing.assert_close(again(images), found, atol=1e-5, rtol=1e-5)
    return result


@pytest.mark.parametrize(
    "name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow), "densenet121"]
)
def test_torchvisions_networks_that_are_monais_too(name: str, tmp_path: Path) -> None:
    theirs = varied(peer("torchvision.models").get_model(name, num_classes=_CLASSES))
    result = check(theirs, theirs.state_dict(), tmp_path, name)
    assert result.fits
    assert result.unused == ()


def test_names_of_torchvisions_published_densenet(tmp_path: Path) -> None:
    theirs = varied(peer("torchvision.models").densenet121(num_classes=_CLASSES))
    state = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): value
        for name, value in theirs.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    check(theirs, state, tmp_path, "densenet121")


def test_timms_resnet50_is_monais_too(tmp_path: Path) -> None:
    theirs = varied(peer("timm").create_model("resnet50", num_classes=_CLASSES))
    check(theirs, theirs.state_dict(), tmp_path, "resnet50")


@pytest.mark.parametrize(
    "named",
    [
        *("torchvision:resnet18", "timm:test_convnext", "timm:efficientnet_b0"),
        pytest.param("torchvision:convnext_tiny", marks=pytest.mark.slow),
        pytest.param("timm:convnext_tiny", marks=pytest.mark.slow),
        pytest.param("timm:swin_tiny_patch4_window7_224", marks=pytest.mark.slow),
    ],
)
def test_networks_of_a_library_take_its_weights_whoever_held_them(
    named: str, tmp_path: Path
) -> None:
    kind, name = named.split(":")
    peer("timm" if kind == "timm" else "torchvision.models")
    theirs = varied(built(kind, (64, 64), name=name).model)
    held = {f"module.backbone.{key}": value for key, value in theirs.state_dict().items()}
    check(theirs, theirs.state_dict(), tmp_path, kind, name=name)
    check(theirs, held, tmp_path, kind, name=name)


def torchvision_vit(base: bool = False) -> nn.Module:
    transformer = peer("torchvision.models").VisionTransformer
    sizes = (64, 16, 12, 12, 768, 3072) if base else (64, 16, 2, 3, 48, 192)
    return varied(transformer(*sizes, num_classes=_CLASSES))


def timm_vit(base: bool = False, **more: Any) -> nn.Module:
    arguments = {} if base else {"embed_dim": 48, "depth": 2, "num_heads": 3}
    name = "vit_base_patch16_224"
    arguments |= {"num_classes": _CLASSES, "img_size": 64, **more}
    return varied(peer("timm").create_model(name, **arguments))


@pytest.mark.parametrize("made", [torchvision_vit, timm_vit])
def test_vision_transformers_become_ours_and_timms(
    made: Callable[[], nn.Module], tmp_path: Path
) -> None:
    theirs = made()
    result = check(theirs, theirs.state_dict(), tmp_path, "vit", **_SMALL)
    assert result.unused == ()
    peer("timm")
    small = {"embed_dim": 48, "depth": 2, "num_heads": 3}
    check(
        theirs,
        theirs.state_dict(),
        tmp_path,
        "timm",
        name="vit_base_patch16_224",
        arguments=small,
    )


@pytest.mark.slow
@pytest.mark.parametrize("made", [torchvision_vit, timm_vit])
def test_vit_b16_in_full_size(made: Callable[[bool], nn.Module], tmp_path: Path) -> None:
    theirs = made(True)
    check(theirs, theirs.state_dict(), tmp_path, "vit", **_BASE)


#: How Hugging Face's ViT calls timm's layers, of its published checkpoints.
_HUGGING_FACE = (
    (r"^cls_token", "vit.embeddings.cls_token"),
    (r"^pos_embed", "vit.embeddings.position_embeddings"),
    (r"^patch_embed\.proj", "vit.embeddings.patch_embeddings.projection"),
    (r"^blocks\.(\d+)\.norm1", r"vit.encoder.layer.\1.layernorm_before"),
    (r"^blocks\.(\d+)\.norm2", r"vit.encoder.layer.\1.layernorm_after"),
    (r"^blocks\.(\d+)\.attn\.proj", r"vit.encoder.layer.\1.attention.output.dense"),
    (r"^blocks\.(\d+)\.attn\.qkv", r"vit.encoder.layer.\1.attention.attention.qkv"),
    (r"^blocks\.(\d+)\.mlp\.fc1", r"vit.encoder.layer.\1.intermediate.dense"),
    (r"^blocks\.(\d+)\.mlp\.fc2", r"vit.encoder.layer.\1.output.dense"),
    (r"^norm\.", "vit.layernorm."),
    (r"^head\.", "classifier."),
)
#: The same of DINOv2, where it differs.
_DINO = (
    (r"^vit\.", "dinov2."),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"(layer\.\d+)\.output\.dense", r"\1.mlp.fc2"),
    (r"^blocks\.(\d+)\.ls(\d)\.gamma", r"dinov2.encoder.layer.\1.layer_scale\2.lambda1"),
)


def renamed(state: dict[str, Tensor], *tables: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """A state dict of timm's under Hugging Face's names, which hold queries, keys and values
    apart.
    """
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        for table in tables:
            for pattern, word in table:
                name = re.sub(pattern, word, name)
        if ".qkv." not in name:
            result[name] = value
            continue
        for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
            result[name.replace("qkv", part)] = third
    return result


def test_hugging_faces_vit(tmp_path: Path) -> None:
    theirs = timm_vit()
    state = renamed(theirs.state_dict(), _HUGGING_FACE)
    assert "vit.encoder.layer.1.attention.attention.key.bias" in state
    state["vit.pooler.dense.weight"] = torch.zeros(48, 48)
    result = check(theirs, state, tmp_path, "vit", **_SMALL)
    assert result.unused == ("vit.pooler.dense.weight",)
    for gone in ("vit.encoder.layer.1.attention.attention.key.bias", "vit.layernorm.bias"):
        short = {name: value for name, value in state.items() if name != gone}
        with pytest.raises(InputError, match="1 missing"):
            adopt(built("vit", (64, 64), **_SMALL), saved(tmp_path / "short.pt", short))


class Pooled(nn.Module):
    """Logits of class token and mean of the others, as Hugging Face's DINOv2 classifies."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.classifier = nn.Linear(2 * 48, _CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.network.forward_features(images)
        return self.classifier(torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1))


def test_hugging_faces_dinov2_whose_factors_are_put_into_other_layers(tmp_path: Path) -> None:
    theirs = timm_vit(init_values=1.0)
    state = theirs.state_dict()
    assert "blocks.1.ls2.gamma" in state
    check(theirs, state, tmp_path, "vit", **_SMALL)
    pooled = varied(Pooled(theirs))
    named = {name: value for name, value in state.items() if not name.startswith("head.")}
    named = renamed(named, _HUGGING_FACE, _DINO)
    named |= {
        "dinov2.embeddings.mask_token": torch.zeros(1, 48),
        **{f"classifier.{name}": value for name, value in pooled.classifier.state_dict().items()},
    }
    assert "dinov2.encoder.layer.1.layer_scale1.lambda1" in named
    result = check(pooled, named, tmp_path, "vit", **_SMALL, pool="token_mean")
    assert result.unused == ("dinov2.embeddings.mask_token",)
    named["dinov2.embeddings.register_tokens"] = torch.zeros(1, 4, 48)  # it does more
    with pytest.raises(InputError, match="does not fit the network"):
        adopt(built("vit", (64, 64), **_SMALL, pool="token_mean"), saved(tmp_path / "r.pt", named))


def test_the_sizes_of_a_transformer_are_named(tmp_path: Path) -> None:
    file = saved(tmp_path / "vit.pt", timm_vit().state_dict())
    network, description = create_network(
        "vit", MODELS["vit"](), num_classes=_CLASSES, channels=3, size=(64, 64)
    )
    wanted = r"it fits model=vit model.patch_size=16 model.hidden_size=48 model.layers=2 "
    with pytest.raises(InputError, match=wanted + r"model.heads=1 model.qkv_bias=true"):
        adopt(network, file, description=description)


@pytest.mark.parametrize(
    ("kind", "named", "told"),
    [
        ("timm", "test_convnext", "model=timm:convnext_tiny, or its like"),
        ("timm", "test_efficientnet", "model=timm:efficientnet_b0, or its like"),
    ],
)
def test_weights_that_only_their_library_has_a_network_for(
    kind: str, named: str, told: str, tmp_path: Path
) -> None:
    peer("timm" if kind == "timm" else "torchvision.models")
    file = saved(tmp_path / "file.pt", built(kind, (64, 64), name=named).model.state_dict())
    network, description = create_network(
        "compact", MODELS["compact"](), num_classes=_CLASSES, channels=3, size=(64, 64)
    )
    with pytest.raises(InputError, match=told):
        adopt(network, file, description=description)


def test_medicalnets_names_in_3d(tmp_path: Path) -> None:
    theirs = ResNet(
        *("basic", [1, 1, 1, 1], [64, 128, 256, 512]),
        spatial_dims=3,
        n_input_channels=3,
        conv1_t_stride=2,
        num_classes=_CLASSES,
        bias_downsample=False,
    )
    theirs = varied(theirs)
    state = {"state_dict": {f"module.{key}": value for key, value in theirs.state_dict().items()}}
    backbone = {key: value for key, value in state["state_dict"].items() if ".fc." not in key}
    with pytest.raises(InputError, match="it is a backbone, which tells no classes"):
        adopt(built("resnet10", (32, 32, 32)), saved(tmp_path / "backbone.pth", backbone))
    ours = built("resnet10", (32, 32, 32))
    adopt(ours, saved(tmp_path / "file.pth", state))
    images = torch.rand(2, 3, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-4, rtol=1e-4)


def test_monais_efficientnet_and_its_vit_with_biases(tmp_path: Path) -> None:
    efficient = varied(EfficientNetBN("efficientnet-b0", pretrained=False, num_classes=_CLASSES))
    check(efficient, efficient.state_dict(), tmp_path, "efficientnet")
    small = {"hidden_size": 48, "mlp_dim": 192, "num_layers": 2, "num_heads": 3}
    vit = ViT(
        *(3, (64, 64), 16),
        **small,
        classification=True,
        num_classes=_CLASSES,
        spatial_dims=2,
        qkv_bias=True,
        post_activation="none",
    )
    sizes = {**_SMALL, "epsilon": 1e-5}
    check(varied(vit), vit.state_dict(), tmp_path, "vit", **sizes)
