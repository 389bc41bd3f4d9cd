"""Figures of findings, against hand values, scikit-learn's definitions by brute force, and each
other.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    binary_f1_score,
)

from holdfast.callbacks.report.findings import FindingReporter
from holdfast.tta.findings import curves
from holdfast.tta.findings.kept import KeptFindings
from holdfast.tta.findings.scores import finding_scores
from holdfast.tta.findings.thresholds import fit_thresholds
from holdfast.tta.tasks import create_task, task_of

NAMES = ("mass", "edema", "hernia")


def drawn(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with ties, and findings of which the last occurs nowhere."""
    rng = np.random.default_rng(seed)
    findings = (rng.random((count, 3)) < (0.3, 0.1, 0.0)).astype(np.float64)
    raw = 0.35 * findings + 0.65 * rng.random((count, 3))
    return np.round(raw, 2), findings


def scored(probabilities: Any, findings: Any, **more: Any) -> dict[str, Any]:
    count = len(probabilities)
    options: dict[str, Any] = {"groups": np.arange(count).astype(str), "columns": {}, **more}
    thresholds = options.pop("thresholds", [0.5] * 3)
    domains = options.pop("domains", [""] * count)
    return finding_scores(probabilities, findings, NAMES, thresholds, domains, **options)


def test_areas_agree_with_torchmetrics_ties_and_all() -> None:
    probabilities, findings = drawn()
    for finding in (0, 1):
        has = findings[:, finding] > 0.5
        pair = curves.counts(curves.ranked(probabilities[:, finding], has))
        said, true = torch.tensor(probabilities[:, finding]), torch.tensor(has).long()
        assert curves.auroc(*pair)[0] == pytest.approx(float(binary_auroc(said, true)))
        precision = float(binary_average_precision(said, true))
        assert curves.average_precision(*pair)[0] == pytest.approx(precision, abs=1e-6)


def test_weights_stand_for_images_that_count_so_often() -> None:
    probabilities, findings = drawn(60)
    has = findings[:, 0] > 0.5
    weights = np.random.default_rng(1).integers(0, 3, (4, 60)).astype(np.float64)
    rank = curves.ranked(probabilities[:, 0], has)
    for figure in (curves.auroc, curves.average_precision):
        at_once = figure(*curves.counts(rank, weights))
        for row, value in zip(weights.astype(int), at_once, strict=True):
            again = np.repeat(np.arange(60), row)
            alone = curves.counts(curves.ranked(probabilities[again, 0], has[again]))
            assert value == pytest.approx(figure(*alone)[0])


def test_figures_by_finding_macro_and_micro() -> None:
    probabilities, findings = drawn()
    found = scored(probabilities, findings)
    said, true = torch.tensor(probabilities), torch.tensor(findings).long()
    for finding, name in enumerate(NAMES[:2]):
        f1 = 100 * float(binary_f1_score(said[:, finding] >= 0.5, true[:, finding]))
        assert found["f1"]["per_class"][name] == pytest.approx(f1, abs=1e-3)
        error = binary_calibration_error(said[:, finding], true[:, finding], n_bins=15)
        assert found["ece"]["per_class"][name] == pytest.approx(100 * float(error), abs=1.0)
    assert found["auroc"]["macro"] == pytest.approx(
        np.mean(list(found["auroc"]["per_class"].values())), abs=1e-3
    )
    micro = 100 * float(binary_auroc(said.flatten(), true.flatten()))
    assert found["auroc"]["micro"] == pytest.approx(micro, abs=1e-3)
    assert found["present"]["mass"] == pytest.approx(100 * findings[:, 0].mean())


def test_what_is_not_defined_is_left_out_and_never_nothing() -> None:
    probabilities, findings = drawn()
    found = scored(probabilities, findings)
    for figure in ("auroc", "average_precision", "f1", "sensitivity", "ece"):
        assert set(found[figure]["per_class"]) == {"mass", "edema"}, "nobody has a hernia"
    assert set(found["specificity"]["per_class"]) == set(NAMES)
    assert found["present"]["hernia"] == 0
    unknown = np.where([True, False, False], findings, np.nan)
    assert set(scored(probabilities, unknown)["auroc"]["per_class"]) == {"mass"}
    assert "hernia" not in scored(probabilities, unknown)["present"]
    assert scored(probabilities, np.full_like(findings, np.nan)) == {}


def test_unknown_findings_count_for_nothing() -> None:
    probabilities, findings = drawn()
    some = findings.copy()
    some[::2, 0] = np.nan
    half = scored(probabilities[1::2], findings[1::2])
    assert scored(probabilities, some)["auroc"]["per_class"]["mass"] == pytest.approx(
        half["auroc"]["per_class"]["mass"]
    )


def test_parts_patients_and_intervals() -> None:
    probabilities, findings = drawn(200)
    groups = (np.arange(200) // 2).astype(str)
    found = scored(
        *(probabilities, findings),
        groups=groups,
        columns={"sex": np.array(["f", "m"] * 100)},
        domains=["a"] * 100 + ["b"] * 100,
        bootstrap=50,
    )
    assert (found["level"], found["images"], found["groups"]) == ("image", 200, 100)
    assert set(found["domains"]) == {"a", "b"}
    worst = min("fm", key=lambda value: found["subgroups"]["sex"][value]["auroc"]["macro"])
    assert found["worst"]["sex"]["group"] == worst
    low, high = found["intervals"]["auroc"]
    assert low < found["auroc"]["macro"] < high
    assert "last_quarter" in found
    pooled = scored(probabilities, findings, groups=groups, aggregate=True)
    assert (pooled["level"], pooled["groups"], pooled["images"]) == ("group", 100, 200)
    either = np.maximum(findings[::2], findings[1::2])
    assert pooled["present"]["mass"] == pytest.approx(100 * either[:, 0].mean())


def test_thresholds_are_where_f1_is_best_and_a_half_where_too_little_is_known() -> None:
    probabilities, findings = (torch.tensor(values) for values in drawn())
    found = fit_thresholds(probabilities, findings, NAMES)
    assert found[2] == 0.5
    cuts = torch.linspace(0, 1, 401)
    for finding in (0, 1):
        true = findings[:, finding].long()
        best = max(float(binary_f1_score(probabilities[:, finding] >= c, true)) for c in cuts)
        own = float(binary_f1_score(probabilities[:, finding] >= found[finding], true))
        assert own == pytest.approx(best)


def test_a_task_keeps_the_thresholds_that_it_settles_on() -> None:
    probabilities, findings = (torch.tensor(values) for values in drawn())
    task = create_task("multilabel", 3)
    kept = task.kept(NAMES)
    assert isinstance(kept, KeptFindings)
    kept.add(probabilities.logit(eps=1e-6), findings)
    task.settle(kept, NAMES)
    again = task_of(task.described, 3)
    assert again.described == task.described
    expected = probabilities >= torch.tensor(fit_thresholds(kept.probabilities, findings, NAMES))
    assert torch.equal(again.decide(kept.probabilities), expected)
    groups = np.arange(400).astype(str)
    f1 = kept.scores([""] * 400, groups=groups, columns={})["f1"]["per_class"]["mass"]
    true = findings[:, 0].long()
    assert f1 == pytest.approx(100 * float(binary_f1_score(expected[:, 0], true)), abs=1e-3)
    given = create_task("multilabel", 3, thresholds=[0.1, 0.2, 0.3])
    given.settle(kept, NAMES)
    assert given.described["options"]["thresholds"] == [0.1, 0.2, 0.3]


def test_on_a_page_groups_count_once_for_source_and_control_as_for_what_was_served() -> None:
    rng = torch.Generator().manual_seed(0)
    kept = KeptFindings(("mass", "effusion"), (0.5, 0.5))
    patients = np.repeat(np.arange(30), 3).astype(str)
    truth = (torch.rand(30, 2, generator=rng) < 0.4).float().repeat_interleave(3, 0)
    kept.add(truth + torch.randn(90, 2, generator=rng), truth)
    known: dict[str, Any] = {"groups": patients, "columns": {}}
    served = {once: kept.scores(["a"] * 90, **known, aggregate=once) for once in (False, True)}
    assert served[True]["auroc"]["macro"] != served[False]["auroc"]["macro"]
    page = SimpleNamespace(kept={"source": kept}, writer=SimpleNamespace(domains=["a"] * 90))
    for metrics in served.values():  # held against itself
        found = FindingReporter.held_against(page, metrics, patients, {}, 0)  # type: ignore[arg-type]
        assert found["against"]["source"]["difference"] == 0
