"""What every method promises, over METHODS."""

import math

import pytest
import torch
from torch import nn

from tests.conftest import small_network
from tta.errors import InputError
from tta.methods import METHODS, Method, create_method
from tta.methods.dsbr import DSBRConfig
from tta.methods.scaling import scaled
from tta.networks import MODELS, create_network
from tta.objectives import balanced_weights, entropy

ADAPTING = [name for name, method in METHODS.items() if method.Config.__dataclass_fields__]


def images(count: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 1, 12, 12, generator=torch.Generator().manual_seed(seed))


def created(name: str, norm: type[nn.Module] = nn.BatchNorm2d, classes: int = 4, **more: object) -> Method:
    torch.manual_seed(0)
    return create_method(name, small_network(norm, classes), num_classes=classes, **more)


def snapshot(method: Method) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in method.state_dict().items() if isinstance(value, torch.Tensor)}


def assert_same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(value, after[key]), key


@pytest.mark.parametrize("name", METHODS)
def test_only_declared_tensors_change(name: str) -> None:
    method = created(name)
    before = {key: value.clone() for key, value in method.model.state_dict().items()}
    for seed in range(3):
        method(images(seed=seed))
    changed = {key for key, value in method.model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == set(method.adapted)


@pytest.mark.parametrize("name", METHODS)
def test_reset_is_bit_identical_and_the_same_stream_follows(name: str) -> None:
    method = created(name)
    before = snapshot(method)
    first = [method(images(seed=seed)) for seed in range(4)]
    method.reset()
    assert_same(before, snapshot(method))
    if method.optimizer is not None:
        assert not method.optimizer.state
    for seed, logits in enumerate(first):
        assert torch.equal(method(images(seed=seed)), logits)


@pytest.mark.parametrize("name", METHODS)
def test_state_dict_round_trip_goes_on_bit_for_bit(name: str) -> None:
    straight = created(name)
    for seed in range(3):
        straight(images(seed=seed))
    other = created(name)
    other.load_state_dict(straight.state_dict())
    for seed in range(3, 6):
        assert torch.equal(straight(images(seed=seed)), other(images(seed=seed)))


@pytest.mark.parametrize("name", METHODS)
def test_control_is_the_source_whatever_was_learned(name: str) -> None:
    method = created(name)
    twin = created("norm" if method.normalization == "batch" else "source")
    for seed in range(3):
        method(images(seed=seed))
    torch.testing.assert_close(method.control(images(seed=9)).logits, twin(images(seed=9)))
    torch.testing.assert_close(method.source(images(seed=9)).logits, created("source")(images(seed=9)))
    state = method.model.state_dict()
    source = created("source").model.state_dict()
    for key in state:
        if "running" in key or "num_batches" in key:
            assert torch.equal(state[key], source[key])


@pytest.mark.parametrize("name", ADAPTING)
def test_one_forward_and_one_backward_a_batch(name: str) -> None:
    method = created(name)
    calls = {"forward": 0, "backward": 0}
    method.model.register_forward_hook(lambda *_: calls.__setitem__("forward", calls["forward"] + 1))
    step = method.backward

    def backward(loss: torch.Tensor) -> None:
        calls["backward"] += 1
        step(loss)

    method.backward = backward
    method(images())
    assert calls == {"forward": 1, "backward": 1}


@pytest.mark.parametrize("name", ADAPTING)
def test_a_nan_batch_leaves_the_state_as_it_was_and_says_so(name: str) -> None:
    method = created(name)
    method(images())
    before = snapshot(method)
    broken = images(seed=1)
    broken[3, 0, 0, 0] = math.nan
    update = method.update(broken, method.predict(broken))
    assert update.loss is None
    assert update.skipped == "non_finite"
    assert_same(before, snapshot(method))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("classes", [2, 1000])
def test_any_number_of_classes(name: str, classes: int) -> None:
    assert created(name, classes=classes)(images()).shape == (16, classes)


@pytest.mark.parametrize("name", ADAPTING)
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.GroupNorm, lambda c: nn.InstanceNorm2d(c, affine=True)])
def test_any_normalisation_with_weights_is_adapted(name: str, norm: type[nn.Module]) -> None:
    method = created(name, norm)
    assert set(method.adapted) == {"1.weight", "1.bias", "4.weight", "4.bias"}
    method(images())
    assert not torch.equal(method.adapted["1.weight"].detach(), torch.ones(8))


@pytest.mark.parametrize("kind", MODELS)
def test_every_network_is_adapted(kind: str) -> None:
    torch.manual_seed(0)
    network, description = create_network(kind, MODELS[kind](), num_classes=3, channels=3, size=(32, 32))
    method = create_method("tent", network, num_classes=3, optimizer="adam", lr=1e-2)
    before = method.adapted_state()
    batch = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    prediction = method.predict(batch)
    assert prediction.logits.shape == (4, 3)
    assert prediction.features.shape == (4, network.head.in_features)
    assert method.update(batch, prediction).loss is not None
    # MONAI's ViT carries LayerNorms for cross-attention that a classifier never uses
    used = {name for name in before if "cross_attn" not in name}
    changed = {name for name, value in before.items() if not torch.equal(value, method.adapted[name])}
    assert {name for name in used if name.endswith("weight")} <= changed <= used
    assert description["kind"] == kind


@pytest.mark.parametrize("norm", ["group", "instance"])
@pytest.mark.parametrize("kind", ["compact", "resnet18", "densenet121"])
def test_networks_without_batch_statistics(kind: str, norm: str) -> None:
    network, _ = create_network(kind, MODELS[kind](norm=norm), num_classes=3, channels=1, size=(64, 64))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    method = create_method("tent", network, num_classes=3)
    assert method(torch.rand(1, 1, 64, 64)).isfinite().all()


def test_a_network_without_affine_norms_is_refused_with_the_remedy() -> None:
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(400, 2))
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
        ("tent", {"lr": "auto"}, "chosen by adapt.py"),
    ],
)
def test_bad_requests_name_the_right_ones(name: str, hyperparameters: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        created(name, **hyperparameters)


def test_excluded_layers_are_left_alone() -> None:
    assert set(created("tent", exclude=["4"]).adapted) == {"1.weight", "1.bias"}


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


def test_half_precision() -> None:
    method = created("dsbr")
    with torch.autocast("cpu", torch.bfloat16):
        method(images())
        assert method(images(seed=1)).isfinite().all()


def test_auto_follows_the_published_scaling() -> None:
    config = DSBRConfig(optimizer="auto", lr="auto")
    small = scaled(config, DSBRConfig, model="compact", size=(32, 32), batch_size=64)
    assert small == DSBRConfig(optimizer="adam", lr=1e-3)
    tent = METHODS["tent"].Config
    auto = tent(optimizer="auto", lr="auto")  # type: ignore[call-arg]
    assert scaled(auto, tent, model="resnet50", size=(224, 224), batch_size=64) == tent()
    assert scaled(auto, tent, model="resnet50", size=(224, 224), batch_size=8) == tent(lr=2.5e-4 / 4)  # type: ignore[call-arg]
    assert scaled(auto, tent, model="vit", size=(224, 224), batch_size=32).lr == 5e-4  # type: ignore[attr-defined]
