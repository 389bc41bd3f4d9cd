"""What a training starts from: images, and a network for them, new or adopted."""

from typing import Any, NamedTuple

from holdfast.datamodules import load_splits
from holdfast.datamodules.source import SourceData
from holdfast.datamodules.summary import tell
from holdfast.training.config import TrainConfig
from holdfast.tta.adoption import Weights, take
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.errors import InputError
from holdfast.tta.networks import Network, create_network
from holdfast.tta.scores import check_groups
from holdfast.tta.source import channel_moments
from holdfast.tta.tasks import Task, create_task

#: Validation images on which adopted weights are judged, at most.
_JUDGED_IMAGES = 512


class Prepared(NamedTuple):
    """The images, what is asked of them, and the network for them with its input scaling, or with
    the weights that it adopts.
    """

    data: SourceData
    task: Task
    network: Network
    description: dict[str, Any]


def prepared(config: TrainConfig) -> Prepared:
    """All that training starts from.

    Raises:
        InputError: images or network do not fit what is asked.
    """
    data = source_data(config)
    tell(data.images)
    subgroups(config, data)  # a column that is not there is refused before training
    images = data.images["train"]
    task = create_task(images.task, images.num_classes)
    if task.by_image and not images.target.divides:
        raise InputError(
            f"data.task={task.name} is of images, and a source is described by images of each "
            f"class, which {images.target.key} does not give: train the network in a loop of your "
            "own"
        )
    network, description = create_network(
        config.model.kind,
        config.model.options,
        num_classes=images.num_classes,
        channels=images.channels,
        size=images.size if config.patch is None else tuple(config.patch),
        dense=task.dense,
    )
    if config.weights is not None:
        _adopt(config, network, description, data, task)
    else:
        mean, std = channel_moments(data.in_order("train"))
        network.mean.copy_(mean)
        network.std.copy_(std)
    return Prepared(data, task, network, description)


def source_data(config: TrainConfig) -> SourceData:
    options = config.data.options
    images = load_splits(config.data.kind, options, ("train", "val", "test"), optional=("test",))
    if "test" in images and options.aggregate == "group":
        test = images["test"]
        test.check_grouped()
        columns = {name: test.column(name) for name in options.subgroups}
        check_groups(test.labels, test.groups, columns)
    return SourceData(
        images["train"],
        images["val"],
        images.get("test"),
        batch_size=config.batch_size,
        balanced=config.balanced,
        augment=tuple(config.augment),
        patch=config.patch,
        workers=config.workers,
        seed=config.seed,
    )


def subgroups(config: TrainConfig, data: SourceData) -> dict[str, Any]:
    """The columns of the test images, or else of the validation images, by which metrics are
    split.
    """
    images = data.images.get("test", data.images["val"])
    return {name: images.column(name) for name in config.data.options.subgroups}


def check_fit(data: SourceData, checkpoint: SourceCheckpoint) -> None:
    """Refuse images that are not of the checkpoint's kind."""
    images, size = data.images["train"], checkpoint.size
    if checkpoint.meaning.dense and len(images.size) == len(size):
        size = images.size  # it was trained on patches, and answers images of any sides
    ours = (checkpoint.class_names, checkpoint.channels, size)
    if (list(images.class_names), images.channels, images.size) != ours:
        raise InputError(
            "the images have other classes, channels or sides than the checkpoint's: give those it "
            "was trained on"
        )


def _adopt(
    config: TrainConfig,
    network: Network,
    description: dict[str, Any],
    data: SourceData,
    task: Task,
) -> None:
    """Take weights and input scaling from elsewhere, and say what was taken and what images say of
    it.
    """
    weights = Weights(
        *(config.weights or "", config.weights_mean, config.weights_std),
        *(config.weights_classes, config.weights_accuracy),
    )
    sample = data.sample("val", _JUDGED_IMAGES)
    take(network, description, weights, data.images["train"].class_names, sample, task)
