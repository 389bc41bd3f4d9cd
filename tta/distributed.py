"""Several processes that adapt one model: what they must know of each other so that all of them act
alike.

Each holds a part of every batch. Whatever decides about the model (moments, counts, whether to
update) is put together first, from all parts in the order of ranks, so that every process computes
the same numbers to the last bit. Where there is one process, everything passes through as it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def place() -> tuple[int, int]:
    """The rank of this process, and how many there are."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def from_all(value: Tensor) -> list[Tensor]:
    """The value of each process, in the order of ranks; all have the same shape."""
    _, size = place()
    if size == 1:
        return [value]
    parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(size)]
    dist.all_gather(parts, value.contiguous())
    return parts


def rows_of_all(rows: Tensor) -> Tensor:
    """The rows (N, ...) of all processes, in the order of ranks; N may differ between them."""
    if place()[1] == 1:
        return rows
    counts = [int(count) for count in from_all(torch.tensor(len(rows), device=rows.device))]
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    return torch.cat([part[:count] for part, count in zip(from_all(padded), counts, strict=True)])


def objects_of_all(value: Any) -> list[Any]:
    """What each process has, in the order of ranks; it is pickled, so nothing on a device is in
    it.
    """
    _, size = place()
    if size == 1:
        return [value]
    values: list[Any] = [None] * size
    dist.all_gather_object(values, value)
    return values


def from_first(value: T) -> T:
    """What the first process has, which others need not have; nothing on a device is in it."""
    if place()[1] == 1:
        return value
    values: list[Any] = [value]
    dist.broadcast_object_list(values)
    found: T = values[0]
    return found


def batch_of_all(part: Mapping[str, Any]) -> dict[str, Any]:
    """A batch that was dealt out to the processes in turn, whole and in its own order again.

    Args:
        part: this process's share: lists or tensors on the CPU, of an entry an image each.
    """
    parts = objects_of_all(dict(part))
    if len(parts) == 1:
        return dict(part)
    lengths = [len(next(iter(share.values()))) for share in parts]
    before = [sum(lengths[:rank]) for rank in range(len(parts))]
    turns = sorted((turn, rank) for rank, count in enumerate(lengths) for turn in range(count))
    order = [before[rank] + turn for turn, rank in turns]
    whole: dict[str, Any] = {}
    for key, value in part.items():
        if isinstance(value, Tensor):
            whole[key] = torch.cat([share[key] for share in parts])[order]
        else:
            joined = [entry for share in parts for entry in share[key]]
            whole[key] = [joined[index] for index in order]
    return whole


def any_of_all(flag: bool, device: torch.device) -> bool:
    """Whether it is so in any process."""
    if place()[1] == 1:
        return flag
    return bool(total_of_all(torch.tensor(float(flag), device=device)) > 0)


def counts_of_all(counts: Sequence[int], device: torch.device) -> list[int]:
    """How many of each all processes have."""
    if place()[1] == 1:
        return list(counts)
    return [int(count) for count in total_of_all(torch.tensor(counts, device=device)).tolist()]


def count_of_all(count: int, device: torch.device) -> int:
    """How many all processes have."""
    return counts_of_all([count], device)[0]


def every(images: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Every so many-th image of a batch that was dealt out to the processes in turn.

    Args:
        images: (N, ...) of this process.
        stride: 1: all.

    Returns:
        Those that this process has (n, ...), which may be none, and the number of each among those
        of all processes (n,).
    """
    rank, size = place()
    places = torch.arange(rank, rank + size * len(images), size, device=images.device)
    if stride == 1:
        return images, places
    if size == 1:
        part = images[::stride]
        return part, places[: len(part)]
    chosen = places % stride == 0
    return images[chosen], places[chosen] // stride


def every_of(stride: int, fewer: int, local: int, device: torch.device) -> slice | Tensor:
    """Which rows of ``every(images, stride)`` are in ``every(images, fewer)`` as well.

    Args:
        stride: of the rows.
        fewer: a multiple of it.
        local: images of this process.
        device: of the rows.
    """
    rank, size = place()
    if size == 1:
        return slice(None, None, fewer // stride)
    places = torch.arange(rank, rank + size * local, size, device=device)
    return (places[places % stride == 0] % fewer == 0).nonzero()[:, 0]


def total_of_all(value: Tensor) -> Tensor:
    """Sum over processes."""
    parts = from_all(value)
    return value if len(parts) == 1 else torch.stack(parts).sum(0)


class _SumOfAll(torch.autograd.Function):
    """Sum over processes, through which gradients pass: each gets those of all."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return total_of_all(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return total_of_all(gradients[0])


def sum_of_all(value: Tensor) -> Tensor:
    """``total_of_all`` with gradients.

    Every process has the same sum, and so the same loss. What a process gets of its gradient is
    then as many times too large as there are processes, which DDP's mean over them mends.
    """
    if place()[1] == 1:
        return value
    total: Tensor = _SumOfAll.apply(value)  # type: ignore[no-untyped-call]
    return total


def joint_mean(values: Tensor) -> Tensor:
    """Mean over the rows of all processes, with gradients; see ``sum_of_all``.

    Args:
        values: (N, ...) of this process, which may have none where another has some.

    Returns:
        (...), the same in each.
    """
    if place()[1] == 1:
        return values.mean(0) if values.dim() > 1 else values.mean()
    count = total_of_all(torch.tensor(float(len(values)), device=values.device))
    return sum_of_all(values.sum(0)) / count


def mean_of_all(values: list[Tensor], count: int) -> tuple[list[Tensor], int]:
    """Means over the samples of all processes.

    Args:
        values: means over this process's samples; not read where it has none.
        count: how many samples it has.

    Returns:
        The means, in the shapes of ``values``, and the number of samples.
    """
    if place()[1] == 1:
        return values, count
    flat = torch.cat([value.double().flatten() for value in values])
    flat = flat if count else torch.zeros_like(flat)
    sums = total_of_all(torch.cat([flat * count, flat.new_tensor([count])]))
    pieces = torch.split(sums[:-1] / sums[-1].clamp(min=1), [value.numel() for value in values])
    means = [
        piece.reshape(value.shape).to(value.dtype)
        for piece, value in zip(pieces, values, strict=True)
    ]
    return means, int(sums[-1])


def skipped_by_all(reason: str | None, device: torch.device) -> str | None:
    """Why no process updates: its own reason, or ``elsewhere`` for that of another; None where none
    has any.
    """
    if not any_of_all(reason is not None, device):
        return None
    return reason or "elsewhere"
