"""Methods against their formulas, worked out here a second time."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import nn
from torch.func import functional_call

from holdfast.tta.errors import InputError
from holdfast.tta.methods import create_method
from holdfast.tta.methods.lame import adjusted_assignment, affinities
from holdfast.tta.methods.rotta import Sample, remembered
from holdfast.tta.networks import MODELS, create_network
from holdfast.tta.normalization import TestTimeBatchNorm
from holdfast.tta.objectives import entropy, marginal_entropy, soft_likelihood_ratio
from holdfast.tta.selection import last_stage
from holdfast.tta.sequential import interpolated
from holdfast.tta.views import occluded, random_view, shuffled_patches, shuffled_pixels
from tests.conftest import ROOT, small_network
from tests.methods.test_methods import created, images


def test_dot_by_hand() -> None:
    method = created("dot", ema=0.5)
    method.marginal.copy_(torch.tensor([0.4, 0.3, 0.2, 0.1]))
    prediction = method.predict(images())
    loss = method.objective(images(), prediction)
    p = prediction.logits.softmax(1)
    weights = torch.tensor([1 / [0.4, 0.3, 0.2, 0.1][c] for c in p.argmax(1)])
    torch.testing.assert_close(
        loss, (16 * weights / weights.sum() * entropy(prediction.logits)).mean()
    )
    torch.testing.assert_close(
        method.marginal, 0.5 * torch.tensor([0.4, 0.3, 0.2, 0.1]) + 0.5 * p.mean(0).detach()
    )


def test_sar_steps_from_where_it_stood_with_the_gradient_of_the_worst_neighbour() -> None:
    method = created("sar", optimizer="sgd", lr=0.1, momentum=0.0, rho=0.5)
    start = method.adapted_state()
    method(images())

    twin = created("norm").model

    def loss(values: dict[str, torch.Tensor]) -> torch.Tensor:
        return entropy(functional_call(twin, values, (images(),))).mean()

    first = torch.func.grad(loss)(start)
    norm = math.sqrt(sum(float(g.square().sum()) for g in first.values()))
    second = torch.func.grad(loss)(
        {name: start[name] + 0.5 * g / norm for name, g in first.items()}
    )
    for name, value in start.items():
        torch.testing.assert_close(
            method.adapted[name].detach(), value - 0.1 * second[name], atol=1e-6, rtol=1e-4
        )


def test_deyo_keeps_what_needs_shape() -> None:
    method = created(
        "deyo", transform="occlusion", occlusion=[2, 3, 4], plpd_threshold=0.0, entropy_margin=9.0
    )
    prediction = method.predict(images())
    loss = method.objective(images(), prediction)
    p = prediction.logits.softmax(1)
    shapeless = method.predict(occluded(images(), (2, 3), 4)).logits.softmax(1)
    labels = p.argmax(1)
    rows = torch.arange(16)
    drop = (p - shapeless)[rows, labels].detach()
    h = entropy(prediction.logits)
    weights = (0.4 * math.log(4) - h.detach()).exp() + drop.exp()
    torch.testing.assert_close(loss, (weights * h)[drop > 0].mean())


def test_roid_by_hand() -> None:
    method = created("roid", consistency=False)
    prediction = method.predict(images())
    loss = method.objective(images(), prediction)
    p = prediction.logits.detach().softmax(1)
    diverse = 1 - F.cosine_similarity(p, torch.full((1, 4), 0.25))
    certain = -entropy(prediction.logits).detach()
    diverse, certain = ((v - v.min()) / (v.max() - v.min()) for v in (diverse, certain))
    weights = (diverse * certain * 3).exp() * (diverse >= diverse.mean())
    torch.testing.assert_close(
        loss, (soft_likelihood_ratio(prediction.logits) * weights).sum() / 16
    )
    torch.testing.assert_close(method.marginal, 0.9 * torch.full((4,), 0.25) + 0.1 * p.mean(0))
    torch.testing.assert_close(
        soft_likelihood_ratio(torch.tensor([[0.0, math.log(3)]])),
        -torch.tensor([0.25 * math.log(1 / 3 + 1e-5) + 0.75 * math.log(3 + 1e-5)]),
    )


@pytest.mark.parametrize("kind", ["log", "multiply"])
def test_the_prior_correction(kind: str) -> None:
    method = created("roid", prior_correction=kind)
    raw = method.predict(images()).logits.detach()
    prior = raw.softmax(1).mean(0)
    smooth = max(1 / 16, 1 / 4) / prior.max()
    prior = (prior + smooth) / (1 + 4 * smooth)
    torch.testing.assert_close(
        method(images()), raw + prior.log() if kind == "log" else raw * prior
    )


def test_the_filter_of_cmf() -> None:
    method = created("cmf")
    variance, hidden, source = 0.0, 2.0, 1.0
    with torch.no_grad():
        method.adapted["1.weight"].fill_(3.0)
        method.hidden.values()["1.weight"].fill_(hidden)
    method.average()
    process = 0.005 * 48 / 38400
    hidden = 0.99 * hidden + 0.01 * source
    variance = 0.99**2 * variance + process
    trust = max((1 - process) / (variance + 1 - process), 0.89)
    trust = trust if trust < 0.9999 else 1.0
    assert float(method.variance) == pytest.approx(variance * trust)
    hidden = trust * hidden + (1 - trust) * 3.0
    torch.testing.assert_close(method.hidden.values()["1.weight"], torch.full((8,), hidden))
    torch.testing.assert_close(
        method.adapted["1.weight"].detach(), torch.full((8,), 0.99 * 3 + 0.01 * hidden)
    )


@pytest.mark.parametrize("kind", ["knn", "rbf", "linear"])
def test_affinities_and_assignment_against_plain_loops(kind: str) -> None:
    rng = np.random.default_rng(0)
    features, logits = rng.normal(size=(9, 5)), rng.normal(size=(9, 3))
    x = features / np.linalg.norm(features, axis=1, keepdims=True)
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    if kind == "linear":
        expected = x @ x.T
    elif kind == "rbf":
        expected = np.exp(-(distance**2) / (2 * np.sort(distance, 1)[:, 2].mean() ** 2))
    else:
        expected = np.zeros((9, 9))
        for row in range(9):
            for column in [c for c in np.argsort(distance[row]) if c != row][:3]:
                expected[row, column] = 1
    found = affinities(torch.tensor(features), kind, 3)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = p.copy()
    for _ in range(100):
        z = np.log(p + 1e-10) + expected @ y
        y = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    log_y = adjusted_assignment(torch.tensor(logits).log_softmax(1), found)
    np.testing.assert_allclose(log_y.softmax(1), y, atol=1e-4)


def test_lame_of_equal_and_single_samples() -> None:
    for kind in ("knn", "rbf", "linear"):
        method = created("lame", affinity=kind)
        assert method(images(1)).isfinite().all()
        assert method(images(1).expand(4, -1, -1, -1)).isfinite().all()


def test_t3a_keeps_the_surest_of_each_class() -> None:
    method = created("t3a", supports=2)
    for seed in range(3):
        served = method(images(seed=seed))
    labels, entropies = method.memory["labels"], method.memory["entropies"]
    assert max(torch.bincount(labels)) <= 2
    features = method.predict(images(seed=2)).features
    templates = torch.stack([method.memory["features"][labels == c].sum(0) for c in range(4)])
    torch.testing.assert_close(served, features @ F.normalize(templates, dim=1).T)
    assert len(entropies) == len(labels)


def test_t3a_and_its_classifier() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 12), nn.Flatten(), nn.Linear(4, 4), nn.Identity())
    with pytest.raises(InputError, match="needs a Linear classifier"):
        create_method("t3a", network, num_classes=4, head="3")


def test_poem_bets_nothing_while_entropies_are_the_sources() -> None:
    method = created("poem")
    levels = torch.linspace(0, 1, 101)
    x = torch.rand(50, generator=torch.Generator().manual_seed(0)) * 0.5
    np.testing.assert_allclose(
        interpolated(x, method.quantiles, levels), np.interp(x, method.quantiles, levels), atol=1e-6
    )
    fair = torch.rand(4000, generator=torch.Generator().manual_seed(0)).tolist()
    method._bets(fair)
    assert abs(float(method.bet)) < 0.5
    assert float(method.log_wealth) < math.log(20)  # Ville: above 20 in at most 5 % of fair streams
    method.reset()
    bets = method._bets((0.5 + 0.5 * torch.tensor(fair)).tolist())
    assert bets[0] == 0
    assert float(method.log_wealth) > math.log(1e6)
    assert float(method.bet) > 1


def test_the_memory_of_rotta_is_balanced_and_prefers_the_new_and_sure() -> None:
    samples: list[Sample] = []
    for row in range(40):
        label = 0 if row % 10 else 1
        samples = [
            s._replace(age=s.age + 1) for s in remembered(samples, Sample(row, label, 0.1, 0), 8, 2)
        ]
    counts = [sum(s.label == c for s in samples) for c in (0, 1)]
    assert counts == [4, 4]
    assert {s.row for s in samples if s.label == 0} == {36, 37, 38, 39}
    unsure = Sample(99, 0, 50.0, 0)
    assert remembered(samples, unsure, 8, 2) == samples


def test_petta_slows_its_teacher_where_features_left_the_source() -> None:
    near, far = created("petta"), created("petta")
    far.source_mean.add_(100)
    near.source_mean.copy_(near.mean)
    for method, gamma in ((near, 0.0), (far, 1.0)):
        start = method.teacher.values()["1.weight"].clone()
        method(images())
        assert float(method.gamma) == pytest.approx(gamma, abs=1e-6)
        assert torch.equal(method.teacher.values()["1.weight"], start) == bool(gamma)


def test_the_released_memory_counts_a_sample_as_one_old_once_it_is_in() -> None:
    method = created("rotta", update_every=64, capacity=64)
    method(images(3))
    assert method.memory["ages"].tolist() == [3, 2, 1]


@pytest.mark.parametrize("name", ["rotta", "petta"])
def test_teacher_student_and_source_keep_statistics_of_their_own(name: str) -> None:
    method = created(name)
    method(images())
    teacher = method.model.get_buffer("1.moving_mean")
    student = method.student_moving.values()["1.moving_mean"]
    source = method.model.get_buffer("1.running_mean")
    assert not torch.equal(teacher, student)
    assert not torch.equal(teacher, source)
    if name == "petta":  # whose source sees what the teacher sees; their first layers are one
        torch.testing.assert_close(method.source_moving.values()["1.moving_mean"], teacher)


def test_cotta_leaves_tokens_and_positions_alone() -> None:
    options = MODELS["vit"](hidden_size=48, layers=2)
    network, _ = create_network("vit", options, num_classes=3, channels=1, size=(32, 32))
    method = create_method("cotta", network, num_classes=3)
    named = dict(network.named_parameters())
    alone = {name for name in named if name not in method.adapted}
    assert alone == {
        "features.vit.cls_token",
        "features.vit.patch_embedding.position_embeddings",
    }


def test_blended_statistics_take_the_unbiased_variance_where_there_is_one() -> None:
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    norm = nn.BatchNorm1d(2)
    layer = TestTimeBatchNorm(norm, "blend", alpha=0.3)
    mean, var = 0.3 * x.mean(0), 0.7 + 0.3 * x.var(0)
    torch.testing.assert_close(layer(x), (x - mean) / (var + norm.eps).sqrt())
    one = x[:1]
    torch.testing.assert_close(layer(one), 0.7 * one / math.sqrt(0.7 + norm.eps))


def test_the_study_can_leave_the_last_stage_alone_as_its_code_does() -> None:
    variants = OmegaConf.load(ROOT / "configs" / "benchmark" / "paper_exclude.yaml").variants
    options = MODELS["compact"]()
    for settings in OmegaConf.to_container(variants).values():
        network, _ = create_network("compact", options, num_classes=3, channels=1, size=(32, 32))
        kind = settings.pop("kind")
        method = create_method(kind, network, num_classes=3, **settings)
        # The released code skips every name with layer4 in it, and adapts all other BatchNorms.
        expected = {
            f"{name}.{key}"
            for name, module in network.named_modules()
            if isinstance(module, TestTimeBatchNorm) and "layer4" not in name
            for key in ("weight", "bias")
        }
        assert set(method.adapted) == expected


def test_a_bet_that_could_lose_all_is_refused() -> None:
    with pytest.raises(InputError, match="sum to less than 2"):
        created("poem", clip=1.95)


def test_cotta_restores_to_the_source() -> None:
    method = created("cotta", restore=1.0, lr=0.1)
    start = method.adapted_state()
    method(images())
    assert all(torch.equal(value, method.adapted[name]) for name, value in start.items())


def test_information_maximisation() -> None:
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    mean = logits.softmax(1).mean(0)
    torch.testing.assert_close(marginal_entropy(logits), -(mean * mean.log()).sum())
    method = created("shot_im")
    assert not any(name.startswith("8.") for name in method.adapted)


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        ("uniform", [0.25] * 4),
        ("source", [0.1, 0.2, 0.3, 0.4]),
        ([0.7, 0.1, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1]),
    ],
)
def test_target_priors(prior: object, expected: list[float]) -> None:
    network = small_network()
    known = {"prevalence": torch.tensor([0.1, 0.2, 0.3, 0.4])}
    method = create_method("dsbr", network, num_classes=4, target_prior=prior, **known)
    torch.testing.assert_close(method.target, torch.tensor(expected))
    method(images())
    torch.testing.assert_close(method.target, torch.tensor(expected))


def test_the_estimated_prior_asks_the_control_every_fourth_batch_and_shares_the_guards_answer() -> (
    None
):
    method = created("dsbr", target_prior="estimated")
    calls = [0]
    method.model.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    for seed in range(8):
        method(images(seed=seed))
    assert calls[0] == 8 + 1  # of the first batch the control says what the adapted model said
    shared = created("dsbr", target_prior="estimated")
    calls[0] = 0
    shared.model.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    for seed in range(8):
        batch = images(seed=seed)
        shared(batch)
        if seed % 4 == 0:
            shared.control(batch)
    assert calls[0] == 8 + 1  # of the first batch the control says what the adapted model said
    share = F.one_hot(created("norm")(images()).argmax(1), 4).float().mean(0)
    once = created("dsbr", target_prior="estimated")
    once(images())
    torch.testing.assert_close(once.target, 0.125 + 0.5 * (0.9 * 0.25 + 0.1 * share))


@pytest.mark.parametrize("prior", ["unifrom", [0.5, 0.1, 0.1, 0.1], [2.0, -1.0, 0, 0], [0.5, 0.5]])
def test_wrong_priors_are_refused(prior: object) -> None:
    with pytest.raises(InputError, match="target_prior"):
        created("dsbr", target_prior=prior)


@pytest.mark.parametrize("shape", [(3, 2, 12, 12), (3, 1, 13, 9), (2, 1, 8, 8, 8)])
def test_views_keep_shape_and_range(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    for view in (
        random_view(x, rng),
        shuffled_patches(x, 4, rng),
        shuffled_pixels(x, rng),
        occluded(x, (1,) * (x.dim() - 2), 3),
    ):
        assert view.shape == x.shape
        assert view.min() >= x.min()
        assert view.max() <= x.max()
        assert not torch.equal(view, x)


def test_shuffles_move_pixels_and_lose_none() -> None:
    x = torch.rand(2, 1, 8, 8)
    rng = torch.Generator().manual_seed(0)
    for view in (shuffled_patches(x, 4, rng), shuffled_pixels(x, rng)):
        torch.testing.assert_close(view.flatten(1).sort(1).values, x.flatten(1).sort(1).values)


def test_the_last_stage_is_found_by_position() -> None:
    from holdfast.tta.networks import MODELS, create_network

    def stage(kind: str) -> list[str]:
        network, _ = create_network(kind, MODELS[kind](), num_classes=2, channels=1, size=(32, 32))
        return last_stage(network)

    assert stage("resnet50") == ["features.layer4"]
    assert stage("compact") == ["features.layer4"]
    assert [name.split(".")[-1] for name in stage("densenet121")] == ["denseblock4", "norm5"]
    assert stage("vit") == ["features.vit.blocks.4", "features.vit.blocks.5", "features.vit.norm"]
    assert last_stage(small_network()) == ["4"]
    assert last_stage(nn.Sequential(nn.BatchNorm2d(2))) == []
