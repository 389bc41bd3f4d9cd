"""A source, or what an adaptation made of it, for other programs: a state dict under the names that
its weights came with, a safetensors file, an ONNX model, or a program of torch.export.
"""

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from holdfast.tta.checkpoint import AdaptedTensors, SourceCheckpoint, read_adapted
from holdfast.tta.errors import InputError, said
from holdfast.tta.fingerprint import fingerprint, values_now
from holdfast.tta.folder import writing
from holdfast.tta.matching import restored
from holdfast.tta.networks import Network, WholeNetwork, network_from
from holdfast.tta.normalization import Statistics, adjustable_layers, choose_statistics
from holdfast.tta.safetensors import write_safetensors
from holdfast.tta.saying import say, warn
from holdfast.tta.settings import check_format
from holdfast.tta.weights import adopt
from holdfast.version import version

Format = Literal["torch", "safetensors", "onnx", "program"]
#: How far the logits of an exported network may be from the adapted one's, by their largest.
_WITHIN = 1e-4
#: Images by which that is checked: more than one, and not as many as a graph is traced with.
_CHECKED = 3
#: Statistics of BatchNorm that stay what they are, so that a file of weights can hold them.
_FIXED = ("source", "moving", "robust", "")
#: Those of each batch by itself, which a graph can compute; fewer images have none.
_OWN = ("batch", "recording")
_LEAST = 2
#: Formats that hold what is computed, and not weights alone.
_GRAPHS = ("onnx", "program")


def export(
    source: str | Path | SourceCheckpoint,
    adapted: str | Path | None = None,
    *,
    format: Format = "torch",
    path: str | Path,
    told: Mapping[str, str] | None = None,
) -> Path:
    """Write a network for other programs, and check that it says what the adapted one says.

    Args:
        source: the checkpoint, its file, or the folder of one.
        adapted: ``adapted.ckpt`` of a run from it; None: the source as it is. Where the run
            normalised each batch by its own statistics, so do graphs and programs, of two images
            or more; a state dict has the source's, and that is said.
        format: a state dict for torch, of adopted weights under the names that they came with; the
            same as safetensors; a graph for ONNX, or a program of ``torch.export``, which take
            images scaled to [0, 1] and do the rest.
        path: the file to write; one more, which adds ``.json``, tells classes, scaling and
            provenance: version, hashes of source and adapted tensors, method. In a safetensors file
            its header has the provenance as well.
        told: what else its provenance says.

    Returns:
        The file.

    Raises:
        InputError: the parts do not belong together, a library is missing, or the network cannot
            be written so.

    Example:
        ``export("runs/train/ours", "runs/adapt/theirs/adapted.ckpt", format="onnx",
        path="theirs.onnx")``
    """
    check_format(format)
    checkpoint = source if isinstance(source, SourceCheckpoint) else SourceCheckpoint.load(source)
    left = None if adapted is None else read_adapted(adapted, checkpoint)
    own = left is not None and left.statistics in _OWN and format in _GRAPHS
    network = baked(checkpoint, left)
    if own:
        choose_statistics(network, "batch")
    elif left is not None:
        warn_of_others(left.statistics)
    images = _images(checkpoint)
    with torch.no_grad():
        expected = _adapted(checkpoint, left, own)(images)
    provenance = {**_provenance(checkpoint, left), **(told or {})}
    what = _What(checkpoint, network, images, _LEAST if own else 1, provenance)
    file = Path(path).expanduser()
    with writing(file):
        again = _WRITERS[format](file, what)
        found = again(images)
        apart = _apart(found, expected)
        if not apart <= _WITHIN:  # a NaN is not
            file.unlink()
            raise InputError(
                f"{file} would say something else than the adapted network (off by {apart:.1e}), "
                f"so it was removed: take another format than {format}"
            )
        _describe(file, what, format, own)
    say(f"{file}: logits as of the adapted network, to {apart:.0e}")
    return file


class _What(NamedTuple):
    """What is written.

    Attributes:
        checkpoint: the source.
        network: with all that was adapted in its own tensors.
        images: (N, channels, ...) in [0, 1], by which the file is checked.
        least: images that a batch must have.
        provenance: where it comes from, in words.
    """

    checkpoint: SourceCheckpoint
    network: Network
    images: Tensor
    least: int
    provenance: Mapping[str, str]


def _provenance(checkpoint: SourceCheckpoint, adapted: AdaptedTensors | None) -> dict[str, str]:
    """Where the weights come from; ``weights`` is as in ``predictions.csv`` and ``audit.json``."""
    told = {"holdfast": version(), "source": checkpoint.hash}
    if adapted is None:
        return told
    weights = fingerprint(values_now(adapted.state.values()))
    return {**told, "method": adapted.method, "weights": weights}


def _overlaid(network: Network, values: Mapping[str, Tensor]) -> Network:
    """The network with other values in some of its tensors.

    Raises:
        InputError: they are not its own.
    """
    state = network.state_dict()
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    if any(name not in state or tuple(state[name].shape) != s for name, s in shapes.items()):
        raise InputError(
            "the adapted tensors are not of the source's network: name the source that the run "
            "started from"
        )
    network.load_state_dict({**state, **values})
    return network


def baked(checkpoint: SourceCheckpoint, adapted: AdaptedTensors | None) -> Network:
    """The network with all that was adapted in its own tensors."""
    network = checkpoint.build()
    if adapted is None:
        return network
    return _overlaid(network, {**adapted.state, **adapted.moments})


def warn_of_others(statistics: str | None) -> None:
    """Say that what normalised in the run is not in the file, where it is not."""
    if statistics in _FIXED:
        return
    how = "an older version did not write which" if statistics is None else statistics
    warn(
        f"the run normalised by statistics that the file does not hold ({how}): it has the "
        "source's, under which adapted values may be worse; format=onnx and format=program hold "
        "those of each batch, and an adaptation with method.normalization=source needs no others"
    )


def _adapted(checkpoint: SourceCheckpoint, adapted: AdaptedTensors | None, own: bool) -> Network:
    """The network as adaptation runs it: layers with a choice of statistics."""
    network = checkpoint.build()
    if adapted is None:
        return network
    fixed: Statistics = "moving" if adapted.moments and not own else "source"
    choose_statistics(network, "batch" if own else fixed)
    _overlaid(network, adapted.state)
    layers = {id(layer): layer for layer in adjustable_layers(network)}
    for name, module in network.named_modules():
        if id(module) in layers and fixed == "moving":
            for key in ("mean", "var"):
                value = adapted.moments[f"{name}.running_{key}"]
                network.get_buffer(f"{name}.moving_{key}").copy_(value)
    return network


def _images(checkpoint: SourceCheckpoint) -> Tensor:
    """Images (N, channels, ...) in [0, 1] that are the same every time."""
    draw = torch.Generator().manual_seed(0)
    return torch.rand(_CHECKED, checkpoint.channels, *checkpoint.size, generator=draw)


def _apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference of log-probabilities, by the largest logit: of two logits for one,
    only their difference counts.
    """
    if found.shape != expected.shape:
        return float("inf")
    scale = max(1.0, float(expected.abs().max()))
    return float((found.log_softmax(1) - expected.log_softmax(1)).abs().max()) / scale


_Say = Callable[[Tensor], Tensor]


def _weights(checkpoint: SourceCheckpoint, network: Network) -> dict[str, Tensor]:
    """The network's tensors, by the names of the file that they came from, of its library, or by
    its own.
    """
    state = {name: value.detach().clone() for name, value in network.state_dict().items()}
    origin = checkpoint.network.get("origin")
    if origin:
        try:
            return restored(origin, state)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError(
                f"the source does not tell the names of its weights' file ({said(error)}): adopt "
                "them again"
            ) from error
    if isinstance(network, WholeNetwork):
        return {
            name.removeprefix("model."): value
            for name, value in state.items()
            if name.startswith("model.")
        }
    return state


def _order(checkpoint: SourceCheckpoint) -> list[int] | None:
    """The order of the outputs in what is written, of those that are written."""
    for how, _, *more in (checkpoint.network.get("origin") or {}).values():
        if how == "order":
            places = sorted(more[0])
            return [places.index(place) for place in more[0]]
    return None


def adopted(file: Path, checkpoint: SourceCheckpoint) -> Network:
    """The source's network with the weights of a file that ``export`` wrote from it.

    Args:
        file: of format ``torch`` or ``safetensors``.
        checkpoint: the source.

    Raises:
        InputError: they do not fit it.
    """
    network = network_from(checkpoint.network)
    order = _order(checkpoint)
    adopt(network, file, order=order, outputs=0 if order is None else len(order))
    for name in ("mean", "std"):
        network.get_buffer(name).copy_(checkpoint.weights[name])
    return network.eval()


def check_origin(file: Path, checkpoint: SourceCheckpoint) -> None:
    """Refuse a file that ``export`` did not write from this source.

    Raises:
        InputError: what stands beside it says another source, or is not there.
    """
    facts = facts_of(file)
    try:
        source = json.loads(facts.read_text(encoding="utf-8"))["provenance"]["source"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{facts} does not tell from which source {file} was exported: keep it beside the "
            "file, or export again, holdfast export"
        ) from error
    if source != checkpoint.hash:
        raise InputError(
            f"{file} was exported from another source: give the one it came from as source="
        )


def _write_torch(file: Path, what: _What) -> _Say:
    torch.save(_weights(what.checkpoint, what.network), file)
    return torch.no_grad()(adopted(file, what.checkpoint).forward)


def _write_safetensors(file: Path, what: _What) -> _Say:
    weights = _weights(what.checkpoint, what.network)
    write_safetensors(file, weights, {"format": "pt", **what.provenance})
    return torch.no_grad()(adopted(file, what.checkpoint).forward)


def _write_program(file: Path, what: _What) -> _Say:
    batch = torch.export.Dim("batch", min=what.least)
    with _exporting("program"):
        shapes = ({0: batch},)
        program = torch.export.export(what.network, (what.images[:2],), dynamic_shapes=shapes)
        torch.export.save(program, file)
        return torch.no_grad()(torch.export.load(file).module())


def check_libraries() -> None:
    """Refuse ONNX where what writes it is not installed.

    Raises:
        InputError: it is not.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"format=onnx needs {' and '.join(missing)}: pip install 'holdfast[onnx]', or take "
            "format=program"
        )


def _write_onnx(file: Path, what: _What) -> _Say:
    check_libraries()
    with _exporting("onnx"):
        torch.onnx.export(
            what.network,
            (what.images[:2],),
            file,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=what.least)},),
            input_names=["images"],
            output_names=["logits"],
            external_data=False,
            verbose=False,
        )
    session = import_module("onnx.reference").ReferenceEvaluator(str(file))
    return lambda given: torch.from_numpy(session.run(None, {"images": given.numpy()})[0])


_WRITERS: dict[str, Callable[[Path, _What], _Say]] = {
    "torch": _write_torch,
    "safetensors": _write_safetensors,
    "onnx": _write_onnx,
    "program": _write_program,
}


@contextmanager
def _exporting(format: str) -> Iterator[None]:
    """Without the exporters' own remarks, and with one sentence on what they do not take."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except OSError:
        raise
    except Exception as error:  # exporters raise whatever they come across
        words = said(error).split(". ")[0][:200]
        raise InputError(
            f"the network cannot be written as format={format} ({words}): take format=torch"
        ) from error
    finally:
        logger.setLevel(level)


def _describe(file: Path, what: _What, format: str, own: bool) -> None:
    """Leave beside the file what its user must know of images and classes."""
    checkpoint = what.checkpoint
    graph = format in _GRAPHS
    scaled = "(pixel - range[0]) / (range[1] - range[0])"
    facts: dict[str, Any] = {
        "classes": _outputs(checkpoint) if not graph else checkpoint.class_names,
        "images": scaled if graph else f"({scaled} - mean) / std",
        "range": [checkpoint.low, checkpoint.high],
        "channels": checkpoint.channels,
        "size": list(checkpoint.size),
        "normalization": "batch" if own else "fixed",
        "provenance": dict(what.provenance),
    }
    if not graph:
        facts |= {name: checkpoint.weights[name].tolist() for name in ("mean", "std")}
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    facts_of(file).write_text(text + "\n", encoding="utf-8")


def facts_of(file: Path) -> Path:
    """Where classes and scaling of an exported file stand: ``net.onnx.json`` of ``net.onnx``."""
    return file.with_name(f"{file.name}.json")


def _outputs(checkpoint: SourceCheckpoint) -> list[str]:
    """The classes in the order of the outputs of a state dict."""
    order = _order(checkpoint)
    if order is None:
        return checkpoint.class_names
    return [checkpoint.class_names[order.index(place)] for place in range(len(order))]


if __name__ == "__main__":
    sys.exit("this module is for import: call holdfast export DIR_OR_CKPT")
