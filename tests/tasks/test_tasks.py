"""What each task says of a network's output: rows, groups, loss, decisions and figures."""

import math

import pytest
import torch
from monai.networks.nets import BasicUNet, DynUNet, UNet
from torch import Tensor, nn

import holdfast
from holdfast.tta.errors import InputError
from holdfast.tta.prediction import Prediction, joined
from holdfast.tta.tasks import TASKS, Multilabel, Segmentation, Single, Task, create_task, task_of
from holdfast.tta.tasks.overlap import dice, dice_loss
from holdfast.tta.tasks.ranks import auroc
from holdfast.tta.tasks.sampling import ROWS, balanced, positions


def maps(count: int = 2, classes: int = 3, *sides: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, classes, *(sides or (4, 5)), generator=generator)


def test_every_task_is_found_by_name_and_described_for_a_checkpoint() -> None:
    assert list(TASKS)[:3] == ["single", "segmentation", "multilabel"]
    assert holdfast.TASKS is TASKS
    for name in TASKS:
        task = create_task(name, 3)
        assert task.name == name
        assert type(task_of(task.described, 3)) is type(task)
    assert isinstance(task_of(None, 3), Single)  # a checkpoint from before there were tasks
    thresholds = Multilabel(2, thresholds=[0.1, 0.7])
    assert task_of(thresholds.described, 2).given == {"thresholds": [0.1, 0.7]}


@pytest.mark.parametrize(
    ("task", "classes", "options", "message"),
    [
        ("segmentatoin", 2, {}, "did you mean segmentation"),
        ("segmentation", 1, {}, "at least 2 classes"),
        ("multilabel", 0, {}, "at least 1 class"),
        ("single", 2, {"thresholds": [0.5, 0.5]}, "has no option 'thresholds'"),
        ("multilabel", 2, {"thresholds": [0.5]}, "must be 2 probabilities"),
        (Single(3), 2, {}, "3 classes, and num_classes=2"),
        (Prediction, 2, {}, "a task is a name"),
    ],
)
def test_a_wrong_request_says_what_is_right(
    task: object, classes: int, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        create_task(task, classes, **options)  # type: ignore[arg-type]


def test_rows_of_single_labels_are_the_images_as_they_are() -> None:
    logits, features = torch.randn(4, 3), torch.randn(4, 7)
    rows = Single(3).rows(logits, features)
    assert rows.logits is logits
    assert rows.features is features
    assert rows.served is logits
    assert rows.image is None
    assert rows.group is None
    assert Single(3).sample(rows) is rows
    torch.testing.assert_close(Single(3).mix(rows)[:, 0], logits.softmax(1))


def test_rows_of_a_mask_are_its_pixels() -> None:
    output, features = maps(), maps(2, 6, seed=1)
    rows = Segmentation(3).rows(output, features)
    assert rows.logits.shape == (40, 3)
    assert rows.features.shape == (40, 6)
    assert rows.image is not None
    assert rows.image.bincount().tolist() == [20, 20]
    torch.testing.assert_close(rows.logits[20 + 7], output[1, :, 1, 2])
    torch.testing.assert_close(rows.features[20 + 7], features[1, :, 1, 2])
    assert rows.served is output
    each = rows.each_image(rows.logits[:, 0])
    torch.testing.assert_close(each, output[:, 0].flatten(1).mean(1))


def test_features_of_another_resolution_are_taken_where_the_pixel_lies() -> None:
    output, features = maps(1, 2, 4, 4), maps(1, 6, 2, 2)
    rows = Segmentation(2).rows(output, features)
    torch.testing.assert_close(rows.features[2], features[0, :, 0, 1])
    torch.testing.assert_close(rows.features[4 * 3 + 1], features[0, :, 1, 0])


def test_of_many_pixels_a_bounded_number_is_seen_evenly_and_the_same_each_time() -> None:
    picked = positions(1000, 100, torch.device("cpu"))
    assert picked is not None
    assert picked.div(10, rounding_mode="floor").tolist() == list(range(100))  # one a stretch
    again = positions(1000, 100, torch.device("cpu"))
    assert again is not None
    assert torch.equal(picked, again)
    assert positions(100, 100, torch.device("cpu")) is None
    output = maps(2, 2, 512, 512)
    rows = Segmentation(2).rows(output, output)
    assert len(rows.logits) == ROWS
    torch.testing.assert_close(
        rows.each_image(rows.logits), output.flatten(2).mean(2), atol=0.01, rtol=0
    )


def test_a_sample_has_each_predicted_class_and_the_same_pixels_for_all_twins() -> None:
    output = torch.zeros(2, 2, 64, 64)
    output[:, 0] = 1.0
    output[0, 1, :2, :20] = 2.0  # 1 % of the first image, none of the second
    task = Segmentation(2)
    rows = task.rows(output, output)
    sample = task.sample(rows)
    assert sample.image is not None
    assert sample.image.bincount().tolist() == [64, 64]
    shown = sample.logits.argmax(1).view(2, 64).sum(1)
    assert 20 <= int(shown[0]) <= 40
    assert int(shown[1]) == 0
    place = torch.arange(64 * 64).float().view(1, 1, 64, 64).expand(2, 2, -1, -1)
    twin = task.rows(place, place)
    torch.testing.assert_close(task.sample(twin, rows).features, task.sample(twin, rows).logits)
    assert torch.equal(task.sample(twin, rows).image, sample.image)  # type: ignore[arg-type]
    assert balanced(torch.zeros(1, 10, dtype=torch.long), 2, 64).shape == (1, 10)


def test_the_mix_of_a_mask_is_of_all_pixels() -> None:
    output = maps(2, 3, 4, 5)
    task = Segmentation(3)
    mix = task.mix(task.rows(output, output))
    assert mix.shape == (2, 1, 3)
    torch.testing.assert_close(mix[1, 0], output[1].softmax(0).flatten(1).mean(1))


def test_rows_of_findings_are_binary() -> None:
    task = Multilabel(3)
    output, features = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]]), torch.randn(2, 4)
    rows = task.rows(output, features)
    assert rows.group is not None
    assert rows.image is not None
    assert rows.group.tolist() == [0, 1, 2, 0, 1, 2]
    assert rows.image.tolist() == [0, 0, 0, 1, 1, 1]
    torch.testing.assert_close(rows.logits.softmax(1)[:, 1], output.flatten().sigmoid())
    torch.testing.assert_close(rows.features[4], features[1])
    assert rows.cells(rows.logits.argmax(1)).tolist() == [1, 2, 5, 0, 3, 4]
    assert (task.groups, task.row_classes, task.cells) == (3, 2, 6)
    torch.testing.assert_close(task.mix(rows)[1, 2], rows.logits[5].softmax(0))
    assert task.kind(rows).tolist() == [1, 2]
    assert task.kind(task.rows(-output.abs(), features)).tolist() == [0, 0]


def test_what_an_image_mostly_shows_is_foreground_where_there_is_any() -> None:
    output = torch.zeros(2, 3, 4, 4)
    output[:, 0] = 1
    output[0, 2, 0, :2] = 2
    output[0, 1, 1, 1] = 2
    task = Segmentation(3)
    assert task.kind(task.rows(output, output)).tolist() == [2, 0]


@pytest.mark.parametrize("name", ["single", "segmentation", "multilabel"])
def test_probabilities_are_taken_back_and_decided_on(name: str) -> None:
    task = create_task(name, 3)
    output = maps() if task.dense else torch.randn(2, 3)
    p = task.probabilities(output)
    torch.testing.assert_close(task.probabilities(task.inverse(p)), p)
    decided = task.decide(p)
    if name == "multilabel":
        assert torch.equal(decided, output >= 0)
    else:
        assert torch.equal(decided, output.argmax(1))


def test_findings_are_decided_by_their_thresholds() -> None:
    decided = Multilabel(2, thresholds=[0.1, 0.9]).decide(torch.tensor([[0.2, 0.2], [0.0, 0.95]]))
    assert decided.tolist() == [[True, False], [False, True]]


def test_the_loss_of_a_mask_by_hand() -> None:
    target = torch.tensor([[[0, 1], [1, -1]]])
    output = torch.zeros(1, 2, 2, 2)
    assert Segmentation(2).loss(output, target) == pytest.approx(
        math.log(2) + 1 - 2 * 1.0 / (1.5 + 2.0), abs=1e-4
    )
    right = 40 * torch.stack([target == 0, target == 1], 1).float() - 20
    assert float(Segmentation(2).loss(right, target)) < 1e-4
    assert float(dice_loss(output, torch.full_like(target, -1))) < 1e-4
    assert float(Segmentation(2).loss(output, torch.full_like(target, -1))) < 1e-4


def test_the_loss_of_findings_leaves_out_what_is_not_known() -> None:
    target = torch.tensor([[1.0, math.nan], [0.0, 1.0]])
    output = torch.tensor([[0.0, 50.0], [0.0, 0.0]], requires_grad=True)
    loss = Multilabel(2).loss(output, target)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(math.log(2))
    assert output.grad is not None
    assert output.grad[0, 1] == 0
    unknown = torch.full((1, 2), math.nan)
    assert float(Multilabel(2).loss(torch.zeros(1, 2), unknown)) == 0


def test_dice_by_hand() -> None:
    predicted = torch.tensor([[[0, 1], [1, 2]], [[0, 0], [0, 0]]])
    target = torch.tensor([[[1, 1], [-1, 2]], [[0, 0], [0, 0]]])
    values = dice(predicted, target, 4)
    torch.testing.assert_close(values[0, :2], torch.tensor([2 / 3, 1.0]))
    assert values[0, 2].isnan()
    assert values[1].isnan().all()


def test_areas_by_hand_and_against_pairs() -> None:
    scores = torch.tensor([0.3, 0.1, 0.3, 0.9, 0.5])
    present = torch.tensor([True, False, False, True, False])
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[present] for n in scores[~present]]
    assert auroc(scores, present) == pytest.approx(float(sum(pairs)) / 6)
    assert math.isnan(auroc(scores, torch.ones(5, dtype=torch.bool)))


def test_scorers_watch_what_the_task_names() -> None:
    for name, target, right in (
        ("single", torch.tensor([0, 1]), torch.eye(2)),
        ("segmentation", torch.tensor([[[0, 1]], [[-1, 1]]]), None),
        ("multilabel", torch.tensor([[1.0, math.nan], [0.0, 1.0]]), torch.eye(2)),
    ):
        task = create_task(name, 2)
        scorer = task.scorer()
        assert scorer.scores() == {}
        if right is None:
            right = torch.stack([target == 0, target == 1], 1).float()
        scorer.add(right, target)
        assert scorer.scores()[task.watch] == pytest.approx(100)


NETS = {
    "basic": lambda: BasicUNet(2, 1, 3, features=(4, 4, 8, 8, 8, 4)),
    "unet": lambda: UNet(2, 1, 3, (4, 8, 8), (2, 2)),
    "residual": lambda: UNet(2, 1, 3, (4, 8, 8), (2, 2), num_res_units=1),
    "dyn": lambda: DynUNet(2, 1, 3, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 8]),
}


@pytest.mark.parametrize("kind", NETS)
def test_the_last_convolution_of_known_networks_is_their_head(kind: str) -> None:
    network, seen = NETS[kind]().eval(), []
    head = Segmentation(3).head(network, None)
    head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    output = Segmentation(3).output(network(torch.rand(2, 1, 32, 32)))
    rows = Segmentation(3).rows(output, seen[0])
    assert rows.logits.shape == (2 * 32 * 32, 3)
    assert len(rows.features) == 2 * 32 * 32


def test_heads_and_answers_that_do_not_fit_say_what_would() -> None:
    network = NETS["basic"]()
    with pytest.raises(InputError, match="convolution with 5 outputs"):
        Segmentation(5).head(network, None)
    with pytest.raises(InputError, match="task=segmentation"):
        Single(3).head(network, None)
    with pytest.raises(InputError, match="task=segmentation"):
        Single(3).output(torch.zeros(2, 3, 8, 8))
    with pytest.raises(InputError, match="task=single"):
        Segmentation(3).output(torch.zeros(2, 3))
    with pytest.raises(InputError, match=r"logits of shape \(images, 4\)"):
        Multilabel(4).output(torch.zeros(2, 3))
    with pytest.raises(InputError, match="2 output"):
        Multilabel(3).head(nn.Sequential(nn.Linear(3, 2)), None)
    with pytest.raises(InputError, match="size of its images"):
        Segmentation(2).loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 8, 8, dtype=torch.long))


def test_one_logit_a_pixel_stands_for_two_classes() -> None:
    z = maps(1, 1)
    output = Segmentation(2).output({"logits": z})
    torch.testing.assert_close(output.softmax(1)[:, 1:], z.sigmoid())


def test_predictions_of_parts_are_that_of_the_whole() -> None:
    for task, output in ((Segmentation(3), maps(4)), (Multilabel(3), torch.randn(4, 3))):
        features = maps(4, 6) if task.dense else torch.randn(4, 6)
        whole = task.rows(output, features)
        parts = joined([task.rows(output[:1], features[:1]), task.rows(output[1:], features[1:])])
        for one, other in zip(whole, parts, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert torch.equal(one, other)


def test_a_task_of_ones_own_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TASKS, "_entries", dict(TASKS._entries))

    @holdfast.register_task("regions")
    class Regions(Multilabel):
        name = "regions"

    assert isinstance(create_task("regions", 2), Regions)
    with pytest.raises(InputError, match="no subclass of"):
        holdfast.register_task("no", nn.Linear)  # type: ignore[arg-type]
    assert issubclass(Regions, Task)


def test_guards_see_cells_and_count_in_one_unit() -> None:
    task = Multilabel(3)
    rows = task.rows(torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]]), torch.randn(2, 4))
    seen = task.seen(rows)
    assert seen.logits.argmax(1).tolist() == rows.cells(rows.logits.argmax(1)).tolist()
    torch.testing.assert_close(seen.logits.softmax(1)[0, :2], rows.logits[0].softmax(0))
    torch.testing.assert_close(seen.logits.softmax(1).sum(1), torch.ones(6))
    assert task.counts(rows).tolist() == [1, 1, 1, 1, 1, 1]
    assert task.unit == 3
    dense = Segmentation(2)
    output = torch.zeros(2, 2, 8, 16)
    output[0, 1, :4] = 1
    pixels = dense.rows(output, output)
    assert dense.counts(pixels).tolist() == [96, 32]  # each image counts for 64
    assert len(dense.seen(pixels).logits) == 2 * dense.unit
    single = Single(3)
    logits = torch.randn(5, 3)
    assert single.seen(single.rows(logits, logits)).logits is logits
    assert single.counts(single.rows(logits, logits)).sum() == 5 * single.unit


def test_drift_of_masks_is_relative_and_sees_erosion_and_inflation() -> None:
    task = Segmentation(3)
    control = torch.tensor([9000.0, 900.0, 100.0])
    assert float(task.drift(control, control)) == 0
    eroded = task.drift(torch.tensor([9050.0, 900.0, 50.0]), control)
    inflated = task.drift(torch.tensor([8900.0, 900.0, 200.0]), control)
    assert float(eroded) == pytest.approx(float(inflated), abs=0.05)
    assert 0.4 < float(eroded) < 0.5
    assert float(task.drift(torch.tensor([10000.0, 0, 0]), control)) > 0.9
    assert float(task.drift(torch.tensor([0.0, 10000.0, 0]), control)) > 0.9
    hardly = torch.tensor([99999.0, 0.0, 1.0])
    assert float(task.drift(hardly, torch.tensor([1e5, 0.0, 0.0]))) < 0.02


def test_drift_of_findings_allows_for_chance_among_so_many() -> None:
    generator = torch.Generator().manual_seed(0)
    strays, images, control = [], 64, torch.tensor([0.9, 0.1]).repeat(30) * 64
    for _ in range(50):
        shown = (torch.rand(images, 30, generator=generator) < 0.1).float().sum(0)
        counts = torch.stack([images - shown, shown], 1).flatten()
        strays.append(float(Multilabel(30).drift(counts, control)))
    assert sum(stray > 0 for stray in strays) <= 5
    gone = torch.tensor([64.0, 0.0, 64.0, 0.0])
    assert float(Multilabel(2).drift(gone, torch.tensor([32.0, 32.0, 64.0, 0.0]))) > 0.3
    assert Single(2).drift(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0])) == 0.25


def test_doubt_is_what_a_flip_changes() -> None:
    task = Segmentation(2)
    p = torch.zeros(2, 2, 4, 4)
    p[:, 0] = 1
    p[:, :, :2] = torch.tensor([0.0, 1.0])[:, None, None]
    q = p.clone()
    q[1] = q[1].flip(1)
    doubt = task.doubt(p, q)
    assert doubt is not None
    torch.testing.assert_close(doubt, torch.tensor([0.0, 1.0]), atol=1e-4, rtol=0)
    assert Single(2).doubt(p, q) is None


def test_both_trivial_answers_are_told_by_what_the_source_holds() -> None:
    task = Segmentation(2)
    foreground = torch.linspace(0, 0.4, 101)
    shares = torch.stack([1 - foreground, foreground], 1)
    found = torch.tensor([0.01, 0.05, 0.5, 0.75])
    doubt = torch.tensor([0.0, 0.1, 0.1, 0.0])
    weighed = task.weighed(doubt, found, shares)
    torch.testing.assert_close(weighed, torch.tensor([0.8, 0.1, 0.1, 0.45]))
    # More foreground than half of the way to all is no answer; nor is twice the source's most.
    little = torch.stack([1 - foreground / 4, foreground / 4], 1)
    assert task.weighed(doubt, found, little).tolist()[2] == pytest.approx(0.45)
    assert float(task.weighed(torch.tensor([0.9]), found[3:], shares)) == pytest.approx(0.9)
    # Of single images little is odd only where the source's have more.
    rising = shares.flip(0)
    single = task.image_doubt(torch.zeros(2), torch.tensor([0.001, 0.1]), rising)
    torch.testing.assert_close(single, torch.tensor([0.3, 0.0]))
    never = shares * 0 + torch.tensor([1.0, 0.0])
    assert not task.image_doubt(torch.zeros(1), torch.zeros(1), never).any()
    # All of it overlaps with any truth.
    assert float(task.weighed(doubt[:1], torch.tensor([0.99]), shares)) == pytest.approx(0.2)
    output = torch.zeros(1, 2, 4, 4)
    output[0, 1, 0] = 1
    assert task.found(task.rows(output, output)).tolist() == [0.25]
