"""What the masks of a stream are worth: by class, domain, subgroup, and with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.tta.intervals import ENDS, FEW, draws
from holdfast.tta.masks.figures import DISTANCES, FIGURES, SHARES, SIZES, Figures
from holdfast.tta.scores import in_order, members, named_values

Column = npt.NDArray[Any]
Numbers = npt.NDArray[np.float64]

#: Cases that a quarter of the stream needs, so that its mean says something.
_FEWEST = 20


def mask_scores(
    figures: Figures,
    class_names: Sequence[str],
    domains: Sequence[str],
    *,
    groups: Column,
    columns: Mapping[str, Column],
    aggregate: bool = False,
    bootstrap: int = 0,
) -> dict[str, Any]:
    """Means over the cases with a mask, in percent and mm; empty where none has one.

    Args:
        figures: (N, K) by name, of ``CaseScorer``.
        class_names: names of its K classes.
        domains: (N,) domain of each case.
        groups: (N,) patient of each case.
        columns: (N,) subgroup of each case, by the column's name.
        aggregate: each group counts once in each domain, by the mean of its cases.
        bootstrap: resamples of groups for 95 % intervals; 0: none.

    Returns:
        - ``level``: what counts once, image or group;
        - ``images`` and ``groups`` with a mask, and ``few`` where groups are fewer than ``FEW``;
        - ``dice``, ``iou``, ``nsd`` (percent), ``hd95``, ``assd`` (mm): means over the cases, then
          over the classes;
        - ``volume_error``: mean of predicted minus true volume, in percent of the mean true one;
        - ``per_class``: the same of each, and in how many cases it is ``shown`` by the truth, and
          how many ``false_alarms`` it has, predicted where the truth shows none;
        - ``last_quarter``: Dice of the stream's last quarter, of 20 cases or more;
        - ``domains``, and where asked for ``subgroups`` and ``worst``: the same of each part;
        - where asked for ``intervals`` of Dice, IoU and the others.
    """
    cases = _Cases(
        "group" if aggregate else "image",
        figures,
        np.asarray(groups),
        tuple(class_names),
        bootstrap,
        np.ones(len(domains)),
    )
    named = np.asarray(domains, dtype=object)
    quarter = _last_quarter(cases)
    if aggregate:
        first, code = members(groups, domains)
        cases, named = cases.pooled(first, code.numpy()), named[first]
        columns = {name: values[first] for name, values in columns.items()}
    found = cases.described()
    if not found:
        return {}
    if quarter is not None and not aggregate:  # groups have no place in the stream
        found["last_quarter"] = quarter
    found = {"level": cases.level, **found}
    found["domains"] = {
        str(name): cases.part(named == name).described() for name in dict.fromkeys(named.tolist())
    }
    if columns:
        found["subgroups"] = {name: _by_value(cases, of) for name, of in columns.items()}
        found["worst"] = {name: worst_part(parts) for name, parts in found["subgroups"].items()}
    return found


def worst_part(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The value of the lowest Dice, and that, among those of ``FEW`` groups or more where there are
    any; None where no part has one.
    """
    known = {value: part for value, part in parts.items() if "dice" in part}
    enough = {value: part for value, part in known.items() if part["groups"] >= FEW} or known
    if not enough:
        return None
    value = min(enough, key=lambda name: enough[name]["dice"])
    return {"group": value, "dice": enough[value]["dice"]}


def dice_gap(
    ours: Figures, theirs: Figures, groups: Column, repeats: int, seed: int = 0
) -> dict[str, Any] | None:
    """How much better the Dice of one model is than another's, on the same cases.

    Args:
        ours: (N, K) by name.
        theirs: (N, K) by name.
        groups: (N,) patient of each case.
        repeats: resamples of groups.
        seed: that of ``mask_scores`` draws the same groups.

    Returns:
        The other's ``dice``, the ``difference`` in points, and its paired 95 % ``interval``; None
        where there is no mask.
    """
    known = np.isfinite(ours["dice"]).any(1)
    if not known.any():
        return None
    other = _over_classes(theirs["dice"][known])
    gap = 100 * (_over_classes(ours["dice"][known]) - other)
    both = (ours["dice"][known], theirs["dice"][known])
    drawn = [_resampled(values, groups[known], repeats, seed) for values in both]
    ends = [gap, gap]
    if len(np.unique(groups[known])) > 1:
        ends = [float(end) for end in np.nanpercentile(100 * (drawn[0] - drawn[1]), ENDS)]
    return {
        "dice": round(100 * other, 4),
        "difference": round(gap, 4),
        "interval": [round(end, 4) for end in ends],
    }


@dataclass(frozen=True)
class _Cases:
    """What is scored: cases, or groups of them.

    Args:
        level: which of the two.
        figures: (M, K) by name.
        groups: (M,).
        class_names: names of the K classes.
        bootstrap: resamples for intervals; 0: none.
        images: (M,) how many each stands for.
    """

    level: str
    figures: Figures
    groups: Column
    class_names: tuple[str, ...]
    bootstrap: int
    images: Numbers

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(M,) whether there is a mask."""
        return np.asarray(np.isfinite(self.figures["dice"]).any(1))

    def part(self, rows: npt.NDArray[Any]) -> "_Cases":
        """Some of it, by a mask (M,) or a slice."""
        figures = {name: values[rows] for name, values in self.figures.items()}
        return replace(self, figures=figures, groups=self.groups[rows], images=self.images[rows])

    def pooled(self, first: Column, code: Column) -> "_Cases":
        """Groups in the place of their cases: the means of those with a mask."""
        known = self.part(self.known)
        of, count = code[self.known], len(first)
        sums = {name: np.zeros((count, values.shape[1])) for name, values in known.figures.items()}
        each = np.bincount(of, minlength=count).astype(np.float64)
        for name, values in known.figures.items():
            np.add.at(sums[name], of, values)
        some = each[:, None] > 0
        means = {
            name: np.divide(total, each[:, None], out=np.full_like(total, np.nan), where=some)
            for name, total in sums.items()
        }
        return replace(self, figures=means, groups=self.groups[first], images=each)

    def described(self) -> dict[str, Any]:
        """Counts, means and intervals; empty where there is no mask."""
        scored = self.part(self.known)
        if not len(scored.groups):
            return {}
        names = np.unique(scored.groups)
        groups = len(scored.groups) if self.level == "group" else len(names)
        counts: dict[str, Any] = {"images": int(scored.images.sum()), "groups": groups}
        if groups < FEW:
            counts["few"] = True
        per_class = {
            name: _of_class({key: values[:, k] for key, values in scored.figures.items()})
            for k, name in enumerate(self.class_names)
        }
        found = {**counts, **_mean_of(list(per_class.values())), "per_class": per_class}
        if self.bootstrap and len(names) > 1:
            found["intervals"] = scored.intervals()
        return found

    def intervals(self) -> dict[str, list[float]]:
        """95 % intervals of the means, by name."""
        found = {}
        for name in (*SHARES, *DISTANCES):
            drawn = _resampled(self.figures[name], self.groups, self.bootstrap)
            scale = 100 if name in SHARES else 1
            low, high = np.nanpercentile(scale * drawn, ENDS)
            found[name] = [round(float(low), 4), round(float(high), 4)]
        return found


def _of_class(figures: Mapping[str, Numbers]) -> dict[str, Any]:
    """Means of a class over cases (M,)."""
    found: dict[str, Any] = {
        name: round(float((100 if name in SHARES else 1) * figures[name].mean()), 4)
        for name in FIGURES
        if name not in SIZES
    }
    ours, truth = figures["volume"], figures["true_volume"]
    if truth.sum():
        found["volume_error"] = round(float(100 * (ours.sum() - truth.sum()) / truth.sum()), 4)
    found["shown"] = int((truth > 0).sum())
    found["false_alarms"] = int(((truth == 0) & (ours > 0)).sum())
    return found


def _mean_of(classes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over classes of what each has."""
    names = [*(name for name in FIGURES if name not in SIZES), "volume_error"]
    known = {name: [of[name] for of in classes if name in of] for name in names}
    return {name: round(float(np.mean(each)), 4) for name, each in known.items() if each}


def _last_quarter(cases: _Cases) -> float | None:
    """Dice of the stream's last quarter; None of few cases."""
    quarter = cases.part(np.arange(len(cases.groups)) >= len(cases.groups) * 3 // 4)
    last = quarter.figures["dice"][quarter.known]
    return round(100 * _over_classes(last), 4) if len(last) >= _FEWEST else None


def _by_value(cases: _Cases, values: Column) -> dict[str, Any]:
    named = named_values(values)
    return {
        value: cases.part(named == value).described() for value in in_order(set(named.tolist()))
    }


def _over_classes(values: Numbers) -> float:
    """Mean over cases, then over classes, of (M, K) in [0, 1]."""
    return float(values.mean(0).mean())


def _resampled(values: Numbers, groups: Column, repeats: int, seed: int = 0) -> Numbers:
    """(R,) means of resamples of groups, of values (M, K)."""
    names, code = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, code, values)
    sizes = np.bincount(code).astype(np.float64)
    parts = [
        (weights @ sums).mean(1) / (weights @ sizes) for weights in draws(len(names), repeats, seed)
    ]
    return np.concatenate(parts)
