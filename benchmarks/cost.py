"""What guarding costs: the guard's time over that of the steps that it watches, in one run on a
calm stream.
"""

from collections.abc import Callable, Sequence
from statistics import median

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import configure
from holdfast.benchmarks.passes import Batches, run
from holdfast.benchmarks.summary import OURS
from holdfast.datamodules import StreamLoader, create_stream
from holdfast.tta.checkpoint import SourceCheckpoint

#: Length of the stream, 100 batches of 64. A guard looks mostly at the start: a longer stream costs
#: less, a shorter one more.
_IMAGES = 6400


def guard_costs(
    source: str,
    data: Sequence[str],
    policies: Sequence[str],
    rounds: int,
    progress: Callable[[], object],
) -> dict[str, float]:
    """The guard's time over that of all else in the same pass, by policy: the median over rounds,
    in which all take turns.

    Step and guard take turns batch by batch, so a machine that becomes slower or faster meanwhile
    is no part of the ratio. The stream is the target, in random order, and Tent at its default
    rate: a calm one, but not so near to the source that the guard would hold updates back, and save
    time. Time is the process's, since others on the machine are none of its cost.

    Args:
        source: folder of the source model.
        data: how adapt.py is asked for the data set.
        policies: guards to time.
        rounds: at least 1.
        progress: called after each pass.
    """
    checkpoint = SourceCheckpoint.load(source)
    words = [f"source={source}", *data, "method=tent", "method.optimizer=adam", "method.lr=1e-3"]
    config = configure(words)
    images = Assembly.of(config, checkpoint).images
    config.stream.options.passes = -(-_IMAGES // len(images))
    items = create_stream(config.stream.options, images, seed=0).part(slice(_IMAGES))
    batches = Batches(StreamLoader(images, items, config.stream.options.batch_size))
    published = ["method.normalization=batch"]
    configs = {
        name: configure([*words, *([] if name == OURS else published), f"guard={name}"])
        for name in policies
    }
    ratios: dict[str, list[float]] = {name: [] for name in policies}
    for _ in range(rounds):
        for name, choice in configs.items():
            outcome = run(batches, choice, checkpoint)
            ratios[name].append(
                outcome.guard_seconds / (outcome.own_seconds - outcome.guard_seconds)
            )
            progress()
    return {name: round(median(values), 4) for name, values in ratios.items()}
