"""In which order, and under which shifts, the target's images arrive; and the loader that serves
them so.
"""

import numpy as np

from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.shifts import Shift
from holdfast.datamodules.streams.base import StreamConfig, class_index
from holdfast.datamodules.streams.correlated import BlocksConfig, DirichletConfig
from holdfast.datamodules.streams.loader import StreamLoader
from holdfast.datamodules.streams.prevalence import PrevalenceConfig
from holdfast.datamodules.streams.recorded import ReplayConfig, TimeConfig
from holdfast.datamodules.streams.sequence import (
    ContinualConfig,
    GradualConfig,
    MixedConfig,
    RecurringConfig,
)
from holdfast.datamodules.streams.stream import Order, Stream
from holdfast.tta.errors import InputError
from holdfast.tta.registry import Registry, subclasses_of

__all__ = [
    "STREAMS",
    "BlocksConfig",
    "ContinualConfig",
    "DirichletConfig",
    "GradualConfig",
    "MixedConfig",
    "Order",
    "PrevalenceConfig",
    "RecurringConfig",
    "ReplayConfig",
    "Stream",
    "StreamConfig",
    "StreamLoader",
    "TimeConfig",
    "class_index",
    "create_stream",
    "register_stream",
    "stream_order",
]

_OURS: dict[str, type[StreamConfig]] = {
    "iid": StreamConfig,
    "prevalence": PrevalenceConfig,
    "blocks": BlocksConfig,
    "dirichlet": DirichletConfig,
    "continual": ContinualConfig,
    "recurring": RecurringConfig,
    "gradual": GradualConfig,
    "mixed": MixedConfig,
    "time": TimeConfig,
    "replay": ReplayConfig,
}


#: Streams by name, with the dataclass of their options: ours, registered ones, and entry points of
#: the group ``holdfast.streams``.
STREAMS: Registry[type[StreamConfig]] = Registry(
    "stream", "holdfast.streams", _OURS, subclasses_of(StreamConfig)
)
register_stream = STREAMS.register


def create_stream(config: StreamConfig, images: ImageSet, seed: int) -> Stream:
    """The stream's items, all passes one after the other.

    Args:
        config: the stream.
        images: the target; its transform is the shift that all items have, the stream's own shifts
            come after it.
        seed: the same seed gives the same stream.

    Raises:
        InputError: the target is empty, or has not got what the stream (labels, domains, a time) or
            a shift (colour, two dimensions) needs.
    """
    if not len(images):
        raise InputError("the target has no images: check data.target")
    stream = config.all_passes(images, np.random.default_rng(seed))
    for shift in stream.shifts:
        if isinstance(shift, Shift):
            shift.check(images.channels, len(images.size))
    return stream


def stream_order(config: StreamConfig, images: ImageSet, seed: int) -> Order:
    """Rows of the image set in order of arrival: ``create_stream`` without the shifts that some
    streams bring along.
    """
    return create_stream(config, images, seed).rows
