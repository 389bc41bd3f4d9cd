"""What a source checkpoint tells of its network: scores, statistics, and the guard's numbers."""

from dataclasses import replace
from typing import Any

from holdfast.callbacks import GuardConfig
from holdfast.callbacks.calibrated import levels_of
from holdfast.callbacks.calibration import (
    calibrate,
)
from holdfast.datamodules.source import SourceData
from holdfast.training.config import TrainConfig
from holdfast.training.prepare import subgroups
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.config import to_dict
from holdfast.tta.metrics import balanced_accuracy
from holdfast.tta.networks import Network, sealed
from holdfast.tta.saying import say
from holdfast.tta.scores import scores
from holdfast.tta.source import (
    Evaluation,
    evaluate,
    fisher_information,
    layer_moments,
    source_statistics,
)

#: Training images from which ``normalization=auto`` learns what each class looks like to each
#: layer.
_MOMENT_IMAGES = 4000


def described(
    config: TrainConfig, network: Network, description: dict[str, Any], data: SourceData
) -> SourceCheckpoint:
    """The network with all that adaptation needs to know of it and of its source."""
    images = data.images["train"]
    classes, names = images.num_classes, images.class_names
    weights = {
        key: value.detach().cpu().contiguous().clone()
        for key, value in network.state_dict().items()
    }
    results = {split: evaluate(network, data.in_order(split), classes) for split in data.images}
    metrics = _metrics(config, data, results["test"]) if "test" in results else {}
    predicted, known = results["val"].logits.argmax(1), results["val"].labels
    metrics["val_balanced_accuracy"] = round(balanced_accuracy(predicted, known, classes), 4)
    return SourceCheckpoint(
        network=sealed(network, description),
        weights=weights,
        class_names=list(names),
        low=images.low,
        high=images.high,
        data=to_dict(config)["data"],
        metrics=metrics,
        fisher=fisher_information(network, data.sample("train", config.fisher_images), classes),
        layer_moments=layer_moments(network, data.sample("train", _MOMENT_IMAGES), classes),
        **source_statistics(results["train"], results["val"], classes),
    )


def with_missing(
    config: TrainConfig, checkpoint: SourceCheckpoint, data: SourceData
) -> SourceCheckpoint:
    """The checkpoint with what older versions did not write."""
    network, classes = checkpoint.build(), data.images["train"].num_classes
    if checkpoint.fisher is None:
        fisher = fisher_information(network, data.sample("train", config.fisher_images), classes)
        checkpoint = replace(checkpoint, fisher=fisher)
    if checkpoint.layer_moments is None:
        moments = layer_moments(network, data.sample("train", _MOMENT_IMAGES), classes)
        checkpoint = replace(checkpoint, layer_moments=moments)
    return checkpoint


def _metrics(config: TrainConfig, data: SourceData, predicted: Evaluation) -> dict[str, Any]:
    """Scores of the test images; none where they have no labels."""
    test = data.images["test"]
    return scores(
        *(predicted.logits.softmax(1), predicted.labels, test.class_names, test.domains.tolist()),
        groups=test.groups,
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
    limits = levels_of(GuardConfig(), calibration).limits
    shown = ", ".join(f"{name} {limits[name]:.2f}" for name in ("R", "gain"))
    say(
        f"calibration on {calibration['streams']} streams, {calibration['healthy']} of them "
        f"healthy; limits of the signals: {shown}"
    )
    return replace(checkpoint, calibration=calibration)
