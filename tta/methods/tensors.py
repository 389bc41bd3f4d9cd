"""A second set of values for a method's adapted tensors."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Tensors(nn.Module):
    """A second set of values for a method's adapted tensors: a teacher's, say. They are buffers, so
    state.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, value in values.items():
            self.register_buffer(
                name.replace(".", "/"), value.detach().clone()
            )  # a buffer's name takes no dots

    def values(self) -> dict[str, Tensor]:
        """The tensors, by the names that were given."""
        return {name.replace("/", "."): value for name, value in self.named_buffers()}

    @torch.no_grad()
    def take(self, others: Mapping[str, Tensor]) -> None:
        """Copy the values of each tensor's namesake."""
        for name, value in self.values().items():
            value.copy_(others[name])

    @torch.no_grad()
    def follow(self, others: Mapping[str, Tensor], rate: float) -> None:
        """Move each tensor by ``rate`` of its distance to its namesake."""
        values = self.values()
        torch._foreach_lerp_(
            list(values.values()), [others[name].detach() for name in values], rate
        )
