"""The adapted model beside its twin: what batches of any size tell of them."""

import pytest
import torch
import torch.nn.functional as F

from holdfast.callbacks import GuardConfig
from holdfast.callbacks.guard.evidence import Reference
from holdfast.callbacks.guard.health import Health
from holdfast.callbacks.guard.heard import read_back
from holdfast.callbacks.guard.signals import Values
from holdfast.tta.methods import Prediction
from tests.counts import counted

TUNED = GuardConfig().tuned
CENTRES = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
SOURCE = Reference(CENTRES, torch.ones(3, 8))


def pair(
    images: int, rng: torch.Generator, collapsed: bool = True
) -> tuple[Prediction, Prediction]:
    """A model that has collapsed wholly, or not at all, and a control that tells classes apart."""
    labels = torch.randint(3, (images,), generator=rng)
    noise = torch.randn(2, images, 8, generator=rng)
    control = Prediction(10 * F.one_hot(labels, 3).float(), noise[0] + 3 * CENTRES[labels])
    if not collapsed:
        return Prediction(control.logits, noise[1] + 3 * CENTRES[labels]), control
    return Prediction(F.one_hot(torch.zeros(images).long(), 3).float(), noise[1]), control


def look(health: Health, adapted: Prediction, control: Prediction) -> Values:
    return health.compare(read_back(health.asks(adapted, control)))


def measured(
    images: int, batches: int, collapsed: bool = True, source: Reference | None = None
) -> list[Values]:
    rng, health = torch.Generator().manual_seed(0), Health(3, TUNED, source)
    return [look(health, *pair(images, rng, collapsed)) for _ in range(batches)]


@pytest.mark.parametrize("images", [1, 4, 16, 64])
def test_a_collapse_shows_whatever_the_batch(images: int) -> None:
    found = measured(images, 256 // images)
    known = [values["R"] for values in found if values["R"] is not None]
    assert len(known) > len(found) / 3
    assert max(known) < 0.5
    assert found[-1]["drift"] == pytest.approx(2 / 3, abs=0.15)
    assert found[-1]["vanished"] == 2


@pytest.mark.parametrize("images", [1, 4, 16, 64])
def test_a_sound_model_does_not_look_like_a_collapse_whatever_the_batch(images: int) -> None:
    found = measured(images, 256 // images, collapsed=False)
    assert min(values["R"] for values in found if values["R"] is not None) > 0.5
    assert all(values["drift"] == 0 and values["vanished"] == 0 for values in found)


def test_small_batches_are_remembered_for_longer() -> None:
    health = Health(4, TUNED, None)
    assert health._decay(64) == pytest.approx(TUNED.decay)
    assert health._decay(8) > 0.8
    # So many images count of the past for whatever a batch holds, until 64 of them.
    for images in (1.0, 4.0, 8.0):
        window = images / (1 - health._decay(images))
        assert window == pytest.approx(1.6 * TUNED.min_count * 4, rel=1e-4)
    many = Health(1000, TUNED, None)
    window = 8 / (1 - many._decay(8))
    assert window == pytest.approx(64 / (1 - TUNED.decay), rel=1e-4)


def test_what_brings_classes_nearer_to_the_sources_is_gain_and_unknown_without_a_source() -> None:
    assert {values["gain"] for values in measured(64, 4)} == {None}
    gain = measured(64, 4, source=Reference(3 * CENTRES, torch.ones(3, 8)))[-1]["gain"]
    assert gain is not None
    assert gain < -1, "a collapsed model is further from the source than its control"


def test_class_shares_are_the_controls_and_no_class_has_none() -> None:
    health = Health(3, TUNED, None)
    assert health.class_shares().tolist() == pytest.approx([1 / 3] * 3)
    logits = F.one_hot(torch.tensor([0] * 9 + [1] * 6), 3).float()
    said = Prediction(logits, torch.randn(15, 8))
    look(health, said._replace(logits=logits.roll(1, 1)), said)
    assert health.class_shares().tolist() == pytest.approx([10 / 18, 7 / 18, 1 / 18])


def test_state_goes_on_exactly_and_forgetting_starts_afresh() -> None:
    rng = torch.Generator().manual_seed(0)
    pairs = [pair(16, rng, collapsed=False) for _ in range(12)]
    straight, halves = Health(3, TUNED, SOURCE), Health(3, TUNED, SOURCE)
    expected = [look(straight, *both) for both in pairs]
    found = [look(halves, *both) for both in pairs[:5]]
    taken_up = Health(3, TUNED, SOURCE)
    taken_up.load_state_dict(halves.state_dict())
    assert [*found, *(look(taken_up, *both) for both in pairs[5:])] == expected
    taken_up.forget()
    again = [look(taken_up, *both) for both in pairs]
    assert again == expected
    blank = Health(3, TUNED, SOURCE)
    blank.load_state_dict(Health(3, TUNED, SOURCE).state_dict())
    assert [look(blank, *both) for both in pairs] == expected


def test_all_is_read_back_at_once_and_nothing_else_is_asked_of_the_device() -> None:
    health, rng = Health(3, TUNED, SOURCE), torch.Generator().manual_seed(0)
    both = pair(16, rng)
    look(health, *both)
    counts = counted(lambda: look(health, *both))
    assert counts.read == 1
    assert counts.operations <= 6, "a view of each of four values, and one copy"
