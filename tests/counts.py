"""What a piece of work asks of a device: operations that are dispatched, and values that are read
back to the host. They stand for the time of a GPU, and cannot flake.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Run = Callable[[Sequence[Tensor]], Any]


class Counted(TorchDispatchMode):
    """Counts operations by name, and read-backs: each is one wait, however much is read."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: Counter[str] = Counter()
        self.listed = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.by_name[str(func)] += 1
        return func(*args, **(kwargs or {}))

    @property
    def operations(self) -> int:
        """All that were dispatched."""
        return self.by_name.total()

    @property
    def read(self) -> int:
        """Values read one by one, lists, and copies to the host."""
        return self.by_name["aten._local_scalar_dense.default"] + self.listed


def counted(work: Callable[[], Any], counts: Counted | None = None) -> Counted:
    """What a piece of work dispatches and reads, counted in ``counts`` if it is given."""
    counts = counts or Counted()

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def read(value: Tensor, *args: Any) -> Any:
            counts.listed += 1
            return original(value, *args)

        return read

    with pytest.MonkeyPatch.context() as patch, counts:
        for name in ("tolist", "cpu"):
            patch.setattr(Tensor, name, counting(getattr(Tensor, name)))
        work()
    return counts


def a_batch(create: Callable[[], Run], batches: Sequence[Tensor]) -> tuple[float, float]:
    """Operations and read-backs of a batch, once a run is under way.

    Args:
        create: a fresh run, which takes batches.
        batches: an even number of them; the second half's are counted.
    """
    half = len(batches) // 2
    short, long = create(), create()
    first, both = counted(lambda: short(batches[:half])), counted(lambda: long(batches))
    return (both.operations - first.operations) / half, (both.read - first.read) / half


def patterns(size: int, count: int = 6, batch: int = 16) -> list[Tensor]:
    """Batches of images (16, 3, size, size) that differ enough to be of several classes."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, batch, 3, 4, 4, generator=generator).square()
    return [torch.nn.functional.interpolate(part, (size, size)) for part in coarse]
