"""Which parts of a network methods work on: its head, and the parameters that they adapt."""

from collections.abc import Iterable, Sequence

from torch import nn

from holdfast.tta.errors import InputError
from holdfast.tta.normalization import is_norm

_CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def find_head(model: nn.Module, name: str | None = None) -> nn.Module:
    """The layer whose input counts as features: the module called ``name``, or else the one that
    the network names itself (``head_name``), or else the last Linear.

    Raises:
        InputError: there is none.
    """
    named = _named(model, name)
    if named is not None:
        return named
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        dense = any(isinstance(module, _CONVOLUTIONS) for module in model.modules())
        pixels = ", or, where it answers for each pixel, give task=segmentation" if dense else ""
        raise InputError(
            f"{type(model).__name__} has no Linear layer to take features from: name its "
            f"classifier, head=NAME{pixels}"
        )
    return linear[-1]


def find_convolution(model: nn.Module, name: str | None, num_classes: int) -> nn.Module:
    """The layer whose input counts as the features of pixels: the module called ``name``, or else
    the one that the network names itself, or else the last convolution with an output for each
    class (or one for two).

    Raises:
        InputError: there is none, or the named one has another number of outputs.
    """
    named = _named(model, name)
    widths = (num_classes, 1) if num_classes == 2 else (num_classes,)
    convolutions = [named] if named is not None else list(model.modules())
    found = [
        module
        for module in convolutions
        if isinstance(module, _CONVOLUTIONS) and module.out_channels in widths
    ]
    if found:
        return found[-1]
    if named is not None and not isinstance(named, (*_CONVOLUTIONS, nn.Linear)):
        return named  # a block of one's own, whose outputs nobody knows beforehand
    what = "it" if named is None else f"head={name_of(model, named)!r}"
    raise InputError(
        f"{type(model).__name__} answers for pixels by a convolution with {num_classes} outputs, "
        f"and {what} has none: give num_classes as the network has them, the background among "
        "them, or name its last layer, head=NAME"
    )


def name_of(model: nn.Module, module: nn.Module) -> str:
    """The name of a module within a network."""
    return next(name for name, other in model.named_modules() if other is module)


def _named(model: nn.Module, name: str | None) -> nn.Module | None:
    """The module of a name, or else of the one that the network gives itself; None: of neither."""
    modules = dict(model.named_modules())
    own = getattr(model, "head_name", None)
    if name is None:
        return modules[own] if isinstance(own, str) and own in modules else None
    if name not in modules:
        raise InputError(
            f"head={name!r} is not a module of {type(model).__name__}; its modules: "
            f"{_some(modules)}"
        )
    return modules[name]


def norm_affine(model: nn.Module, exclude: Sequence[str] = ()) -> dict[str, nn.Parameter]:
    """Weights and biases of the normalisation layers, by their names in
    ``model.named_parameters()``.

    Args:
        model: any network.
        exclude: names of submodules whose layers are left alone.

    Raises:
        InputError: the network has no such parameter, or an excluded name is not one of its
            modules.
    """
    _check_modules(model, exclude)
    found = {
        f"{layer}.{name}": parameter
        for layer, module in model.named_modules()
        if is_norm(module) and not _within(layer, exclude)
        for name, parameter in module.named_parameters(recurse=False)
    }
    if not found:
        excluded = " outside the excluded ones" if exclude else ""
        raise InputError(
            f"{type(model).__name__} has no normalisation layer with weights that could be "
            f"adapted{excluded} (looked for "
            "BatchNorm, InstanceNorm, GroupNorm and LayerNorm): build it with affine normalisation "
            "layers, or use "
            "the method source"
        )
    return found


def parameters_outside(model: nn.Module, exclude: Sequence[str]) -> dict[str, nn.Parameter]:
    """All parameters but those of the excluded modules, by name.

    Raises:
        InputError: none is left, or an excluded name is not one of the network's modules.
    """
    _check_modules(model, exclude)
    found = {
        name: parameter
        for name, parameter in model.named_parameters()
        if not _within(name, exclude)
    }
    if not found:
        raise InputError(
            f"exclude={list(exclude)} leaves no parameter of {type(model).__name__} to adapt: "
            "exclude fewer modules"
        )
    return found


def last_stage(model: nn.Module) -> list[str]:
    """Names of the modules that form the last stage of a network, found by position.

    Sharpness-aware and entropy-filtering methods leave the last stage alone (``layer4`` of a
    ResNet, the last quarter of a transformer's blocks), since its features are the most sensitive.
    Looked for here: the innermost module that holds all normalisation layers; among its children
    the last that holds several, with what follows it. Where that is most of the network, as with a
    list of blocks, it is the last quarter of the blocks instead.

    Returns:
        Names for ``exclude``; none where the network has fewer than two normalisation layers.
    """
    norms = [
        name
        for name, module in model.named_modules()
        if is_norm(module) and any(True for _ in module.parameters(False))
    ]
    if len(norms) < 2:
        return []
    units = _units(model, "", norms)
    several = [index for index, unit in enumerate(units) if _count(unit, norms) > 1]
    start = several[-1] if several else len(units) - 1
    tail = units[start:]
    if several and sum(_count(unit, norms) for unit in tail) > len(norms) / 2:
        blocks = _units(model, units[start], norms)
        tail = blocks[len(blocks) - -(-len(blocks) // 4) :] + tail[1:]
    return tail


def _check_modules(model: nn.Module, names: Iterable[str]) -> None:
    known = {name for name, _ in model.named_modules()}
    for name in names:
        if name not in known:
            raise InputError(
                f"exclude: {name!r} is not a module of {type(model).__name__}; its modules: "
                f"{_some(known)}"
            )


def _units(model: nn.Module, prefix: str, norms: Sequence[str]) -> list[str]:
    """Children that hold normalisation layers, of the innermost module at or below ``prefix`` that
    has several.
    """
    while True:
        module = model.get_submodule(prefix)
        children = [f"{prefix}.{name}".lstrip(".") for name, _ in module.named_children()]
        holding = [name for name in children if _count(name, norms)]
        if len(holding) != 1 or holding[0] in norms:
            return holding
        prefix = holding[0]


def _count(unit: str, norms: Iterable[str]) -> int:
    return sum(_within(name, [unit]) for name in norms)


def _within(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _some(names: Iterable[str], limit: int = 12) -> str:
    top = [name for name in names if name and name.count(".") < 2]
    return ", ".join(sorted(top)[:limit]) + (" …" if len(top) > limit else "")
