"""A file's tensors paired with a network's, by name and shape, whoever held them; and the way
back.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.tta.errors import InputError
from holdfast.tta.naming import holders, nested, plain, unwrapped
from holdfast.tta.networks import Network

#: What a network can do without: its input scaling has a default, and nothing counts batches.
_OPTIONAL = ("mean", "std", "num_batches_tracked")
#: A bias that MONAI's ResNets have and others, torchvision's too, do not: absent, it is 0.
_ZERO = "downsample.0.bias"
#: A layer of MONAI's transformer blocks that nothing runs through.
_IDLE = ".norm_cross_attn."
#: Tensors of transformers that change what they compute, and that MONAI's has no place for.
_DOING_MORE = ("register_tokens", "reg_token", "dist_token", "head_dist", "fc_norm")
#: Heads that DynUNet has in training alone.
_OF_TRAINING = "super_head"
_INSTANCE = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
#: Where a transformer's block has a factor for each channel, the layer that it can be put into.
_SCALED = {"attn.proj": "ls1.gamma", "mlp.fc2": "ls2.gamma"}

#: Shapes in a file and in a network.
_Shapes = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Match:
    """How a file's tensors fit a network.

    Attributes:
        found: those that fit, by the network's names; biases that the file does without are 0.
        missing: names of the network that the file has not got.
        unused: names of the file that the network has no place for.
        beyond: those of them that lie within the network's own stages, so that the file's network
            does more.
        misshapen: the file's and the network's shape, by the network's names.
        origin: the way back, for each of the file's names that was used: how, and the network's
            name; ``restored`` reads it.
    """

    found: dict[str, Tensor]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    misshapen: dict[str, _Shapes]
    beyond: tuple[str, ...] = ()
    origin: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether the file is of such a network, nothing less and nothing more."""
        return not (self.missing or self.misshapen or self.beyond)

    def __str__(self) -> str:
        parts = [
            f"{len(self.found)} tensors matched",
            f"{len(self.missing)} missing{_listed(self.missing)}",
            f"{len(self.unused)} left over{_listed(self.unused)}",
            f"{len(self.misshapen)} of another shape"
            + _listed(
                [
                    f"{name} {_times(theirs)}, not {_times(ours)}"
                    for name, (theirs, ours) in self.misshapen.items()
                ]
            ),
        ]
        return ", ".join(parts)

    def table(self) -> str:
        """What matched, a row for each part of the network: its tensors, values and name in the
        file.
        """
        rows: dict[str, list[Any]] = {}
        theirs = {entry[1]: name for name, entry in reversed(self.origin.items())}
        for name, value in self.found.items():
            row = rows.setdefault(_part(name), [0, 0, ""])
            row[0] += 1
            row[1] += value.numel()
            row[2] = row[2] or _part(theirs.get(name, ""))
        lines = [f"{'part':<28}{'tensors':>8}{'values':>14}  in the file"]
        lines += [
            f"{part:<28}{count:>8}{values:>14,}  {name or '(filled in)'}"
            for part, (count, values, name) in rows.items()
        ]
        return "\n".join(lines)


def match(
    network: Network,
    tensors: Mapping[str, Tensor],
    order: Sequence[int] | None = None,
    outputs: int = 0,
) -> Match:
    """Pair a file's tensors with the network's by name, whoever held them, and compare their
    shapes.

    Args:
        network: without or with weights.
        tensors: the file's.
        order: which of the file's outputs each class is; None: they are in the classes' order.
        outputs: how many outputs were named; looked at where there is an ``order``.

    Raises:
        InputError: two tensors have one name but for their holders, as a model and its moving
            average; or the file has not as many outputs as were named.
    """
    theirs = _as_they_are(network, tensors)
    return _Pairing(network, tensors, theirs, order, outputs).match()


def _ours(name: str) -> str:
    """A name of a network as its library has it: ``WholeNetwork`` holds it in ``model``."""
    return name.removeprefix("model.")


def _as_they_are(network: Network, tensors: Mapping[str, Tensor]) -> dict[str, str] | None:
    """The file's names by the network's own, where they are the same but for one holder; None
    where too few are.

    Raises:
        InputError: two sets of names are.
    """
    bare: dict[str, str] = {}
    for name in tensors:
        _refuse_twins(bare.setdefault(unwrapped(name), name), name)
    needed = {_ours(name) for name in network.state_dict() if name.split(".")[-1] not in _OPTIONAL}
    found: dict[str, str] | None = None
    for holder in holders(bare):
        held = {name.removeprefix(holder): bare[name] for name in bare if name.startswith(holder)}
        # Most names, not all: what is missing is then said by its own name.
        if 2 * len(needed & held.keys()) <= len(needed):
            continue
        if found is not None:
            twin = next(iter(needed & held.keys() & found.keys()))
            _refuse_twins(found[twin], held[twin])
        found = held
    return found


def _refuse_twins(one: str, other: str) -> None:
    if one != other:
        raise InputError(
            f"weights= hold both {one} and {other}, which are one layer's: save the state "
            "dict of one network"
        )


def _by_meaning(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The file's names by what they mean."""
    theirs: dict[str, str] = {}
    for name in tensors:
        _refuse_twins(theirs.setdefault(plain(name), name), name)
    levels = {name.split(".")[1] for name in theirs if name.startswith("downsamples.")}
    if any(name.startswith("input_block.") for name in theirs) and not any(
        name.startswith("downsample.") for name in theirs
    ):
        return {nested(meaning, len(levels)): name for meaning, name in theirs.items()}
    return theirs


class _Pairing:
    """One file and one network, name by name."""

    def __init__(
        self,
        network: Network,
        tensors: Mapping[str, Tensor],
        theirs: Mapping[str, str] | None,
        order: Sequence[int] | None,
        outputs: int,
    ) -> None:
        self.state = network.state_dict()
        self.tensors, self.order, self.outputs = tensors, order, outputs
        #: Names are taken as they are, or for what they mean.
        self.exact = theirs is not None
        self.theirs = _by_meaning(tensors) if theirs is None else theirs
        self.means = {name: _ours(name) if self.exact else plain(name) for name in self.state}
        self.head = f"{network.head_name}."
        self.plain_norms = self._norms_without_weights(network)
        self.found: dict[str, Tensor] = {}
        self.origin: dict[str, list[Any]] = {}

    def _norms_without_weights(self, network: Network) -> frozenset[str]:
        """Names of weights and biases of instance normalisation, where the file has none at all:
        MONAI's Swin UNETR normalises without.
        """
        names = {
            f"{layer}.{name}"
            for layer, module in network.named_modules()
            if isinstance(module, _INSTANCE)
            for name, _ in module.named_parameters(recurse=False)
        }
        none = not any(self.means[name] in self.theirs for name in names)
        return frozenset(names if none else ())

    def match(self) -> Match:
        missing, misshapen = [], {}
        for name, value in self.state.items():
            made = self._made(name, value)
            if made is None:
                missing.append(name)
            elif made.shape != value.shape:
                misshapen[name] = (tuple(made.shape), tuple(value.shape))
            else:
                self.found[name] = made
        needed = tuple(name for name in missing if name.split(".")[-1] not in _OPTIONAL)
        unused = tuple(name for name in self.tensors if name not in self.origin)
        return Match(self.found, needed, unused, misshapen, self._beyond(unused), self.origin)

    def _made(self, name: str, value: Tensor) -> Tensor | None:
        """The file's value for one of the network's tensors; None where it has none."""
        meaning = self.means[name]
        given = self.theirs.get(meaning)
        if given is None:
            return self._thirds(name, meaning)
        result = self.tensors[given]
        self.origin[given] = ["same", name]
        if name.startswith(self.head) and result.dim():
            return self._reordered(given, name, result)
        return result if self.exact else self._folded(name, meaning, given, result, value)

    def _filled(self, name: str) -> Tensor | None:
        """The value of what other libraries do without."""
        value = self.state[name]
        if name.endswith(_ZERO) and name.replace("bias", "weight") in self.found:
            return torch.zeros_like(value)
        if _IDLE in name or name in self.plain_norms:
            return torch.ones_like(value) if name.endswith("weight") else torch.zeros_like(value)
        return None

    def _thirds(self, name: str, meaning: str) -> Tensor | None:
        """Queries, keys and values of a file that holds them apart, as one tensor."""
        if ".attn.qkv." not in meaning:
            return self._filled(name)
        names = [meaning.replace(".qkv.", f".qkv.{part}.") for part in range(3)]
        if not all(part in self.theirs for part in names):
            return None
        given = [self.theirs[part] for part in names]
        for part, own in enumerate(given):
            self.origin[own] = ["third", name, part]
        return torch.cat([self.tensors[own] for own in given])

    def _reordered(self, given: str, name: str, value: Tensor) -> Tensor:
        """The outputs of the last layer in the order of the classes, one logit being two."""
        if len(value) == 1 and len(self.state[name]) == 2:
            value = torch.cat([torch.zeros_like(value), value])
            self.origin[given] = ["difference", name]
        if self.order is None:
            return value
        if len(self.state[name]) == 1:
            raise InputError(
                "the network has one logit, that of the data's second class: leave weights_classes "
                "out, or build it with two outputs"
            )
        if len(value) != self.outputs:
            raise InputError(
                f"weights_classes names {self.outputs} outputs, and the file's last layer has "
                f"{len(value)}: name each, in order"
            )
        if self.origin[given][0] == "same":
            self.origin[given] = ["order", name, list(self.order)]
        return value[list(self.order)]

    def _folded(self, name: str, meaning: str, given: str, result: Tensor, value: Tensor) -> Tensor:
        """A tensor of a transformer with what MONAI's has no place for put into it."""
        block, _, layer = meaning.rpartition(".")
        factor = next((f for part, f in _SCALED.items() if block.endswith(part)), None)
        scale = None if factor is None else f"{'.'.join(meaning.split('.')[:2])}.{factor}"
        if scale is not None and scale in self.theirs and scale not in self.means.values():
            gamma = self.tensors[self.theirs[scale]]
            self.origin[self.theirs[scale]] = ["ones", name, len(gamma)]
            return result * (gamma[:, None] if layer == "weight" else gamma)
        token = self.theirs.get("pos_embed")
        if token is None or not self._has_position_of_token():
            return result
        if meaning == "pos_embed":
            self.origin[given] = ["position", name]
            return result[:, 1:]
        return result + self.tensors[token][:, :1] if meaning == "cls_token" else result

    def _has_position_of_token(self) -> bool:
        """Whether the file has a position for the class token, where the network has none."""
        ours = next((n for n, meaning in self.means.items() if meaning == "pos_embed"), None)
        if ours is None:
            return False
        theirs = self.tensors[self.theirs["pos_embed"]]
        return theirs.dim() == 3 and theirs.shape[1] == self.state[ours].shape[1] + 1

    def _beyond(self, unused: Sequence[str]) -> tuple[str, ...]:
        stages = {meaning.split(".")[0] for meaning in self.means.values()}
        meant = {name: meaning for meaning, name in self.theirs.items()}
        return tuple(
            name
            for name in unused
            if _OF_TRAINING not in name.split(".")
            and (
                (
                    meant.get(name, "").split(".")[0] in stages
                    and name.split(".")[-1] not in _OPTIONAL
                )
                or any(part in _DOING_MORE for part in name.split("."))
            )
        )


def restored(origin: Mapping[str, Sequence[Any]], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A network's tensors under the names of the file that its weights came from, with the values
    that they have now.

    What a network has no place for was put into its neighbours, and comes back as what changes
    nothing: factors of 1, a class token's position of 0.

    Args:
        origin: of a ``Match``.
        state: the network's state dict.

    Raises:
        InputError: an entry of ``origin`` is none.
    """
    return {name: _restored(entry, state) for name, entry in origin.items()}


def _restored(entry: Sequence[Any], state: Mapping[str, Tensor]) -> Tensor:
    how, name, *more = entry
    value = state[name]
    if how == "third":
        return value.chunk(3)[more[0]].clone()
    if how == "difference":  # only the difference of two logits counts
        return value[1:] - value[:1]
    if how == "order":
        return _in_file_order(value, more[0])
    if how == "ones":
        return torch.ones(more[0], dtype=value.dtype)
    if how == "position":
        return torch.cat([torch.zeros_like(value[:, :1]), value], 1)
    return value.clone()


def _in_file_order(value: Tensor, order: Sequence[int]) -> Tensor:
    """Outputs where the file had them; of a file with more than there are classes, those alone."""
    ranks = sorted(range(len(order)), key=lambda index: order[index])
    return value[ranks]


def _part(name: str) -> str:
    """A stage of a network, by the name of one of its tensors: up to the first word with a
    number.
    """
    parts = _ours(name).split(".")[:-1] or [name]
    numbered = (place for place, part in enumerate(parts) if re.search(r"\d", part))
    return ".".join(parts[: next(numbered, len(parts)) + 1])


def _listed(names: Sequence[str], most: int = 5) -> str:
    shown = list(names)[:most]
    more = ", ..." if len(names) > most else ""
    return f" ({'; '.join(shown)}{more})" if shown else ""


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
