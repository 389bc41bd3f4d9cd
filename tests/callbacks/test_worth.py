"""Whether adapting was worth it: the answer by the intervals, in words, and what to do."""

from typing import Any

import pytest

from holdfast.callbacks.report.worth import answer

Ends = tuple[float, float, float]


def metrics(source: Ends, control: Ends, groups: int = 100, **more: Any) -> dict[str, Any]:
    """Of a run: points over source and control, with the ends of their intervals."""
    against = {
        name: {"difference": points, "interval": [low, high]}
        for name, (points, low, high) in {"source": source, "control": control}.items()
    }
    counts = {"level": "image", "images": groups, "groups": groups}
    return {"balanced_accuracy": 80.0, "against": against, **counts, **more}


@pytest.mark.parametrize(
    ("source", "control", "verdict", "advice"),
    [
        ((6, 2, 10), (4, 1, 7), "Yes", "Go on with it."),
        ((6, 2, 10), (0.2, -1, 1.4), "Yes", "method=norm, which learns nothing, may do as well"),
        ((6, 2, 10), (-3, -5, -1), "In part", "the statistics without the updates: method=norm"),
        ((6, 2, 10), (-0.4, -0.6, -0.2), "Yes", "may do as well"),  # nobody would notice
        ((-6, -10, -2), (3, 1, 5), "No", "Serve the source as it is: method=source."),
        ((-6, -10, -2), (-9, -12, -6), "No", "the statistics without the updates"),
        ((-1, -3, 0.8), (0, -1, 1), "No", "serve the source, method=source"),
        ((0.1, -0.7, 0.9), (0, -1, 1), "Hardly", "less than 1 point"),
        ((0.8, 0.2, 1.4), (0, -1, 1), "Hardly", "less than 1 point"),
        ((6, -4, 16), (0, -8, 8), "Not settled", "About 100 images more"),
        ((0.5, -6, 7), (0, -8, 8), "Not settled", "method=source, is the safe choice"),
    ],
)
def test_the_answer_follows_the_intervals(
    source: Ends, control: Ends, verdict: str, advice: str
) -> None:
    found = answer(metrics(source, control), "tent")
    assert found.verdict == verdict
    assert advice in found.advice


def test_what_is_told_is_in_plain_words() -> None:
    found = answer(metrics((6, 2, 10), (-0.04, -1, 1.4)), "tent")
    assert found.told == (
        "What was served has a balanced accuracy of 80.0 %: 6.0 points more than the source "
        "(95 %: +2.0 to +10.0), and as much as the control (95 %: -1.0 to +1.4), the same network "
        "without updates."
    )
    assert "<b>Was adapting worth it? Yes.</b>" in found.html()
    assert "<b>What to do.</b> Go on with it." in found.html()


def test_a_handful_settles_nothing() -> None:
    found = answer(metrics((40, 20, 60), (40, 20, 60), groups=12), "tent")
    assert found.verdict == "Not settled"
    assert "But 12 images with a label are too few to tell." in found.told
    assert "95 %" not in found.told
    patients = answer(metrics((40, 20, 60), (40, 20, 60), groups=12, images=300), "tent")
    assert "But 12 patients or slides with a label are too few" in patients.told


def test_a_run_that_learned_nothing_or_has_no_label() -> None:
    assert answer({}, "source").verdict == "Nothing was adapted"
    unknown = answer({}, "tent")
    assert unknown.verdict == "Not known"
    assert "holdfast adapt accept" in unknown.advice
    norm = answer(metrics((6, 2, 10), (0, -0.5, 0.5)), "norm")
    assert (norm.verdict, norm.advice) == ("Yes", "Go on with it.")
