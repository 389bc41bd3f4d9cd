"""The cells of one stream: each method unguarded, on the normalisation that it was published
with.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from holdfast.adapting.config import configure
from holdfast.benchmarks.cell import Report, Task, sentence
from holdfast.benchmarks.orders import load_checkpoint, load_stream
from holdfast.benchmarks.paper.plan import KEYS, Stream, row_of
from holdfast.benchmarks.passes import run
from holdfast.benchmarks.tables import Row
from holdfast.tta.marginal import marginal_drift, predicted_counts, prediction_bias
from holdfast.tta.metrics import stream_metrics

#: What is measured of a pass, and again of the stream's last quarter, under names that end in
#: ``_last``.
MEASURES = ("beta", "tv", "balanced_accuracy", "auroc")
#: Columns of ``results.csv``.
RESULTS = (*KEYS, *MEASURES, *(f"{name}_last" for name in MEASURES), "seconds")


def run_task(task: Task, tell: Callable[[Report], None]) -> None:
    """Run a stream's cells; what fails is reported, and the rest goes on.

    Args:
        task: the stream and its cells.
        tell: takes each report as soon as it is there.
    """
    stream = Stream(task.setting, task.images)
    try:
        checkpoint = load_checkpoint(task.source)
        batches, words = load_stream(task.setting, task.source, task.data, task.images)
    except Exception as error:  # of whatever kind: it must not end the other streams
        rows = [{**row_of(stream, cell), "error": sentence(error)} for cell in task.cells]
        tell(Report("errors", rows, done=len(rows)))
        return
    for cell in task.cells:
        keys = row_of(stream, cell)
        try:
            outcome = run(
                batches, configure([*words, *cell.words, *cell.published, "guard=off"]), checkpoint
            )
            measured = measures(outcome.probabilities, batches.labels, checkpoint.class_names)
            tell(
                Report(
                    "results", [{**keys, **measured, "seconds": round(outcome.seconds, 3)}], done=1
                )
            )
        except Exception as error:
            tell(Report("errors", [{**keys, "error": sentence(error)}], done=1))


def measures(probabilities: Tensor, labels: Tensor, class_names: Sequence[str]) -> Row:
    """What a pass's predictions are worth, over the stream and over its last quarter.

    Args:
        probabilities: (N, C) as served, in stream order.
        labels: (N,) true classes, -1 where unknown: such images are left out.
        class_names: of the C classes.

    Returns:
        ``MEASURES``: β and total variation between the marginals of predicted and true classes,
        balanced accuracy and macro AUROC in percent; None where undefined.
    """
    last = slice(len(labels) * 3 // 4, None)
    whole = _measures(probabilities, labels, class_names)
    return {
        **whole,
        **{
            f"{name}_last": value
            for name, value in _measures(probabilities[last], labels[last], class_names).items()
        },
    }


def _measures(probabilities: Tensor, labels: Tensor, class_names: Sequence[str]) -> Row:
    known = labels >= 0
    if not known.any():
        return dict.fromkeys(MEASURES)
    probabilities, labels, classes = probabilities[known], labels[known], len(class_names)
    predicted, true = (
        predicted_counts(probabilities, classes),
        torch.bincount(labels, minlength=classes),
    )
    scores = stream_metrics(probabilities, labels, class_names, [""] * len(labels))
    values = {
        "beta": float(prediction_bias(predicted, true)),
        "tv": float(marginal_drift(predicted, true)),
        "balanced_accuracy": scores["balanced_accuracy"],
        "auroc": scores.get("auroc", {}).get("macro"),
    }
    return {
        name: None if value is None or math.isnan(value) else value
        for name, value in values.items()
    }
