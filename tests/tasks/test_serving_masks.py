"""Masks in the module that carries a method through a stream."""

import torch
from lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader

from holdfast.testing.subject import network
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.candidates import Candidates
from holdfast.tta.methods import create_method
from holdfast.tta.methods.base import Method
from holdfast.tta.prediction import Prediction

QUIET = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}


def method(**more: object) -> Method:
    return create_method(
        "tent", network("BatchNorm", dense=True), num_classes=4, task="segmentation", **more
    )


def images(count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 1, 12, 12, generator=torch.Generator().manual_seed(seed))


def test_one_case_is_a_batch_and_masks_leave() -> None:
    module = AdaptationModule(method(lr=0.01), batch_size=8)
    before = module.method.adapted_state()
    outputs = module.training_step(images(1), 0)
    assert outputs["skipped"] is None
    assert outputs["logits"].shape == (1, 4, 12, 12)
    assert isinstance(outputs["rows"], Prediction)
    after = module.method.adapted_state()
    assert any(not torch.equal(value, after[name]) for name, value in before.items())


def test_masks_and_their_dice_come_out_of_a_trainer() -> None:
    masks = torch.randint(0, 4, (4, 12, 12), generator=torch.Generator().manual_seed(0))
    loader = DataLoader([{"image": images(1, i)[0], "mask": masks[i]} for i in range(4)], 2)
    left = Trainer(**QUIET).predict(AdaptationModule(method(lr=0.01)), loader)  # type: ignore[arg-type]
    assert left is not None
    assert set(left[0]) >= {"id", "logits", "probabilities"}
    assert "rows" not in left[0]
    torch.testing.assert_close(left[0]["probabilities"].sum(1), torch.ones(2, 12, 12))
    scores = Trainer(**QUIET).test(AdaptationModule(method(lr=0.01)), loader, verbose=False)  # type: ignore[arg-type]
    assert 0 < scores[0]["test/dice"] < 100


def test_findings_and_their_area_come_out_of_a_trainer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    finder = create_method("tent", model, num_classes=3, task="multilabel", lr=0.01)
    findings = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 1, float("nan")]])
    loader = DataLoader([{"image": images(1, i)[0], "findings": findings[i]} for i in range(4)], 2)
    scores = Trainer(**QUIET).test(AdaptationModule(finder), loader, verbose=False)  # type: ignore[arg-type]
    assert 0 <= scores[0]["test/auroc"] <= 100


def test_candidates_are_source_and_batch_and_each_doubts_itself_at_a_look() -> None:
    own = method(normalization="auto")
    candidates = Candidates(own)
    assert candidates.names == ("source", "batch")
    said = candidates.predict(images(3))
    for one in said.values():
        assert one.doubt is not None
        assert one.doubt.shape == (3,)
        assert 0 < float(one.doubt.min()) <= float(one.doubt.max()) < 1
    assert candidates.predict(images(3), ["source"])["source"].doubt is None


def test_images_are_flipped_along_both_sides_in_turn() -> None:
    candidates = Candidates(method())
    maps, numbers = torch.arange(24.0).reshape(2, 1, 3, 4), torch.arange(2)
    for first, second in ((-1, -2), (-2, -1)):
        turned = candidates._flipped(maps, numbers)
        assert torch.equal(turned[0], maps[0].flip(first))
        assert torch.equal(turned[1], maps[1].flip(second))
        assert torch.equal(candidates._flipped(turned, numbers), maps)
        candidates.predict(images(2))
    assert candidates.get_extra_state()["doubts"] == 2


def test_signals_are_flipped_along_their_length_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 8, 1), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 3, 1))
    own = create_method("tent", model, num_classes=3, task="segmentation", normalization="auto")
    candidates, signals = Candidates(own), torch.rand(4, 2, 40)
    for _ in range(2):  # what is said of a place depends on it alone, wherever it lies
        for one in candidates.predict(signals).values():
            assert one.doubt is not None
            torch.testing.assert_close(one.doubt, torch.zeros(4))
