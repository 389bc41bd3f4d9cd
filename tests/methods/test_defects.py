"""Known defects of released code, each shown not to be ours."""

import io
import math
import warnings

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from holdfast.tta.errors import InputError
from holdfast.tta.methods import METHODS, create_method
from holdfast.tta.methods.eta import redundancy_margin
from tests.conftest import small_network
from tests.methods.test_methods import created, facts, images, snapshot


@pytest.mark.parametrize("normalization", ["batch", "blend", "median"])
def test_the_source_checkpoint_stays_loadable(normalization: str) -> None:
    method = created("tent", normalization=normalization)
    method(images())
    assert small_network().load_state_dict(method.model.state_dict())


def test_an_adapted_network_exports() -> None:
    method = created("tent")
    method(images())
    method.model.requires_grad_(False)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(method.model, (images(),)), buffer)
    loaded = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    torch.testing.assert_close(loaded(images()), method.model(images()))


@pytest.mark.parametrize("kind", ["roid", "cmf", "cotta", "memo"])
def test_a_method_that_looks_at_views_refuses_signals_in_a_sentence(kind: str) -> None:
    model = nn.Sequential(
        *(nn.Conv1d(2, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU()),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3)),
    )
    method = create_method(kind, model, num_classes=3)
    with pytest.raises(InputError, match=r"shape \(2, 40\): use another method, such as tent"):
        method(torch.rand(8, 2, 40))


def test_sar_restores_once_and_forgets_its_running_loss_and_momentum() -> None:
    method = created("sar", reset_threshold=1.0)
    start = snapshot(method)
    update = method.update(images(), method.predict(images()))
    assert update.restored
    assert method.running_loss.isnan()
    assert all(
        torch.equal(value, start[f"/model.{name}"])
        for name, value in method.adapted_state().items()
    )
    assert method.optimizer is not None
    assert not method.optimizer.state


def test_sar_does_not_restore_on_every_batch_of_two_classes() -> None:
    method = created("sar", classes=2, open_filters=False, exclude=[])
    with (
        torch.no_grad()
    ):  # confident, but no collapse: entropy about .1 nats, below the published .2
        method.model.get_submodule("8").weight.mul_(40)
    restored = []
    for seed in range(6):
        batch = images(seed=seed)
        restored.append(method.update(batch, method.predict(batch)).restored)
    assert not all(restored)
    assert 0.029 * math.log(2) < 0.2  # in nats the published threshold would be ten times as high


def test_the_threshold_of_sar_is_the_configured_one() -> None:
    method = created("sar", reset_threshold=None)
    for seed in range(3):
        assert not method.update(images(seed=seed), method.predict(images(seed=seed))).restored


@pytest.mark.parametrize("classes", [2, 3, 4, 10, 1000])
def test_the_redundancy_margin_follows_the_number_of_classes(classes: int) -> None:
    confident, balanced = torch.eye(classes)[0], torch.full((classes,), 1 / classes)
    cosine = float(torch.nn.functional.cosine_similarity(confident, balanced, dim=0))
    assert cosine == pytest.approx(1 / math.sqrt(classes), abs=1e-4)
    assert cosine < redundancy_margin(classes) < 1
    # Where its class has twice its share it is redundant.
    share = 2 / classes
    crowded = torch.full((classes,), (1 - share) / (classes - 1))
    crowded[0] = share
    if classes > 2:
        assert float(
            torch.nn.functional.cosine_similarity(confident, crowded, dim=0)
        ) > redundancy_margin(classes)


@pytest.mark.parametrize("classes", [2, 4])
def test_eta_learns_where_classes_are_few(classes: int) -> None:
    network = nn.Sequential(nn.Flatten(), nn.LayerNorm(classes), nn.Linear(classes, classes))
    with torch.no_grad():
        network[2].weight.copy_(4 * torch.eye(classes))
    method = create_method("eta", network, num_classes=classes)
    rng = torch.Generator().manual_seed(0)
    for _ in range(6):
        labels = torch.randint(classes, (32,), generator=rng)
        batch = torch.eye(classes)[labels] + 0.05 * torch.randn(32, classes, generator=rng)
        assert method.update(batch, method.predict(batch)).loss is not None


def test_fifty_batches_without_a_sample_are_worth_a_warning() -> None:
    method = created("eta", open_filters=False, entropy_margin=1e-9)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(51):
            method(images(4))
    assert len([w for w in caught if "filters reject all" in str(w.message)]) == 1


def test_reset_takes_everything_back() -> None:
    eata = created("eata")
    eata(images())
    assert eata.started
    eata.reset()
    assert not eata.started
    assert not eata.marginal.any()
    cmf = created("cmf")
    cmf(images())
    assert cmf.variance > 0
    cmf.reset()
    assert cmf.variance == 0
    created("deyo").reset()


@pytest.mark.parametrize("classes", [2, 4, 1000])
def test_come_knows_the_number_of_classes(classes: int) -> None:
    logits = torch.randn(5, classes, generator=torch.Generator().manual_seed(0))
    total = logits.exp().sum(1) + classes
    belief, doubt = logits.exp() / total[:, None], classes / total
    expected = -(belief * belief.log()).sum(1) - doubt * doubt.log()
    torch.testing.assert_close(created("come", classes=classes).uncertainty(logits), expected)


@pytest.mark.parametrize("name", ["roid", "cmf"])
@pytest.mark.parametrize("count", [1, 5])
def test_identical_samples_give_no_nan(name: str, count: int) -> None:
    method = created(name)
    batch = images(1).expand(count, -1, -1, -1).clone()
    update = method.update(batch, method.predict(batch))
    assert update.loss is not None
    assert update.loss.isfinite()


def test_three_dimensional_and_instance_norms_are_found() -> None:
    network = nn.Sequential(
        nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.Conv3d(4, 4, 3), nn.InstanceNorm3d(4, affine=True)
    )
    network.extend([nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)])
    assert set(create_method("tent", network, num_classes=2).adapted) == {
        "1.weight",
        "1.bias",
        "3.weight",
        "3.bias",
    }


def test_a_network_without_affine_parameters_is_an_error_that_names_the_remedy() -> None:
    unet = UNet(spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8), strides=(2,))
    network = nn.Sequential(unet, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"looked for BatchNorm.*affine"):
        create_method("tent", network, num_classes=2)


@pytest.mark.parametrize("name", METHODS)
def test_no_step_copies_the_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import copy

    method = created(name)

    def refuse(*_: object) -> None:
        raise AssertionError("deepcopy in the inner loop")

    monkeypatch.setattr(copy, "deepcopy", refuse)
    for seed in range(2):
        method(images(seed=seed))


@pytest.mark.parametrize("name", ["eata", "petta", "poem"])
def test_a_missing_source_statistic_names_what_writes_it(name: str) -> None:
    with pytest.raises(InputError, match=r"needs the source's \w+, which is missing: train.py"):
        create_method(name, small_network(), num_classes=4)


def test_a_fisher_that_does_not_fit_is_refused() -> None:
    network = small_network()
    known = facts("eata", network, 4)
    del known["fisher"]["4.bias"]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"fisher has no tensor of shape .* for 4.bias"):
        create_method("eata", network, num_classes=4, **known)


def test_images_whose_channels_lie_last_do_not_crash_a_frozen_networks_groupnorm() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    method = create_method("tent", network, num_classes=3)
    pixels = torch.randn(8, 12, 12, 3, generator=torch.Generator().manual_seed(0))
    assert method(pixels.permute(0, 3, 1, 2)).isfinite().all()
