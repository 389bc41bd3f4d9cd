"""Statistics corrected for the mix of classes: against hand values, and on a network whose shift is
known.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holdfast.tta.candidates import WARM_UP, Candidates, _Opinion
from holdfast.tta.correction import (
    LabelCorrection,
    class_conditional_moments,
    shares_within,
)
from holdfast.tta.methods import Prediction, create_method
from holdfast.tta.normalization import TestTimeBatchNorm, _Renormalised, choose_statistics
from holdfast.tta.step import Candidate

CLASSES = 3


def network() -> nn.Sequential:
    """One normalised layer that sees the image itself, and a head that reads the class off the
    brightest channel.
    """
    model = nn.Sequential(
        nn.BatchNorm2d(CLASSES), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CLASSES, CLASSES)
    )
    with torch.no_grad():
        model[3].weight.copy_(4 * torch.eye(CLASSES))
        model[3].bias.zero_()
    return model


def images(labels: Tensor, seed: int = 0) -> Tensor:
    """The channel of an image's class is brighter by 3, on noise of variance 1."""
    rng = torch.Generator().manual_seed(seed)
    return 3 * F.one_hot(labels, CLASSES)[:, :, None, None] + torch.randn(
        len(labels), CLASSES, 4, 4, generator=rng
    )


def labels(count: int, shares: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3), seed: int = 0) -> Tensor:
    return torch.multinomial(
        torch.tensor(shares), count, True, generator=torch.Generator().manual_seed(seed)
    )


def trained() -> tuple[nn.Sequential, dict[str, Tensor]]:
    """The network with the running statistics of balanced classes, and what each class looks like
    to it.
    """
    model, known = network(), labels(3000)
    seen = images(known)
    model[0].running_mean.copy_(seen.mean([0, 2, 3]))
    model[0].running_var.copy_(seen.var([0, 2, 3]))
    choose_statistics(model.eval(), "source")
    return model, class_conditional_moments(model, [{"image": seen, "label": known}], CLASSES)


def test_class_conditional_moments_are_those_of_each_class() -> None:
    model, moments = trained()
    assert list(moments) == ["0"]
    mean, square = moments["0"]
    torch.testing.assert_close(mean, 3 * torch.eye(CLASSES), atol=0.05, rtol=0)
    torch.testing.assert_close(
        square - mean.square(), torch.ones(CLASSES, CLASSES), atol=0.1, rtol=0
    )
    assert isinstance(model[0], TestTimeBatchNorm)


def test_an_absent_class_gets_the_moments_of_all_and_no_labels_nothing_at_all() -> None:
    model, _ = trained()
    known = labels(300, (0.5, 0.5, 0.0))
    mean, _ = class_conditional_moments(model, [{"image": images(known), "label": known}], CLASSES)[
        "0"
    ]
    torch.testing.assert_close(mean[2], mean[:2].mean(0))
    assert (
        class_conditional_moments(
            model, [{"image": images(known), "label": known * 0 - 1}], CLASSES
        )
        == {}
    )


def corrected(
    model: nn.Sequential,
    moments: dict[str, Tensor],
    shares: tuple[float, ...],
    shift: float,
    gain: float,
) -> Tensor:
    """The mean that the correction arrives at on a long stream, when it is told the right
    predictions.
    """
    correction = LabelCorrection(model, moments)
    for seed in range(60):
        known = labels(64, shares, seed)
        seen = gain * images(known, seed + 1) + shift
        batch = torch.stack([seen.mean([0, 2, 3]), seen.square().mean([0, 2, 3])])
        correction.keep(correction.after({"0": batch}, F.one_hot(known, CLASSES).float()))
    values = correction.statistics()
    return torch.stack([values["0.moving_mean"], values["0.moving_var"]])


def test_balanced_classes_leave_the_streams_own_statistics() -> None:
    model, moments = trained()
    mean, var = corrected(model, moments, (1 / 3, 1 / 3, 1 / 3), shift=5.0, gain=2.0)
    torch.testing.assert_close(mean, torch.full((3,), 2 * 1.0 + 5.0), atol=0.2, rtol=0)
    torch.testing.assert_close(var, 4 * model[0].running_var, atol=0, rtol=0.15)


def test_a_mix_alone_moves_the_statistics_by_no_more_than_the_doubt_about_it() -> None:
    model, moments = trained()
    batch_mean = torch.tensor([3 * 0.9, 3 * 0.05, 3 * 0.05])
    mean, _ = corrected(model, moments, (0.9, 0.05, 0.05), shift=0.0, gain=1.0)
    moved, whole = (mean - model[0].running_mean).abs(), (batch_mean - model[0].running_mean).abs()
    assert (moved < 0.4 * whole).all()  # a third of the mix is not believed


def test_a_class_without_images_has_no_part_in_the_mix() -> None:
    model, moments = trained()
    absent = {name: torch.cat([m, m.mean(1, keepdim=True)], 1) for name, m in moments.items()}
    three, four = LabelCorrection(model, moments), LabelCorrection(model, absent)
    seen = {name: 1.3 * m[:, 0] for name, m in moments.items()}
    said = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])
    more = four.probabilities(torch.cat([0.8 * said, torch.full((2, 1), 0.2)], 1).log())
    torch.testing.assert_close(more, torch.cat([said, torch.zeros(2, 1)], 1))
    expected, found = three.after(seen, said), four.after(seen, more)
    assert found["mix"][3] == 0
    assert torch.allclose(found["mix"][:3], expected["mix"])
    for name, value in three.statistics(expected).items():
        assert torch.allclose(four.statistics(found)[name], value, rtol=1e-4)


def test_one_image_at_a_time_comes_to_the_same() -> None:
    model, moments = trained()
    known = labels(64)
    seen, told = images(known, 3), F.one_hot(known, CLASSES).float()
    at_once, one_by_one = LabelCorrection(model, moments), LabelCorrection(model, moments)
    at_once.keep(
        at_once.after(
            {"0": torch.stack([seen.mean([0, 2, 3]), seen.square().mean([0, 2, 3])])}, told
        )
    )
    for image, label in zip(seen, told, strict=True):
        batch = torch.stack([image.mean([1, 2]), image.square().mean([1, 2])])
        one_by_one.keep(one_by_one.after({"0": batch}, label[None]))
    for name, value in at_once.statistics().items():
        torch.testing.assert_close(value, one_by_one.statistics()[name])


def test_a_batch_that_is_not_finite_changes_nothing() -> None:
    model, moments = trained()
    correction = LabelCorrection(model, moments)
    predicted = torch.full((8, CLASSES), 1 / CLASSES)
    sound = correction.after({"0": torch.ones(2, CLASSES)}, predicted)
    correction.keep(sound)
    for seen, said in (
        (torch.full((2, CLASSES), torch.inf), predicted),
        (torch.ones(2, CLASSES), predicted * torch.nan),
    ):
        state = correction.after({"0": seen}, said)
        for name in ("weight", "mix", "seen"):
            torch.testing.assert_close(state[name], sound[name])


def test_layers_do_not_mix() -> None:
    rng = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5)).eval()
    for name, value in model.named_buffers():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=rng) + float("var" in name))
    choose_statistics(model, "source")
    moments = {
        name: torch.rand(2, CLASSES, width, generator=rng) + 1
        for name, width in (("0", 3), ("2", 5))
    }
    whole, parts = (
        LabelCorrection(model, moments),
        [LabelCorrection(model, {name: moments[name]}) for name in moments],
    )
    for _ in range(3):
        seen = {
            name: torch.rand(2, value.shape[2], generator=rng) + 1
            for name, value in moments.items()
        }
        told = torch.rand(8, CLASSES, generator=rng).softmax(1)
        whole.keep(whole.after(seen, told))
        for part, name in zip(parts, moments, strict=True):
            part.keep(part.after({name: seen[name]}, told))
    torch.testing.assert_close(
        whole.statistics(), {**parts[0].statistics(), **parts[1].statistics()}
    )


def test_a_network_in_double_precision() -> None:
    model, moments = trained()
    twins = Candidates(
        create_method("norm", model.double(), num_classes=CLASSES, normalization="auto"), moments
    )
    assert {said.logits.dtype for said in twins.predict(images(labels(64)).double()).values()} == {
        torch.float64
    }


@pytest.mark.parametrize("shares", [(1 / 3, 1 / 3, 1 / 3), (0.85, 0.1, 0.05), (1.0, 0.0, 0.0)])
def test_under_a_shift_of_scanner_and_classes_the_corrected_candidate_is_right_most_often(
    shares: tuple[float, ...],
) -> None:
    model, moments = trained()
    method = create_method("norm", model, num_classes=CLASSES, normalization="auto")
    twins = Candidates(method, moments)
    right = dict.fromkeys(twins.names, 0.0)
    for seed in range(20):
        known = labels(64, shares, seed)
        shifted = 0.5 * images(known, seed) + torch.tensor([0.4, -0.4, 0.0])[:, None, None]
        for name, prediction in twins.predict(shifted).items():
            asked = known[
                :: len(known) // len(prediction.logits)
            ]  # of those not in use, some of the images
            right[name] += 64 * float((prediction.logits.argmax(1) == asked).float().mean())
    assert right["corrected"] > 0.9 * 20 * 64
    assert right["corrected"] >= right["batch"] - 20 * 64 * 0.01


def test_candidates_of_fixed_statistics_and_of_networks_without_any() -> None:
    model, moments = trained()
    fixed = create_method("tent", model, num_classes=CLASSES)
    assert Candidates(fixed, moments).names == ("source", "control")
    assert Candidates(create_method("lame", trained()[0], num_classes=CLASSES)).names == ("source",)
    layer = nn.Sequential(nn.Flatten(), nn.LayerNorm(48), nn.Linear(48, CLASSES))
    assert Candidates(
        create_method("tent", layer, num_classes=CLASSES, normalization="auto")
    ).names == ("source",)


def test_the_method_works_under_the_candidate_in_use_and_its_state_goes_on() -> None:
    model, moments = trained()
    method = create_method("norm", model, num_classes=CLASSES, normalization="auto")
    twins, batch = Candidates(method, moments), images(labels(64)) + 1
    for name in twins.names:
        twins.use(name)
        expected = twins.predict(batch)[name].logits
        if name != "corrected":  # which has taken the batch in meanwhile
            torch.testing.assert_close(method.predict(batch).logits, expected)
    other_method = create_method("norm", trained()[0], num_classes=CLASSES, normalization="auto")
    other = Candidates(other_method, moments)
    other_method.load_state_dict(method.state_dict())
    other.load_state_dict(twins.state_dict())
    other.use(other.current)
    assert other.current == "corrected"
    for seed in range(3):
        fresh = images(labels(64, seed=seed), seed)
        torch.testing.assert_close(
            twins.predict(fresh)["corrected"].logits, other.predict(fresh)["corrected"].logits
        )
        torch.testing.assert_close(method.predict(fresh).logits, other_method.predict(fresh).logits)


def test_a_control_with_moving_statistics_takes_each_batch_in_once() -> None:
    method = create_method(
        "tent", trained()[0], num_classes=CLASSES, lr=1e-12, optimizer="sgd", normalization="robust"
    )
    twins = Candidates(method)
    for seed in range(6):
        batch = images(labels(32, seed=seed), seed) + seed
        if seed == 2:
            twins.use(
                "source"
            )  # where nothing is learned, and the method's own statistics stand still
            method.reset()
        if seed == 4:
            twins.use("control")
        said = method.predict(batch)
        method.keep_moving()
        method.control(batch)  # as the screen of batches of one class asks, before the guard does
        twin = twins.predict(batch, ["control"])["control"]
        if twins.current == "control":
            torch.testing.assert_close(twin.logits, said.logits)


def test_a_batch_of_one_value_per_channel_leaves_the_batch_candidate_out() -> None:
    model, moments = trained()
    twins = Candidates(
        create_method("norm", model, num_classes=CLASSES, normalization="auto"), moments
    )
    assert list(twins.predict(torch.ones(1, CLASSES, 1, 1))) == ["source", "corrected"]


def test_given_statistics_pass_on_the_gradient_of_the_batchs_own() -> None:
    x = torch.randn(16, 3, 5, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    layer = nn.BatchNorm2d(3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
    model = nn.Sequential(layer).eval()
    choose_statistics(model, "moving")
    model[0].moving_mean.fill_(0.3)  # type: ignore[union-attr, operator]
    model[0].moving_var.fill_(2.0)  # type: ignore[union-attr, operator]
    y = model(x)
    torch.testing.assert_close(
        y, (x - 0.3) / (2.0 + layer.eps) ** 0.5 * layer.weight.view(1, 3, 1, 1)
    )
    y.square().sum().backward()
    assert x.grad is not None
    # Nothing is to be had by shifting or scaling a whole channel, as under batch statistics.
    centered = x - x.mean([0, 2, 3], keepdim=True)
    torch.testing.assert_close(x.grad.sum([0, 2, 3]), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        (x.grad * centered).sum([0, 2, 3]), torch.zeros(3), atol=5e-2, rtol=0
    )


@pytest.mark.parametrize("shape", [(6, 3, 4, 2), (6, 3), (4, 3, 2, 2, 3)])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shared", [False, True])
def test_a_renormalised_gradient_is_batch_norms_own_with_ratio_and_offset_held_fixed(
    shape: tuple[int, ...], affine: bool, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.tta.normalization._shares", lambda: shared)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=rng).double().requires_grad_()
    layer = nn.BatchNorm2d(3, affine=affine).double()
    model = nn.Sequential(layer).eval()
    choose_statistics(model, "moving")
    found = model[0]
    assert isinstance(found, TestTimeBatchNorm)
    found.moving_mean = torch.rand(3, generator=rng).double()
    found.moving_var = 1 + torch.rand(3, generator=rng).double()
    weight = 1 + torch.rand(3, generator=rng).double()
    if affine:
        with torch.no_grad():
            layer.weight.copy_(weight)
    toward = torch.randn(shape, generator=rng).double()
    along = [x, *found.parameters()]
    ours = torch.autograd.grad((found(x) * toward).sum(), along)
    # The formula of the paper: x̂ r + d, with r and d constants.
    dims, over = [0, *range(2, x.dim())], (1, -1) + (1,) * (x.dim() - 2)
    var, mean = torch.var_mean(x.detach(), dims, correction=0)
    deviation = (found.moving_var + found.eps).sqrt()
    ratio = (var + found.eps).sqrt() / deviation
    offset = (mean - found.moving_mean) / deviation
    y = F.batch_norm(x, None, None, training=True, eps=found.eps)
    y = y * ratio.view(over) + offset.view(over)
    if affine:
        y = y * layer.weight.view(over) + layer.bias.view(over)
    torch.testing.assert_close(ours, torch.autograd.grad((y * toward).sum(), along))


def test_where_the_given_statistics_are_the_batchs_own_a_gradient_is_the_derivative() -> None:
    x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    weight, bias = (
        torch.tensor(v, dtype=torch.double, requires_grad=True) for v in ([0.5, 2.0], [0.0, 1.0])
    )

    def normalised(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        var, mean = torch.var_mean(x.detach(), [0, 2], correction=0)
        y: Tensor = _Renormalised.apply(x, mean, var, weight, bias, 1e-5)  # type: ignore[no-untyped-call]
        return y

    assert torch.autograd.gradcheck(normalised, (x, weight, bias))


def test_others_than_the_one_in_use_can_be_asked_about_some_images_of_a_batch() -> None:
    model, moments = trained()
    twins = Candidates(
        create_method("norm", model, num_classes=CLASSES, normalization="auto"), moments
    )
    batch = images(labels(64, (0.25,) * CLASSES, 0), 0)
    for _ in range(WARM_UP):
        assert {len(prediction.logits) for prediction in twins.predict(batch).values()} == {64}
    asked = {
        name: len(said.logits)
        for name, said in twins.predict(batch, partly=("source", "batch", "corrected")).items()
    }
    assert asked == {"source": 16, "batch": 64, "corrected": 16}
    twins.use("corrected")
    assert len(twins.predict(batch, partly=("corrected",))["corrected"].logits) == 64
    assert {
        len(prediction.logits)
        for prediction in twins.predict(batch[:16], partly=("source",)).values()
    } == {16}


@pytest.mark.parametrize(
    ("partly", "current"),
    [
        ((), "batch"),
        (("source", "corrected"), "batch"),
        (("source",), "corrected"),
        (("corrected",), "batch"),
    ],
)
def test_the_mix_is_what_candidate_and_source_find_on_average(
    partly: tuple[Candidate, ...], current: Candidate
) -> None:
    model, moments = trained()
    method = create_method("norm", model, num_classes=CLASSES, normalization="auto")
    twins = Candidates(method, moments)
    shifted = 0.3 * images(labels(64)) + torch.tensor([0.5, -0.5, 0.0])[:, None, None]
    for _ in range(WARM_UP):
        twins.predict(shifted)
    twins.use(current)
    assert twins.correction is not None
    before, weight = twins.correction.mix.clone(), float(twins.correction.weight)
    known = twins.predict(shifted, None, partly)
    source, own = (known[name].logits.softmax(1) for name in ("source", "corrected"))
    theirs = source[:: len(source) // min(len(source), len(own))].mean(0)
    assert (theirs - own.mean(0)).abs().max() > 0.02
    taken = len(own) / (len(own) + weight)
    expected = (1 - taken) * before + taken * ((own.mean(0) + theirs) / 3 + 1 / 9)
    torch.testing.assert_close(twins.correction.mix, expected)


@pytest.mark.parametrize("count", [5, 16, 48, 50, 63, 80, 112])
@pytest.mark.parametrize("names", [None, ["corrected"], ["corrected", "source"]])
def test_batches_of_any_size_are_taken_in_from_the_first_on(
    count: int, names: list[Candidate] | None
) -> None:
    model, moments = trained()
    twins = Candidates(
        create_method("norm", model, num_classes=CLASSES, normalization="auto"), moments
    )
    for number in range(2 * WARM_UP):
        twins.use("corrected" if number >= WARM_UP else "batch")
        twins.predict(images(labels(count)) + 1, names, ("source",))
        assert twins.correction is not None
        assert float(twins.correction.weight) == 64 + (number + 1) * count
        torch.testing.assert_close(twins.correction.mix.sum(), torch.tensor(1.0))


def test_no_class_has_less_than_nothing_of_the_mix() -> None:
    """However the part that the source was asked about differs from all."""
    classes = 50
    certain = 40 * F.one_hot(torch.arange(64) % classes, classes).float()
    source = torch.zeros(16, classes)
    source[:, 0] = 1
    mix = _Opinion(source, 4, 64, 64).mixed_with(certain.softmax(1), 1)
    assert mix.min() >= 0
    torch.testing.assert_close(mix.sum(1).mean(), torch.tensor(1.0))
    torch.testing.assert_close(mix.mean(0)[0], torch.tensor(0.5 + 2 / 128))


def test_what_single_images_stand_for_leaves_a_class_without_images_out() -> None:
    model, moments = trained()
    absent = {name: m.clone() for name, m in moments.items()}
    for m in absent.values():  # what a class without images is given
        m[:, 2] = m[:, :2].mean(1)
    twins = Candidates(
        create_method("norm", model, num_classes=CLASSES, normalization="auto"), absent
    )
    twins.use("corrected")
    for seed in range(20):
        twins.predict(0.3 * images(labels(64, seed=seed)) + 0.5, None, ("source",))
        assert twins.correction is not None
        mix = twins.correction.mix
        assert mix[2] == 0
        assert mix.min() >= 0
        torch.testing.assert_close(mix.sum(), torch.tensor(1.0))


def test_a_source_without_numbers_has_no_say() -> None:
    model, moments = trained()
    method = create_method("norm", model, num_classes=CLASSES, normalization="auto")
    twins, batch = Candidates(method, moments), images(labels(64)) + 1
    run = method.run_source

    def spoilt(*args: Any) -> Prediction:
        said = run(*args)
        broken = model[0].statistics == "source"
        return said._replace(logits=said.logits * torch.nan) if broken else said

    method.run_source = spoilt  # type: ignore[method-assign]
    twins.batches = WARM_UP
    said = twins.predict(batch)
    assert said["source"].logits.isnan().all()
    assert twins.correction is not None
    own = said["corrected"].logits.softmax(1).mean(0)
    torch.testing.assert_close(twins.correction.mix, (1 / 3 + own * 2 / 3 + 1 / 9) / 2)


def test_where_corrected_statistics_alone_are_asked_for_the_source_has_its_say() -> None:
    mixes = []
    for names in (["corrected"], ["source", "corrected"]):
        model, moments = trained()
        method = create_method("norm", model, num_classes=CLASSES, normalization="auto")
        twins = Candidates(method, moments)
        said = twins.predict(images(labels(16)) + 1, names)
        assert list(said) == names
        assert twins.correction is not None
        mixes.append(twins.correction.mix)
    torch.testing.assert_close(*mixes)


@pytest.mark.parametrize("seed", range(20))
def test_shares_within_bounds_are_the_closest_of_all(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    shares, inside = torch.rand(2, 5, generator=rng)
    shares, inside = shares / shares.sum(), inside / inside.sum()
    width = torch.rand(2, 5, generator=rng) / 4
    bounds = torch.stack([inside - width[0], inside + width[1]]).clamp(0, 1)
    found = shares_within(shares, bounds)
    assert found.sum().item() == pytest.approx(1, abs=1e-5)
    assert bool(((found >= bounds[0] - 1e-6) & (found <= bounds[1] + 1e-6)).all())

    def far(other: Tensor) -> float:
        return float((other * (other.clamp(min=1e-9) / shares).log()).sum())

    for _ in range(200):  # on the way from there to any other that lies within, none is closer
        weights = torch.rand(5, generator=rng)
        other = torch.lerp(bounds[0], bounds[1], weights)
        gap = 1 - other.sum()
        room = bounds[1] - other if gap > 0 else other - bounds[0]
        other = other + gap * room / room.sum()
        assert far(found) <= far(other) + 1e-5


def test_shares_that_lie_within_their_bounds_stay_and_an_unseen_class_gets_its_own() -> None:
    shares = torch.tensor([0.2, 0.3, 0.5])
    assert torch.allclose(shares_within(shares, torch.tensor([[0.0] * 3, [1.0] * 3])), shares)
    exact = torch.tensor([0.1, 0.2, 0.7])
    assert torch.allclose(shares_within(shares, torch.stack([exact, exact])), exact)
    rare = shares_within(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([[0, 0.25, 0], [1.0, 1, 1]]))
    assert torch.allclose(rare, torch.tensor([0.75, 0.25, 0.0]), atol=1e-5)


def test_what_is_known_of_the_classes_takes_their_mix_out_of_the_statistics() -> None:
    """One class alone, on the source's own scanner: there is no shift to correct, which only who
    knows of the class can tell.
    """
    model, moments = trained()
    method = create_method("norm", model, num_classes=CLASSES, normalization="auto")
    told, alone = (Candidates(method, moments) for _ in range(2))
    told.expect_shares(torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]))
    for seed in range(4):
        batch = images(torch.zeros(64, dtype=torch.long), seed)
        for candidates in (told, alone):
            candidates.predict(batch)
    assert told.correction is not None
    assert alone.correction is not None
    source = torch.stack([model[0].running_mean, model[0].running_var])

    def off(correction: LabelCorrection) -> float:
        return float((torch.stack([*correction.statistics().values()]) - source).abs().max())

    assert off(told.correction) < 0.15 < 0.3 < off(alone.correction)
    assert set(told.correction.state_dict()) == set(alone.correction.state_dict())


def test_what_is_the_sources_own_in_a_long_stream_is_known_exactly() -> None:
    """Of it the moments hold ever less, also once the memory is full."""
    model, moments = trained()
    correction, one = LabelCorrection(model, moments), torch.eye(CLASSES)[[0] * 512]
    correction.expect_shares(torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]))
    seen = {name: known[:, 0] for name, known in moments.items()}
    for _ in range(60):
        correction.keep(correction.after(seen, one))
    assert 0 < correction.own < 0.001
    found = torch.stack([*correction.statistics().values()])
    source = torch.stack([model[0].running_mean, model[0].running_var])
    assert torch.allclose(found, source, atol=0.03)


def test_a_state_of_before_says_how_much_is_the_sources_own() -> None:
    model, moments = trained()
    correction, again = LabelCorrection(model, moments), LabelCorrection(model, moments)
    seen = {name: known.mean(1) for name, known in moments.items()}
    correction.keep(correction.after(seen, torch.full((64, CLASSES), 1 / CLASSES)))
    state = correction.state_dict()
    own = state.pop("own")
    again.load_state_dict(state)
    assert again.own == own == 0.5
