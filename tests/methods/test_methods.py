"""What every method promises, over METHODS."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from monai.networks.nets import ResNet
from torch import nn

from holdfast.testing import check_method
from holdfast.testing.subject import made_up
from holdfast.tta.errors import InputError
from holdfast.tta.layout import CHANNELS_LAST, CHANNELS_LAST_3D, CONTIGUOUS, Layout
from holdfast.tta.methods import METHODS, Method, UpdateConfig, create_method
from holdfast.tta.methods.dsbr import DSBRConfig
from holdfast.tta.methods.scaling import scaled
from holdfast.tta.networks import MODELS, NETWORKS, create_network
from holdfast.tta.objectives import balanced_weights, entropy
from holdfast.tta.tasks import create_task
from tests.conftest import small_network

LEARNING = [name for name, method in METHODS.items() if issubclass(method.Config, UpdateConfig)]
#: Methods that take one gradient step a batch on every batch, on the norm layers.
PLAIN = ["tent", "dot", "dsbr", "come"]
#: What lets every sample through, so that a fresh network learns from the first batch.
OPEN = {
    "pseudo_label": {"threshold": 0.0},
    "eta": {"entropy_margin": 9.0, "redundancy_margin": 1.0},
    "eata": {"entropy_margin": 9.0, "redundancy_margin": 1.0},
    "rdumb": {"entropy_margin": 9.0, "redundancy_margin": 1.0},
    "come_eata": {"entropy_margin": 9.0, "redundancy_margin": 1.0},
    "sar": {"entropy_margin": 9.0, "exclude": [], "reset_threshold": None},
    "come_sar": {"entropy_margin": 9.0, "exclude": [], "reset_threshold": None},
    "deyo": {"entropy_margin": 9.0, "plpd_threshold": -1.0, "exclude": []},
    "poem": {"entropy_margin": 9.0, "warmup": 0, "exclude": []},
    "rotta": {"update_every": 16, "capacity": 16},
    "petta": {"update_every": 16, "capacity": 16},
    "cotta": {"views": 2},
    "memo": {"views": 2},
    "intent": {"mixes": 2},
    "vptta": {"share": 0.3, "neighbours": 2, "capacity": 3},
}


def images(count: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 1, 12, 12, generator=torch.Generator().manual_seed(seed))


def facts(name: str, network: nn.Module, classes: int, width: int = 16) -> dict[str, object]:
    """What the method asks to know of the source, made up."""
    known = made_up(network, classes, width)
    return {key: known[key] for key in (METHODS[name].uses if name in METHODS else ())}


def created(
    name: str,
    norm: Any = nn.BatchNorm2d,
    classes: int = 4,
    open_filters: bool = True,
    **more: object,
) -> Method:
    torch.manual_seed(0)
    network = small_network(norm, classes)
    options = {**(OPEN.get(name, {}) if open_filters else {}), **more}
    return create_method(
        name, network, num_classes=classes, **facts(name, network, classes), **options
    )


def snapshot(method: Method) -> dict[str, torch.Tensor]:
    """Every tensor of the state dict, however deep."""

    def walk(value: Any, path: str) -> Iterator[tuple[str, torch.Tensor]]:
        if isinstance(value, torch.Tensor):
            yield path, value.detach().clone()
        elif isinstance(value, Mapping):
            for key, item in value.items():
                yield from walk(item, f"{path}/{key}")

    return dict(walk(method.state_dict(), ""))


def assert_same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    assert before.keys() == after.keys()
    for key, value in before.items():
        torch.testing.assert_close(value, after[key], rtol=0, atol=0, equal_nan=True, msg=key)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_what_methods_promise(name: str) -> None:
    check_method(name, **OPEN.get(name, {}))


@pytest.mark.parametrize("task", ["segmentation", "multilabel"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_does_every_task_or_says_why_not(name: str, task: str) -> None:
    why = METHODS[name].refuses(create_task(task, 4))
    if why is None:
        check_method(name, task=task, **OPEN.get(name, {}))
        return
    with pytest.raises(AssertionError, match=f"does not do task={task}, since it {why}: use"):
        check_method(name, task=task)
    assert (name, task) in {
        ("lame", "segmentation"),
        ("lame", "multilabel"),
        ("t3a", "multilabel"),
    }


@pytest.mark.parametrize("name", METHODS)
def test_a_prediction_follows_the_update_in_five_methods_only(name: str) -> None:
    method = created(name)
    update = method.update(images(), method.predict(images()) if method.predicts_first else None)
    corrected = name in ("roid", "cmf")  # by the batch's own prior, which is no learning
    later = ("memo", "norm_ema", "t3a", "grata", "vptta")
    assert (update.prediction is not None) == (name in later or corrected)


@pytest.mark.parametrize("name", LEARNING)
def test_moving_statistics_go_on_bit_for_bit_from_a_file(name: str, tmp_path: Path) -> None:
    straight = created(name, normalization="robust")
    for seed in range(3):
        straight(images(seed=seed))
        straight.control(images(seed=seed))
    torch.save(straight.state_dict(), tmp_path / "state.pt")
    other = created(name, normalization="robust")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    other.to("cpu")  # as Lightning moves a module that it resumes to its device
    for seed in range(3, 6):
        assert torch.equal(straight(images(seed=seed)), other(images(seed=seed)))
    assert_same(snapshot(straight), snapshot(other))
    torch.testing.assert_close(
        straight.control(images(9)).logits, other.control(images(9)).logits, rtol=0, atol=0
    )


PASSES = {
    **dict.fromkeys(["source", "norm", "alpha_norm", "lame", "t3a"], (1, 0)),
    **dict.fromkeys(["norm_ema"], (2, 0)),
    **dict.fromkeys(["sar", "come_sar"], (2, 2)),
    **dict.fromkeys(["deyo", "roid", "cmf"], (2, 1)),
    "cotta": (3, 1),
    "rotta": (3, 1),
    "petta": (5, 1),
    "memo": (2 * 16, 16),
    "intent": (7 * 16, 0),
    "grata": (9, 2),
    "sictta": (2 * 16 + 1 + 4, 0),  # one to find the bottleneck, and one of each that it remembers
    "vptta": (2 * 16, 0),  # its gradients are of a prompt, which no optimiser of programs steps
}


@pytest.mark.parametrize("name", METHODS)
def test_forward_and_backward_passes_a_batch(name: str) -> None:
    more = {"cotta": {"threshold": 0.0}, "adami": {"prior": [0.25] * 4}, "intent": {"mixes": 6}}
    method = created(name, **more.get(name, {}))
    calls = {"forward": 0, "backward": 0}
    method.model.register_forward_hook(
        lambda *_: calls.__setitem__("forward", calls["forward"] + 1)
    )
    step = method.backward

    def backward(loss: torch.Tensor) -> None:
        calls["backward"] += 1
        step(loss)

    method.backward = backward
    method(images())
    assert (calls["forward"], calls["backward"]) == PASSES.get(name, (1, 1))


def test_passes_without_consistency_and_with_views() -> None:
    calls = [0]
    for name, more, expected in (
        ("roid", {"consistency": False}, 1),
        ("cotta", {"threshold": 1.0, "views": 4}, 3 + 4),
    ):
        method = created(name, **more)
        method.model.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
        calls[0] = 0
        method(images())
        assert calls[0] == expected


@pytest.mark.parametrize(
    ("name", "closed"),
    [
        ("pseudo_label", {"threshold": 1.0}),
        *(
            (name, {"entropy_margin": 1e-9})
            for name in ("eta", "eata", "rdumb", "come_eata", "sar", "come_sar", "deyo", "poem")
        ),
        ("deyo", {"entropy_margin": 9.0, "plpd_threshold": 1.0}),
    ],
)
def test_where_a_filter_rejects_all_nothing_happens(name: str, closed: dict[str, float]) -> None:
    method = created(name, open_filters=False, **closed)
    before = method.adapted_state()
    update = method.update(images(), method.predict(images()))
    assert update.skipped == "all_filtered"
    assert all(torch.equal(value, method.adapted[key]) for key, value in before.items())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("classes", [2, 1000])
def test_any_number_of_classes(name: str, classes: int) -> None:
    method = created(name, classes=classes)
    for seed in range(2):
        logits = method(images(seed=seed))
    assert logits.shape == (16, classes)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_a_stream_of_one_class(name: str) -> None:
    method = created(name, open_filters=False)
    with torch.no_grad():
        method.model.get_submodule(method.head_name).bias[0] = 50.0
    for seed in range(3):
        logits = method(images(seed=seed))
        assert logits.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_half_precision(name: str) -> None:
    method = created(name)
    with torch.autocast("cpu", torch.bfloat16):
        method(images())
        assert method(images(seed=1)).isfinite().all()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in method.adapted.values())


@pytest.mark.parametrize("normalization", get_args(get_type_hints(UpdateConfig)["normalization"]))
@pytest.mark.parametrize("name", LEARNING)
def test_every_normalisation_under_every_method(name: str, normalization: str) -> None:
    method = created(name, normalization=normalization)
    for seed in range(2):
        assert method(images(seed=seed)).isfinite().all()
    assert method.control(images()).logits.isfinite().all()


@pytest.mark.parametrize("name", LEARNING)
@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d, nn.GroupNorm, lambda c: nn.InstanceNorm2d(c, affine=True)]
)
def test_any_normalisation_with_weights_is_adapted(name: str, norm: Any) -> None:
    method = created(name, norm, exclude=[], lr=0.01)
    assert {"1.weight", "1.bias", "4.weight", "4.bias"} <= set(method.adapted)
    for seed in range(2):  # a teacher that equals its student teaches nothing yet
        method(images(seed=seed))
    if name != "memo":
        assert not torch.equal(method.adapted["1.weight"].detach(), torch.ones(8))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", LEARNING)
def test_every_kind_of_norm_learns_in_two_and_three_dimensions(name: str, dims: int) -> None:
    conv, batch, instance, pool = {
        2: (nn.Conv2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.AdaptiveAvgPool2d),
        3: (nn.Conv3d, nn.BatchNorm3d, nn.InstanceNorm3d, nn.AdaptiveAvgPool3d),
    }[dims]
    torch.manual_seed(0)
    network = nn.Sequential(
        *(conv(1, 4, 3), batch(4), nn.ReLU(), conv(4, 4, 3), instance(4, affine=True), nn.ReLU()),
        *(conv(4, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), pool(2), nn.Flatten()),
        *(
            nn.Linear(4 * 2**dims, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Linear(16, 16),
            nn.LayerNorm(16),
            nn.Linear(16, 4),
        ),
    )
    options = {**OPEN.get(name, {}), "exclude": [], "lr": 0.01}
    method = create_method(name, network, num_classes=4, **facts(name, network, 4), **options)
    wanted = {f"{index}.{key}" for index in (1, 4, 7, 12, 15) for key in ("weight", "bias")}
    assert wanted <= set(method.adapted)
    before = method.adapted_state()
    for seed in range(2):
        shape = (16, 1, *(10,) * dims)
        assert (
            method(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))
            .isfinite()
            .all()
        )
    if name != "memo":
        assert all(not torch.equal(before[key], method.adapted[key]) for key in wanted)


@pytest.mark.parametrize("name", LEARNING)
def test_episodes_start_at_the_source(name: str) -> None:
    method = created(name, episodic=True)
    first = method(images())
    method(images(seed=1))
    assert torch.equal(method(images()), first)


@pytest.mark.parametrize("name", PLAIN)
def test_steps_repeat_the_update(name: str) -> None:
    once, thrice = created(name, lr=0.01), created(name, lr=0.01, steps=3)
    for _ in range(2):
        once(images())
    served = thrice(images())
    # The batch leaves with the forward pass before the last update.
    assert torch.equal(served, once(images()))
    assert_same(once.adapted_state(), thrice.adapted_state())


@pytest.mark.parametrize("layout", [CHANNELS_LAST, CHANNELS_LAST_3D], ids=["2d", "3d"])
@pytest.mark.parametrize("name", METHODS)
def test_channels_last_changes_nothing_but_speed(name: str, layout: Layout) -> None:
    flat = layout == CHANNELS_LAST
    convolution, norm = (nn.Conv2d, nn.BatchNorm2d) if flat else (nn.Conv3d, nn.BatchNorm3d)
    size = (1, 12, 12) if flat else (1, 6, 6, 6)
    width = 1600 if flat else 1024

    def wide() -> Method:
        torch.manual_seed(0)
        layers = (convolution(1, 16, 3), norm(16), nn.ReLU(), nn.Flatten(), nn.Linear(width, 4))
        network = nn.Sequential(*layers)
        known = facts(name, network, 4, width)
        return create_method(name, network, num_classes=4, **known, **OPEN.get(name, {}))

    method, plain = wide(), wide()
    assert method.layout == CONTIGUOUS  # one channel goes in: nothing would be gained
    method.layout = layout
    method.layout.lay_out(method.model)
    assert method.model[0].weight.is_contiguous(memory_format=layout.format)
    for seed in range(2):
        batch = torch.rand(8, *size, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(method(batch), plain(batch), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_volumes(name: str) -> None:
    torch.manual_seed(0)
    network = ResNet(
        "basic",
        [1, 1, 1, 1],
        [4, 8, 8, 16],
        spatial_dims=3,
        n_input_channels=1,
        num_classes=3,
        conv1_t_size=3,
        conv1_t_stride=1,
    )
    options = {
        **OPEN.get(name, {}),
        **({"exclude": None} if name in ("sar", "come_sar", "deyo", "poem") else {}),
    }
    method = create_method(name, network, num_classes=3, **facts(name, network, 3), **options)
    if METHODS[name].updates.endswith("last stage"):
        assert not any(key.startswith("layer4") for key in method.adapted)
        assert any(key.startswith("layer3") for key in method.adapted)
    volumes = torch.rand(6, 1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    assert method(volumes).shape == (6, 3)
    assert method(volumes).isfinite().all()


@pytest.mark.parametrize("kind", [kind for kind, of in NETWORKS.items() if not of.dense])
def test_every_network_is_adapted(kind: str) -> None:
    torch.manual_seed(0)
    network, description = create_network(
        kind, MODELS[kind](), num_classes=3, channels=3, size=(32, 32)
    )
    method = create_method("tent", network, num_classes=3, optimizer="adam", lr=1e-2)
    before = method.adapted_state()
    batch = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    prediction = method.predict(batch)
    assert prediction.logits.shape == (4, 3)
    assert prediction.features.shape == (4, network.head.in_features)
    assert method.update(batch, prediction).loss is not None
    # MONAI's ViT carries LayerNorms for cross-attention that a classifier never uses
    used = {name for name in before if "cross_attn" not in name}
    changed = {
        name for name, value in before.items() if not torch.equal(value, method.adapted[name])
    }
    assert {name for name in used if name.endswith("weight")} <= changed <= used
    assert description["kind"] == kind


@pytest.mark.parametrize("norm", ["group", "instance"])
@pytest.mark.parametrize("kind", ["compact", "resnet18", "densenet121"])
def test_networks_without_batch_statistics(kind: str, norm: str) -> None:
    network, _ = create_network(
        kind, MODELS[kind](norm=norm), num_classes=3, channels=1, size=(64, 64)
    )
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    method = create_method("tent", network, num_classes=3)
    assert method(torch.rand(1, 1, 64, 64)).isfinite().all()


def test_a_network_without_affine_norms_is_refused_with_the_remedy() -> None:
    plain = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(400, 2)
    )
    with pytest.raises(InputError, match=r"GroupNorm.*affine"):
        create_method("tent", plain, num_classes=2)
    assert create_method("norm", plain, num_classes=2)(images()).shape == (16, 2)


def test_one_value_per_channel_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 12), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(InputError, match="one value per channel"):
        create_method("tent", model, num_classes=2)(images(1))


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("tnet", {}, "did you mean tent"),
        ("tent", {"learning": 1}, "no hyperparameter 'learning'.*lr"),
        ("tent", {"lr": -1.0}, "outside"),
        ("dsbr", {"ema": 1.0}, "outside"),
        ("tent", {"lr": "auto"}, "give a number"),
    ],
)
def test_bad_requests_name_the_right_ones(
    name: str, hyperparameters: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        created(name, **hyperparameters)


def test_excluded_layers_are_left_alone() -> None:
    assert set(created("tent", exclude=["4"]).adapted) == {"1.weight", "1.bias"}
    assert not any(name.startswith("4.") for name in created("cotta", exclude=["4"]).adapted)


@pytest.mark.parametrize("name", ["tent", "cotta", "shot_im", "memo"])
def test_a_misspelt_exclusion_is_refused_and_so_is_one_that_leaves_nothing(name: str) -> None:
    with pytest.raises(
        InputError, match="'layer9' is not a module of Sequential; its modules: 0, 1"
    ):
        created(name, exclude=["layer9"])
    everything = [child for child, _ in created(name).model.named_children()]
    with pytest.raises(InputError, match="exclude"):
        created(name, exclude=everything)


def test_training_loops_cannot_turn_dropout_on() -> None:
    method = created("tent")
    method.train()
    assert not any(module.training for module in method.modules())


def test_dsbr_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    share = 0.9 * torch.tensor([0.5, 0.5]) + 0.1 * torch.tensor([2 / 3, 1 / 3])
    expected = (entropy(logits) * (0.5 / share)[torch.tensor([0, 0, 1])]).mean()
    weights = balanced_weights(logits.argmax(1), share, torch.full((2,), 0.5))
    torch.testing.assert_close((entropy(logits) * weights).mean(), expected)
    torch.testing.assert_close(entropy(torch.zeros(1, 8)), torch.tensor([math.log(8)]))


def test_auto_follows_the_published_scaling() -> None:
    config = DSBRConfig()
    small = scaled(config, model="compact", size=(32, 32), batch_size=64)
    assert small == DSBRConfig(optimizer="adam", lr=1e-3)
    tent = METHODS["tent"].Config
    large = {"model": "resnet50", "size": (224, 224)}
    assert scaled(tent(), **large, batch_size=64) == tent(optimizer="sgd", lr=2.5e-4)  # type: ignore[arg-type, call-arg]
    assert scaled(tent(), **large, batch_size=8) == tent(optimizer="sgd", lr=2.5e-4 / 4)  # type: ignore[arg-type, call-arg]
    assert scaled(tent(), model="vit", size=(224, 224), batch_size=32).lr == 5e-4  # type: ignore[attr-defined]


@pytest.mark.parametrize("normalization", ["batch", "robust"])
def test_the_control_is_the_twin_that_never_learns_from_the_first_batch_on(
    normalization: str,
) -> None:
    method = created("tent", normalization=normalization)
    torch.manual_seed(0)
    norm = METHODS["norm"]
    twin = norm(small_network(), 4, norm.Config(normalization=normalization))  # type: ignore[call-arg]
    for seed in range(4):
        batch = images(seed=seed)
        method(batch)
        torch.testing.assert_close(method.control(batch).logits, twin(batch))
