"""Whether what a checkpoint holds fits together; a damaged model would else serve at chance, and
not say so.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from holdfast.tta.errors import InputError, said
from holdfast.tta.libraries import LIBRARIES
from holdfast.tta.networks import MODELS, Network, network_from
from holdfast.tta.tasks import Task, task_of

#: Sides, channels and options of a network beyond this are no network's.
_MOST = 10**6
#: Containers within containers beyond this are no checkpoint's: ours have four.
_DEEPEST = 50
#: What draws random values, and what MONAI bounds them by.
_FILLING = frozenset({"normal_", "uniform_", "erfinv_", "mul_", "add_", "clamp_"})


class Unsound(ValueError):
    """Why a checkpoint cannot be used, a half-sentence."""


def check_plain(content: Any) -> None:
    """Check that loaded content can be gone through and copied, before anything is done with it.

    Raises:
        Unsound: a tensor is no plain one, or containers are nested without end.
    """
    left = [(content, "its content", 0)]
    while left:
        value, name, depth = left.pop()
        _expect(depth <= _DEEPEST, "its content is nested too deeply")
        if isinstance(value, Tensor):
            oddity = oddity_of(value)
            _expect(not oddity, f"{name} {oddity}")
        elif isinstance(value, Mapping):
            left += [(item, str(key), depth + 1) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            left += [(item, name, depth + 1) for item in value]


def oddity_of(value: Tensor) -> str:
    """Why a loaded tensor is no plain array of values, as words behind its name; empty where it is
    one.
    """
    if value.layout != torch.strided:
        return "is sparse"
    if value.is_meta:
        return "has no values"
    # A tensor may pretend to be large by repeating what little it has, and be so once it is copied.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return "has more values than the file"
    return ""


def check_source(fields: Mapping[str, Any]) -> None:
    """Check the fields of a source checkpoint against each other.

    Args:
        fields: as ``SourceCheckpoint`` has them.

    Raises:
        Unsound: one has another form, shape or value than the network and the classes ask for.
    """
    names, weights = fields["class_names"], fields["weights"]
    _expect(isinstance(names, list) and len(names) > 0, "class_names are no list")
    _expect(all(isinstance(name, str) for name in names), "class_names are no names")
    _expect(len(set(names)) == len(names), "class_names name a class twice")
    _check_tensors(weights, "weights")
    network = _described(fields["network"], len(names), len(weights))
    _check_weights(weights, network)
    task = _task(fields.get("task"), len(names))
    classes, width = task.cells, _width(network)
    for name, shape in {
        "prevalence": (classes,),
        "feature_mean": (classes, width),
        "feature_var": (classes, width),
        "entropy_quantiles": (101,),
    }.items():
        _check_tensor(fields[name], name, shape)
    for name in ("prevalence", "feature_var", "entropy_quantiles"):
        _expect(bool((fields[name] >= 0).all()), f"{name} has negative values")
    for name in ("low", "high", "separation", "temperature"):
        _expect(_is_number(fields[name]), f"{name} is no number")
    _expect(fields["low"] != fields["high"], "low and high are the same")
    _expect(fields["temperature"] > 0, "temperature is not above 0")
    for name in ("data", "metrics"):
        _expect(isinstance(fields[name], dict), f"{name} are no options")
    _expect(isinstance(fields["data"].get("kind"), str), "data has no kind")
    _check_optional(fields, network, classes)


def _task(description: Any, classes: int) -> Task:
    """The task that is described; an older file's is one label an image."""
    whole = description is None or (
        isinstance(description, dict)
        and isinstance(description.get("name"), str)
        and isinstance(description.get("options", {}), dict)
    )
    _expect(whole, "its task is not described")
    try:
        return task_of(description, classes)
    except InputError as error:
        raise Unsound(f"this version cannot do its task ({said(error)})") from error


def _width(network: Network) -> int:
    """D, of the features that go into its last layer."""
    head = network.get_submodule(network.head_name)
    width = getattr(head, "in_features", None) or getattr(head, "in_channels", None)
    _expect(isinstance(width, int), "its network has no last layer")
    return int(width or 0)


def check_adapted(state: Any) -> None:
    """Check adapted tensors; whether they fit the method is the method's to say.

    Raises:
        Unsound: they are no tensors of finite values.
    """
    _check_tensors(state, "state")
    for name, value in state.items():
        _check_values(value, name)


class _Unfilled(TorchFunctionMode):
    """Leaves out random values: of tensors without memory, drawing them would load torch's
    compiler, for seconds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if getattr(func, "__name__", "") in _FILLING:
            return args[0] if args else named["tensor"]
        if func is torch.linspace:  # a few rates, which Swin UNETR reads back
            named = {**named, "device": "cpu"}
        return func(*args, **named)


def _described(network: Any, classes: int, tensors: int) -> Network:
    """The network of a description, with shapes and no memory."""
    _expect(isinstance(network, dict), "its network is not described")
    options, size = network.get("options"), network.get("size")
    kind, told = network.get("kind"), network.get("num_classes")
    whole = isinstance(options, dict) and isinstance(size, list) and isinstance(kind, str)
    _expect(whole and isinstance(told, int), "its network is not described")
    _expect(kind in MODELS, f"this version knows no network {kind!r}")
    _expect(told == classes, f"its network has {told} classes, and there are names for {classes}")
    sizes = [network.get("channels"), *size, *_numbers(options)]
    within = all(isinstance(value, int) and 0 < value <= _MOST for value in sizes)
    _expect(within and len(size) in (2, 3), "its network's sizes are out of range")
    layers = options.get("layers", 0)
    fewer = isinstance(layers, int) and layers <= tensors
    _expect(fewer, "its network has more layers than weights")
    _check_origin(network.get("origin"))
    _check_answer(network.get("answer"), classes)
    if kind in LIBRARIES:  # what it says of its code is for the user
        return _of_library(network)
    try:
        with torch.device("meta"), _Unfilled():
            return network_from(network)
    except _UNBUILT as error:
        raise Unsound("its network cannot be built from its description") from error


#: What goes wrong where a description is nobody's.
_UNBUILT = (InputError, TypeError, ValueError, RuntimeError, AttributeError, KeyError)


def _of_library(network: Mapping[str, Any]) -> Network:
    """A network of other people's code, which may not build without memory."""
    try:
        with torch.device("meta"), _Unfilled():
            return network_from(network)
    except Exception:  # whatever their code does
        return network_from(network)


def _numbers(value: Any) -> list[int]:
    """All whole numbers among options, but 0, which leaves something out."""
    if isinstance(value, Mapping):
        return [number for item in value.values() for number in _numbers(item)]
    if isinstance(value, list | tuple):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int) and not isinstance(value, bool) and value else []


def _check_origin(origin: Any) -> None:
    """What tells of the file that weights came from."""
    _expect(origin is None or isinstance(origin, dict), "its origin is none")
    for entry in (origin or {}).values():
        whole = isinstance(entry, list) and len(entry) > 1
        _expect(whole and all(isinstance(v, str) for v in entry[:2]), "its origin is none")


def _check_answer(answer: Any, classes: int) -> None:
    """What a network of other people's code said when it was trained."""
    listed = isinstance(answer, list) and len(answer) == classes
    known = answer is None or (listed and all(map(_is_number, answer)))
    _expect(known, "its answer is no number for each class")


def _check_weights(weights: Mapping[str, Tensor], network: Network) -> None:
    expected = network.state_dict()
    odd = sorted(weights.keys() ^ expected.keys())
    _expect(not odd, f"weights of other layers than its network has ({', '.join(odd[:3])})")
    for name, value in weights.items():
        _check_shape(value, name, tuple(expected[name].shape))
        if not expected[name].is_floating_point():  # a count of batches
            _expect(value.dtype == expected[name].dtype, f"{name} holds {value.dtype}")
            continue
        _check_values(value, name)
        if name.endswith("running_var") or name == "std":
            _expect(bool((value >= 0).all()), f"{name} has negative values")
    _expect(bool((weights["std"] > 0).all()), "std is 0")


def _check_optional(fields: Mapping[str, Any], network: Network, classes: int) -> None:
    """What older files lack."""
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    fisher, moments = fields.get("fisher"), fields.get("layer_moments")
    if fisher is not None:
        _check_tensors(fisher, "fisher")
        for name, value in fisher.items():
            _expect(name in shapes, f"fisher is of a layer {name} that its network has not got")
            _check_tensor(value, f"fisher of {name}", shapes[name])
    if moments is not None:
        _check_tensors(moments, "layer_moments")
        layers = dict(network.named_modules())
        for name, value in moments.items():
            channels = getattr(layers.get(name), "num_features", -1)
            _expect(channels > 0, f"layer_moments are of a layer {name} that is not there")
            _check_tensor(value, f"layer_moments of {name}", (2, classes, channels))
    if fields.get("share_quantiles") is not None:
        _check_tensor(fields["share_quantiles"], "share_quantiles", (101, classes))
    if fields.get("doubt_quantiles") is not None:
        _check_tensor(fields["doubt_quantiles"], "doubt_quantiles", (101,))
    if fields.get("calibration") is not None:
        _check_calibration(fields["calibration"])


def _check_calibration(calibration: Any) -> None:
    tails: Any = calibration.get("tails") if isinstance(calibration, dict) else None
    _expect(isinstance(tails, dict), "its calibration has no tails")
    _expect(_is_number(calibration.get("batches")), "its calibration has no number of batches")
    for name, tail in tails.items():
        known = isinstance(tail, dict) and all(
            _is_number(tail.get(key)) for key in ("start", "share", "scale", "shape")
        )
        _expect(known, f"its calibration of {name} is no tail of numbers")


def _check_tensors(values: Any, what: str) -> None:
    named = isinstance(values, dict) and all(isinstance(name, str) for name in values)
    _expect(named and all(isinstance(v, Tensor) for v in values.values()), f"{what} are no tensors")


def _check_tensor(value: Any, name: str, shape: tuple[int, ...]) -> None:
    _check_shape(value, name, shape)
    _check_values(value, name)


def _check_shape(value: Any, name: str, shape: tuple[int, ...]) -> None:
    _expect(isinstance(value, Tensor), f"{name} is no tensor")
    given = "x".join(map(str, value.shape)) or "a single number"
    _expect(tuple(value.shape) == shape, f"{name} is {given}, not {'x'.join(map(str, shape))}")


def _check_values(value: Tensor, name: str) -> None:
    _expect(value.is_floating_point(), f"{name} holds {value.dtype}, not floating-point numbers")
    _expect(bool(torch.isfinite(value).all()), f"{name} has values that are no numbers")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _expect(fine: bool, otherwise: str) -> None:
    if not fine:
        raise Unsound(otherwise)
