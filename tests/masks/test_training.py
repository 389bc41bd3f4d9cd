"""Training on masks: patches, what a source knows of its pixels and cases, and what is refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from holdfast.callbacks import GuardConfig
from holdfast.callbacks.calibrated import levels_of
from holdfast.callbacks.guard.signals import BY_NAME
from holdfast.datamodules.patches import Patches
from holdfast.datamodules.source import SourceData
from holdfast.programs import train
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.doubts import doubt_quantiles
from holdfast.tta.errors import InputError
from holdfast.tta.methods import create_method
from holdfast.tta.networks import DenseNetwork
from holdfast.tta.tasks import Segmentation
from holdfast.tta.tasks.overlap import DiceScorer
from tests.conftest import MASKS, QUICK
from tests.datamodules.test_targets import with_masks


def test_a_third_of_the_patches_show_a_rare_class() -> None:
    image, mask = torch.arange(64 * 64.0).reshape(1, 64, 64), torch.zeros(64, 64, dtype=torch.long)
    mask[60, 3] = 2
    patches = Patches((16, 8))
    patches.set_random_state(seed=0)
    shown = 0
    for _ in range(200):
        part, cut = patches(image, mask)
        assert part.shape == (1, 16, 8)
        assert torch.equal(part[0] == image[0, 60, 3], cut == 2)  # cut at the same place
        shown += int((cut == 2).any())
    assert 60 < shown < 100
    assert patches.count((64, 64)) == 32


@pytest.mark.parametrize("sides", [[16], [16, 65], [0, 8]])
def test_patches_that_do_not_fit(sides: list[int]) -> None:
    with pytest.raises(InputError, match="does not fit into images of"):
        Patches(sides).check((64, 64))


def test_an_epoch_has_as_many_patches_as_cover_the_images() -> None:
    data = SourceData(with_masks(6), with_masks(4), patch=(4, 4), augment=("flip",), batch_size=4)
    batches = list(data.train_dataloader())
    sides = data.images["train"].size
    assert data.copies == round(sides[0] * sides[1] / 16)
    assert sum(len(batch["image"]) for batch in batches) == 4 * data.steps
    assert all(batch["mask"].shape[1:] == (4, 4) for batch in batches)
    assert next(iter(data.val_dataloader()))["mask"].shape[1:] == sides


def test_scorers_of_several_processes_are_put_together() -> None:
    whole, parts = DiceScorer(2), [DiceScorer(2), DiceScorer(2)]
    outputs, masks = torch.randn(4, 2, 3, 3), torch.randint(0, 2, (4, 3, 3))
    whole.add(outputs, masks)
    for part, rows in zip(parts, (slice(0, 1), slice(1, 4)), strict=True):
        part.add(outputs[rows], masks[rows])
    parts[0].merge(parts[1])
    assert parts[0].scores() == pytest.approx(whole.scores())


class _Left(nn.Module):
    """Says foreground where an image is bright, and on the left whatever is there."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(2, 2, 1, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(2)[:, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        bright = (images[:, 0] > 0.5).float()
        bright[..., 0] = 1
        return self.head(50 * torch.stack([1 - bright, bright], 1))


def test_doubt_by_hand() -> None:
    images = torch.zeros(2, 1, 4, 4)
    images[1, ..., :2] = 1
    method = create_method("source", _Left(), num_classes=2, task="segmentation")
    found = doubt_quantiles(method, [images])
    # Of the dark image one column and its mirror image share nothing; of the other the two columns
    # of its mirror image get a third one: 2 · 2 of 2 + 3 agree.
    assert found is not None
    torch.testing.assert_close(found[[0, 100]], torch.tensor([0.2, 1.0]), atol=1e-4, rtol=0)


def test_training_on_masks_leaves_what_adaptation_needs(mask_source: Path) -> None:
    checkpoint = SourceCheckpoint.load(mask_source)
    assert checkpoint.class_names == ["background", "cytoplasm", "nucleus"]
    assert checkpoint.task == {"name": "segmentation", "options": {}}
    assert isinstance(checkpoint.build(), DenseNetwork)
    assert checkpoint.size == (32, 32)  # of the patches
    assert checkpoint.prevalence.sum() == pytest.approx(1)
    assert checkpoint.prevalence[0] > 0.5
    assert checkpoint.feature_mean.shape == checkpoint.feature_var.shape == (3, 8)
    assert checkpoint.separation > 0
    assert checkpoint.fisher is not None
    assert checkpoint.share_quantiles is not None
    assert checkpoint.share_quantiles.shape == (101, 3)
    assert checkpoint.doubt_quantiles is not None
    assert 0 <= checkpoint.doubt_quantiles[50] < 1
    assert {"dice", "hd95", "nsd", "per_class", "val_dice"} <= checkpoint.metrics.keys()
    assert checkpoint.metrics["per_class"]["cytoplasm"]["dice"] > 50
    curve = (mask_source / "csv" / "metrics.csv").read_text()
    assert "val/dice" in curve.splitlines()[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.task=segmentation"], "model=compact answers for whole images"),
        (["model=basicunet"], "model=basicunet answers for each pixel"),
        (["patch=[8,8]"], "have a label: leave it out"),
        (["data.task=segmentation", "model=basicunet", "patch=[8]"], "does not fit into images"),
    ],
)
def test_what_does_not_go_together(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    few = [f"data.{split}_images=16" for split in ("train", "val", "test")]
    assert train.main([*QUICK, *few, *words, f"output={tmp_path}"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.gate
def test_a_source_of_masks_is_calibrated_on_streams_of_its_own_cases(
    mask_source: Path, tmp_path: Path
) -> None:
    small = ["calibrate.streams=21", "calibrate.batches=4", "calibrate.batch_size=2"]
    words = ["calibrate=only", f"source={mask_source}", *small, "calibrate.methods=[tent]"]
    assert train.main([*QUICK, *MASKS, *words, f"output={tmp_path}"]) == 0
    checkpoint = SourceCheckpoint.load(tmp_path)
    known = checkpoint.calibration
    assert known is not None
    assert known["healthy"] >= 6, "tent at its own rate does no harm in four batches"
    assert {"R.level", "drift.level", "drift.limit", "gain.limit"} <= known["tails"].keys()
    # What moves is measured by the task, and levels are no stricter than the task's own.
    levels = levels_of(GuardConfig(), known, checkpoint.meaning)
    assert levels.levels["drift"] >= Segmentation.drift_level > BY_NAME["drift"].level
    assert levels.limits["drift"] >= Segmentation.drift_limit
    set_ = levels_of(GuardConfig(limits={"drift": 0.1}), known, checkpoint.meaning)
    assert set_.limits["drift"] == 0.1
