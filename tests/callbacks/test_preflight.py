"""Pre-flight: it tells home from abroad and skew from balance, and says so when it cannot tell."""

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import configure
from holdfast.callbacks import GuardConfig
from holdfast.callbacks.preflight import EXIT, Expected, Preflight, PreflightView, advise, preflight
from holdfast.datamodules import StreamLoader, create_stream
from holdfast.programs import adapt
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.errors import InputError
from holdfast.tta.marginal import chance_drift
from tests.conftest import QUICK

PHANTOM = ["round", "elongated", "granular", "lobulated"]
NAMES, EVEN = ["a", "b"], torch.tensor([0.5, 0.5])
Capture = pytest.CaptureFixture[str]


def look(
    source: Path,
    *words: str,
    images: int = 256,
    broken: int = 0,
    guard: GuardConfig | None = None,
) -> Preflight:
    """Looks at the phantom, the first pixels of each batch's first images broken."""
    config = configure([f"source={source}", *QUICK, *words])
    checkpoint = SourceCheckpoint.load(source)
    target = Assembly.of(config, checkpoint).images
    loader = StreamLoader(
        target, create_stream(config.stream.options, target, 0), config.stream.options.batch_size
    )

    def batches() -> Iterator[dict[str, Any]]:
        for batch in loader:
            batch["image"][:broken, 0, 0, 0] = math.nan
            yield batch

    return preflight(checkpoint, batches(), images, guard=guard)


def view(**changes: Any) -> PreflightView:
    return dataclasses.replace(PreflightView(1.0, 0.05, [0.5, 0.5], 0.0, 1.0), **changes)


def told(
    source: PreflightView, images: int = 256, broken: int = 0, **others: PreflightView
) -> tuple[str, str]:
    views = {"source": source, **others}
    chosen = max(views, key=lambda name: views[name].share)
    chance = float(chance_drift(EVEN, max(images - broken, 1)))
    advice, reasons = advise(views, chosen, images, broken, Expected(NAMES, EVEN, chance))
    return advice, " ".join(reasons)


def test_at_home_there_is_little_to_adapt_to(source: Path) -> None:
    found = look(source, "data.target=scanner_a")
    assert found.advice != "adapt"
    assert "The source model reads these images" in found.reasons[0]
    assert found.views["source"].separation == pytest.approx(1, abs=0.4)


def test_abroad_it_is_worth_it_and_with_few_or_broken_images_worth_care(source: Path) -> None:
    found = look(source, "shift=contrast", "shift.severity=5")
    assert found.advice != "do not adapt"
    assert found.statistics != "source"
    assert (
        not found.views["source"].fits
        or found.views["source"].share < found.views[found.statistics].share
    )
    few = look(source, "shift=contrast", "shift.severity=5", "stream.batch_size=8", images=8)
    assert (few.advice, few.images) == ("adapt carefully", 8)
    assert "Only 8 sound images" in " ".join(few.reasons)


@pytest.mark.parametrize("broken", [3, 40, 64])
def test_broken_images_are_counted_and_never_spoil_the_numbers(source: Path, broken: int) -> None:
    found = look(source, broken=broken)
    assert found.broken == 4 * broken
    json.dumps(found.to_dict(), allow_nan=False)
    assert (found.advice == "do not adapt") or broken == 3
    assert "broken pixels" in " ".join(found.reasons)


def test_skewed_classes_call_for_care(source: Path) -> None:
    # Most images are of the class that even a briefly trained source knows.
    found = look(
        source,
        "data.target=scanner_a",
        "stream=prevalence",
        "stream.prevalence=[.05,.05,.85,.05]",
        images=120,
    )
    assert "where the source had 25%: an objective that aims at equal shares" in " ".join(
        found.reasons
    )


@pytest.mark.parametrize(
    "words", [("stream.batch_size=1",), ("stream=window", "data.target_images=40")]
)
def test_a_single_image_at_a_time(source: Path, words: tuple[str, ...]) -> None:
    assert look(source, *words, images=20).images == 20


def test_no_image_is_refused(source: Path) -> None:
    with pytest.raises(InputError, match="no images to look at"):
        preflight(SourceCheckpoint.load(source), [])


@pytest.mark.parametrize("images", [3, 256])
def test_where_one_class_is_predicted_nobody_knows_whether_classes_merge(images: int) -> None:
    single = view(separation=None, marginal=[1.0, 0.0], drift=0.5, unsure=0.2, share=0.1)
    advice, reasons = told(single, images=images, batch=view(share=0.9))
    assert advice == "adapt carefully"
    assert "J is undefined" in reasons
    assert "100% of the images are predicted as a" in reasons
    shown = Preflight("adapt", ["yes"], images, 0, "source", {"source": single})
    assert "-" in str(shown)
    json.dumps(shown.to_dict(), allow_nan=False)


def test_one_image_is_too_little_to_say_that_classes_merge(source: Path) -> None:
    found = look(source, "stream.batch_size=1", images=1)
    assert (found.advice, found.views["source"].separation) == ("adapt carefully", None)


def test_what_views_come_to() -> None:
    assert told(view()) == ("do not adapt", told(view())[1])
    assert told(view(share=0.6), batch=view(share=0.4))[0] == "do not adapt"
    lost, other = view(separation=0.05, unsure=0.9, share=0.1), view(share=0.9)
    assert told(lost, batch=dataclasses.replace(lost, share=0.9))[0] == "do not adapt"
    assert told(lost, batch=other)[0] == "adapt"
    assert "J is 100%" in told(lost, batch=other)[1]
    assert told(lost, images=20, batch=other)[0] == "adapt carefully"
    near = told(view(share=0.3), batch=view(share=0.7))
    assert near[0] == "adapt carefully"
    assert "there is little to gain, by batch statistics" in near[1]
    assert (
        told(view(drift=0.4, share=0.02), batch=view(share=0.98))[0] == "adapt"
    )  # sure and apart, but of the wrong answers
    skewed = view(marginal=[0.9, 0.1], drift=0.4, share=0.3)
    advice, reasons = told(lost, batch=view(share=0.6), corrected=skewed)
    assert advice == "adapt carefully"
    assert "90% of the images are predicted as a" in reasons
    hardly = dataclasses.replace(skewed, share=0.04)
    assert told(lost, batch=view(share=0.86), corrected=hardly)[0] == "adapt"
    assert (
        told(view(separation=0.4, share=0.7), batch=view(share=0.3))[0] == "adapt carefully"
    )  # a shift that nothing takes away
    # Classes that lie so close are a strong shift's, or a single one's.
    assert told(lost, batch=view(separation=0.45, share=0.9))[0] == "adapt"
    advice, reasons = told(lost, batch=view(separation=0.35, share=0.9))
    assert advice == "adapt carefully"
    assert "hardly more than one of them" in reasons
    assert told(view(), images=10, broken=10)[0] == "do not adapt"


def test_what_the_site_knows_of_its_stream_counts(source: Path) -> None:
    words = ("stream=prevalence", "stream.prevalence=[.05,.05,.85,.05]", "data.target=scanner_b")
    free = look(source, *words)
    assert sum(view.share for view in free.views.values()) == pytest.approx(1)
    # Of all answers the one that its model gives far more often than any other does.
    gaps = {
        (name, label): view.marginal[place]
        - max(other.marginal[place] for key, other in free.views.items() if key != name)
        for name, view in free.views.items()
        for place, label in enumerate(PHANTOM)
    }
    worst, label = max(gaps, key=lambda pair: gaps[pair])
    assert gaps[worst, label] > 0.05
    held = look(source, *words, guard=GuardConfig(prevalence={label: [0.0, 0.01]}))
    assert held.views[worst].share <= free.views[worst].share


def test_the_program_prints_and_exits_by_its_advice(
    source: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = [f"source={source}", f"output={tmp_path / 'none'}", *QUICK, "data.target=scanner_a"]
    assert adapt.main([*words, "preflight=only", "preflight.images=128"]) in (3, 4)
    assert capsys.readouterr().out.startswith(("do not adapt: ", "adapt carefully: "))
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["preflight.json"]
    assert json.loads((tmp_path / "none" / "preflight.json").read_text())["images"] == 128
    assert EXIT == {"adapt": 0, "adapt carefully": 3, "do not adapt": 4}
    assert adapt.main([*words, "preflight.images=0", "preflight=only"]) == 2
    (tmp_path / "file").write_text("")
    assert adapt.main([*words, "preflight=only", f"output={tmp_path / 'file' / 'x'}"]) == 2


def test_a_report_changes_nothing_of_the_run(source: Path, tmp_path: Path) -> None:
    words = [f"source={source}", *QUICK, "method=tent"]
    for name in ("off", "report"):
        assert adapt.main([*words, f"preflight={name}", f"output={tmp_path / name}"]) == 0
    report = json.loads((tmp_path / "report" / "preflight.json").read_text())
    assert report["advice"] in EXIT
    assert (tmp_path / "report" / "predictions.csv").read_text() == (
        tmp_path / "off" / "predictions.csv"
    ).read_text()
