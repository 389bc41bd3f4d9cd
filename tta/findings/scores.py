"""What the findings of a stream are worth: each by itself, macro and micro, by domain and subgroup,
and with intervals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.tta.findings.curves import auroc, average_precision, counts, ranked
from holdfast.tta.intervals import ENDS, FEW, draws
from holdfast.tta.scores import in_order, members, named_values

Column = npt.NDArray[Any]
Numbers = npt.NDArray[np.float64]

#: Images that a quarter of the stream needs, so that its figure says something.
_FEWEST = 20
#: Bins of equal width of the calibration error, as for classes.
_BINS = 15
#: Figures that have a mean over findings, in the order in which they are told.
_FIGURES = ("auroc", "average_precision", "f1", "sensitivity", "specificity", "ece")
#: Figures that resamples are taken of.
_DRAWN = {"auroc": auroc, "average_precision": average_precision}


def finding_scores(
    probabilities: npt.NDArray[Any],
    findings: npt.NDArray[Any],
    class_names: Sequence[str],
    thresholds: Sequence[float],
    domains: Sequence[str],
    *,
    groups: Column,
    columns: Mapping[str, Column],
    aggregate: bool = False,
    bootstrap: int = 0,
) -> dict[str, Any]:
    """Figures of findings in percent; empty where nothing is known.

    Args:
        probabilities: (N, L) in stream order.
        findings: (N, L) 1 present, 0 absent, NaN unknown.
        class_names: names of the L findings.
        thresholds: (L,) probability from which on each is called present.
        domains: (N,) domain of each image.
        groups: (N,) patient of each image.
        columns: (N,) subgroup of each image, by the column's name.
        aggregate: each group counts once in each domain: its mean probabilities, and a finding that
            any of its images has.
        bootstrap: resamples of groups for 95 % intervals; 0: none.

    Returns:
        - ``level``: what counts once, image or group; ``images`` and ``groups`` of which something
          is known, and ``few`` where groups are fewer than ``FEW``;
        - ``auroc``, ``average_precision``, ``f1``, ``sensitivity``, ``specificity`` and ``ece``
          (expected calibration error), each {macro, micro, per_class}: the mean over findings, all
          pairs of image and finding as one, and each finding. What is not defined is left out: no
          figure of a finding that nobody has, or that is unknown, and it is not in the mean;
        - ``present``: share of the images with each finding, ``called``: for which it is called;
        - ``last_quarter``: macro AUROC of the stream's last quarter, of 20 images or more;
        - ``domains``, and where asked for ``subgroups`` and ``worst`` (by macro AUROC): the same of
          each part;
        - where asked for ``intervals`` of AUROC and average precision, macro.
    """
    scored = _ScoredFindings(
        level="group" if aggregate else "image",
        probabilities=np.asarray(probabilities, np.float64),
        findings=np.asarray(findings, np.float64),
        groups=np.asarray(groups),
        images=np.ones(len(domains)),
        class_names=tuple(class_names),
        thresholds=np.asarray(thresholds, np.float64),
        bootstrap=bootstrap,
    )
    named = np.asarray(domains, dtype=object)
    quarter = scored.part(np.arange(len(named)) >= len(named) * 3 // 4)
    if aggregate:
        first, code = members(groups, domains)
        scored, named = scored.pooled(first, code.numpy()), named[first]
        columns = {name: values[first] for name, values in columns.items()}
    found = scored.described()
    if not found:
        return {}
    last = quarter.macro()
    if not aggregate and quarter.known.sum() >= _FEWEST and last is not None:
        found["last_quarter"] = last  # groups have no place in the stream
    found = {"level": scored.level, **found}
    found["domains"] = {
        str(name): scored.part(named == name).described() for name in dict.fromkeys(named.tolist())
    }
    if columns:
        found["subgroups"] = {name: _by_value(scored, of) for name, of in columns.items()}
        found["worst"] = {name: worst_part(parts) for name, parts in found["subgroups"].items()}
    return found


def worst_part(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The value of the lowest macro AUROC, and that, among those of ``FEW`` groups or more where
    there are any; None where no part has one.
    """
    known = {value: part for value, part in parts.items() if "auroc" in part}
    enough = {value: part for value, part in known.items() if part["groups"] >= FEW} or known
    if not enough:
        return None
    value = min(enough, key=lambda name: enough[name]["auroc"]["macro"])
    return {"group": value, "auroc": enough[value]["auroc"]["macro"]}


@dataclass(frozen=True)
class _ScoredFindings:
    """What is scored: images, or groups of them.

    Args:
        level: which of the two.
        probabilities: (M, L).
        findings: (M, L), NaN unknown.
        groups: (M,).
        images: (M,) how many each stands for.
        class_names: names of the L findings.
        thresholds: (L,).
        bootstrap: resamples for intervals; 0: none.
    """

    level: str
    probabilities: Numbers
    findings: Numbers
    groups: Column
    images: Numbers
    class_names: tuple[str, ...]
    thresholds: Numbers
    bootstrap: int

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(M,) whether any finding is known."""
        return np.asarray(np.isfinite(self.findings).any(1))

    def part(self, rows: npt.NDArray[Any]) -> "_ScoredFindings":
        """Some of it, by a mask (M,)."""
        return replace(
            self,
            probabilities=self.probabilities[rows],
            findings=self.findings[rows],
            groups=self.groups[rows],
            images=self.images[rows],
        )

    def pooled(self, first: Column, code: Column) -> "_ScoredFindings":
        """Groups in the place of their images."""
        count = len(first)
        each = np.bincount(code, minlength=count).astype(np.float64)
        mean = np.zeros((count, self.probabilities.shape[1]))
        np.add.at(mean, code, self.probabilities)
        any_ = np.full_like(mean, -1.0)
        np.maximum.at(any_, code, np.nan_to_num(self.findings, nan=-1.0))
        findings = np.where(any_ < 0, np.nan, any_)
        images = np.bincount(code[self.known], minlength=count).astype(np.float64)
        return replace(
            self,
            probabilities=mean / each[:, None],
            findings=findings,
            groups=self.groups[first],
            images=images,
        )

    def macro(self) -> float | None:
        """Mean AUROC over findings; None where no finding has one."""
        values = [
            float(auroc(*counts(ranked(*self._of(finding))))[0])
            for finding in range(len(self.class_names))
            if np.isfinite(self.findings[:, finding]).any()
        ]
        defined = [value for value in values if value == value]
        return round(100 * float(np.mean(defined)), 4) if defined else None

    def described(self) -> dict[str, Any]:
        """Counts, figures and intervals; empty where nothing is known."""
        scored = self.part(self.known)
        if not len(scored.groups):
            return {}
        groups = len(np.unique(scored.groups))
        groups = len(scored.groups) if self.level == "group" else groups
        counted: dict[str, Any] = {"images": int(scored.images.sum()), "groups": groups}
        if groups < FEW:
            counted["few"] = True
        found = {**counted, **scored._figures()}
        if self.bootstrap and len(np.unique(scored.groups)) > 1:
            found["intervals"] = scored._intervals()
        return found

    def _of(self, finding: int) -> tuple[Numbers, npt.NDArray[np.bool_]]:
        """Probabilities and presence where a finding is known."""
        known = np.isfinite(self.findings[:, finding])
        return self.probabilities[known, finding], self.findings[known, finding] > 0.5

    def _figures(self) -> dict[str, Any]:
        names, called = self.class_names, self.probabilities >= self.thresholds
        each, present, share = {}, {}, {}
        for finding, name in enumerate(names):
            known = np.isfinite(self.findings[:, finding])
            share[name] = round(100 * float(called[:, finding].mean()), 4)
            if known.any():
                probability, has = self._of(finding)
                each[name] = _figures_of(probability, has, called[known, finding])
                present[name] = round(100 * float(has.mean()), 4)
        known = np.isfinite(self.findings)
        has = self.findings[known] > 0.5
        together = _figures_of(self.probabilities[known], has, called[known])
        found: dict[str, Any] = {}
        for figure in _FIGURES:
            of = {name: values[figure] for name, values in each.items() if figure in values}
            if of:
                macro = round(float(np.mean(list(of.values()))), 4)
                micro = {"micro": together[figure]} if figure in together else {}
                found[figure] = {"macro": macro, **micro, "per_class": of}
        return {**found, "present": present, "called": share}

    def _intervals(self) -> dict[str, list[float]]:
        """95 % intervals of the means over findings, by name."""
        names, code = np.unique(self.groups, return_inverse=True)
        ranks = []
        for finding in range(len(self.class_names)):
            known = np.isfinite(self.findings[:, finding])
            if known.any():
                ranks.append((known, ranked(*self._of(finding))))
        drawn: dict[str, list[Numbers]] = {name: [] for name in _DRAWN}
        for weights in draws(len(names), self.bootstrap, 0):
            # (R, N) takes room: a few resamples at a time.
            for some in np.array_split(weights, max(1, weights.size * len(code) // 2**24)):
                each = some[:, code].astype(np.float64)
                of = [counts(rank, each[:, known]) for known, rank in ranks]
                for name, figure in _DRAWN.items():
                    drawn[name].append(_mean(np.stack([figure(*pair) for pair in of])))
        found = {}
        for name, parts in drawn.items():
            whole = np.concatenate(parts)
            if np.isfinite(whole).any():
                low, high = np.nanpercentile(100 * whole, ENDS)
                found[name] = [round(float(low), 4), round(float(high), 4)]
        return found


def _figures_of(
    probability: Numbers, has: npt.NDArray[np.bool_], called: npt.NDArray[np.bool_]
) -> dict[str, float]:
    """Figures of one finding over images (M,), in percent; without what is not defined."""
    pair = counts(ranked(probability, has))
    right, shown, said = (called & has).sum(), has.sum(), called.sum()
    none = len(has) - shown
    values = {
        "auroc": float(auroc(*pair)[0]),
        "average_precision": float(average_precision(*pair)[0]),
        "f1": 2 * right / (shown + said) if shown else np.nan,
        "sensitivity": right / shown if shown else np.nan,
        "specificity": (none - said + right) / none if none else np.nan,
        # Of a finding that nobody has, or everybody, nothing can be calibrated.
        "ece": _calibration_error(probability, has) if shown and none else np.nan,
    }
    return {name: round(100 * float(v), 4) for name, v in values.items() if np.isfinite(v)}


def _calibration_error(probability: Numbers, has: npt.NDArray[np.bool_]) -> float:
    """Mean difference of probability and share in bins of equal width, by their images."""
    bins = np.minimum((probability * _BINS).astype(int), _BINS - 1)
    gap = np.bincount(bins, weights=probability - has, minlength=_BINS)
    return float(np.abs(gap).sum() / len(has))


def _mean(values: Numbers) -> Numbers:
    """(B,) mean over findings of (L, B), of those that are defined."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(0)
    some = known.sum(0)
    return np.divide(total, some, out=np.full(len(some), np.nan), where=some > 0)


def _by_value(scored: _ScoredFindings, values: Column) -> dict[str, Any]:
    named = named_values(values)
    return {
        value: scored.part(named == value).described() for value in in_order(set(named.tolist()))
    }
