"""What a source checkpoint tells of its network: scores, statistics, and the guard's numbers."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from holdfast.callbacks import GuardConfig
from holdfast.callbacks.calibrated import levels_of
from holdfast.callbacks.calibration import (
    calibrate,
)
from holdfast.datamodules.source import SourceData
from holdfast.training.config import TrainConfig
from holdfast.training.prepare import subgroups
from holdfast.tta.batches import truth_of
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.config import to_dict
from holdfast.tta.doubts import doubt_quantiles
from holdfast.tta.methods import Method, create_method
from holdfast.tta.networks import Network, sealed
from holdfast.tta.results import headline
from holdfast.tta.row_facts import row_facts
from holdfast.tta.saying import say
from holdfast.tta.source import (
    Evaluation,
    evaluate,
    fisher_information,
    fit_temperature,
    layer_moments,
    source_statistics,
)
from holdfast.tta.tasks import Task

#: Training images from which ``normalization=auto`` learns what each class looks like to each
#: layer.
_MOMENT_IMAGES = 4000


def described(
    config: TrainConfig,
    network: Network,
    description: dict[str, Any],
    task: Task,
    data: SourceData,
) -> SourceCheckpoint:
    """The network with all that adaptation needs to know of it and of its source."""
    images = data.images["train"]
    weights = {
        key: value.detach().cpu().contiguous().clone()
        for key, value in network.state_dict().items()
    }
    known = (_of_images if task.by_image else _of_rows)(config, network, task, data)
    few = data.sample("train", config.fisher_images)
    return SourceCheckpoint(
        network=sealed(network, description),
        weights=weights,
        class_names=list(images.class_names),
        low=images.low,
        high=images.high,
        data=to_dict(config)["data"],
        fisher=fisher_information(network, few, images.num_classes, task),
        task=task.described,
        **known,
    )


def _of_images(
    config: TrainConfig, network: Network, task: Task, data: SourceData
) -> dict[str, Any]:
    """What is known of a source whose images have one label each."""
    classes = task.num_classes
    results = {
        split: evaluate(network, data.in_order(split), classes, task) for split in data.images
    }
    metrics = _metrics(config, data, task, results) if "test" in results else {}
    val = results["val"]
    watched = task.figure(task.probabilities(val.served), val.labels)
    metrics[f"val_{task.watch}"] = round(watched, 4) if math.isfinite(watched) else None
    moments = layer_moments(network, data.sample("train", _MOMENT_IMAGES), classes)
    facts = source_statistics(results["train"], results["val"], classes)
    return {"metrics": metrics, "layer_moments": moments, **facts}


def _of_rows(config: TrainConfig, network: Network, task: Task, data: SourceData) -> dict[str, Any]:
    """What is known of a source whose images have many rows: pixels, or findings."""
    method = create_method("source", network, num_classes=task.num_classes, task=task)
    train = row_facts(method, data.in_order("train"))
    val = row_facts(method, data.in_order("val"))
    known = {
        "prevalence": train.prevalence,
        "feature_mean": train.feature_mean,
        "feature_var": train.feature_var,
        "separation": val.separation,
        "temperature": fit_temperature(val.logits, val.labels),
        "entropy_quantiles": val.entropy_quantiles,
        "share_quantiles": val.share_quantiles,
        "doubt_quantiles": doubt_quantiles(method, data.in_order("val")),
    }
    scored = {split: _scored(config, method, data, split) for split in ("val", "test")}
    watched = headline(scored["val"], task.watch)
    metrics = {**scored["test"], f"val_{task.watch}": watched}
    return {"metrics": metrics, **known}


@torch.no_grad()
def _scored(config: TrainConfig, method: Method, data: SourceData, split: str) -> dict[str, Any]:
    """Scores of a split's images; none where there are none, or without truth."""
    if split not in data.images:
        return {}
    images, device = data.images[split], next(method.model.parameters()).device
    kept = method.task.kept(images.class_names)
    for batch in data.in_order(split):
        output = method.source(batch["image"].to(device)).served
        kept.add(output, truth_of(batch, method.task.target, len(output)), batch.get("spacing"))
    if split == "val":
        method.task.settle(kept, images.class_names)
    options = config.data.options
    return kept.scores(
        images.domains.tolist(),
        groups=images.groups,
        columns={name: images.column(name) for name in options.subgroups},
        aggregate=options.aggregate == "group",
    )


def with_missing(
    config: TrainConfig, checkpoint: SourceCheckpoint, data: SourceData
) -> SourceCheckpoint:
    """The checkpoint with what older versions did not write."""
    network, classes = checkpoint.build(), data.images["train"].num_classes
    if checkpoint.fisher is None:
        few = data.sample("train", config.fisher_images)
        fisher = fisher_information(network, few, classes, checkpoint.meaning)
        checkpoint = replace(checkpoint, fisher=fisher)
    if checkpoint.layer_moments is None and checkpoint.meaning.by_image:
        moments = layer_moments(network, data.sample("train", _MOMENT_IMAGES), classes)
        checkpoint = replace(checkpoint, layer_moments=moments)
    return checkpoint


def _metrics(
    config: TrainConfig, data: SourceData, task: Task, results: Mapping[str, Evaluation]
) -> dict[str, Any]:
    """Scores of the test images; none where they have no labels."""
    images, predicted = data.images["test"], results["test"]
    return task.scored(
        task.probabilities(predicted.served),
        predicted.labels,
        images.class_names,
        images.domains.tolist(),
        groups=images.groups,
        columns=subgroups(config, data),
        aggregate=config.data.options.aggregate == "group",
    )


def with_calibration(
    config: TrainConfig, checkpoint: SourceCheckpoint, data: SourceData
) -> SourceCheckpoint:
    """The checkpoint with the guard's numbers, where they are asked for."""
    if config.calibrate.kind == "off":
        return checkpoint
    calibration = calibrate(
        checkpoint,
        data.images["val"],
        config.calibrate.options,
        seed=config.seed,
        trainer=config.trainer,
    )
    limits = levels_of(GuardConfig(), calibration, checkpoint.meaning).limits
    shown = ", ".join(
        f"{name} {limits[name]:.2f}" for name in ("R", "drift", "gain") if name in limits
    )
    say(
        f"calibration on {calibration['streams']} streams, {calibration['healthy']} of them "
        f"healthy; limits of the signals: {shown}"
    )
    return replace(checkpoint, calibration=calibration)
