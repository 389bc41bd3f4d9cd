"""The files that carry a model from training to adaptation, and from one adaptation run to the
next.

Both are plain dictionaries of tensors, numbers and strings, and load with ``weights_only``.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.tta.disk import sync
from holdfast.tta.errors import InputError
from holdfast.tta.foreign import kind_of, unpacks_to_more
from holdfast.tta.libraries import give_function
from holdfast.tta.networks import Network, check_seal, network_from
from holdfast.tta.soundness import Unsound, check_adapted, check_plain, check_source
from holdfast.tta.tasks import Task, task_of

_VERSION = 1
_SOURCE, _ADAPTED = "holdfast-source", "holdfast-adapted"


@dataclass(frozen=True)
class SourceCheckpoint:
    """All that adaptation needs of the source.

    Attributes:
        network: description from which the network is built, with ``channels`` and ``size`` of its
            images.
        weights: its state dict.
        class_names: names of the C classes.
        low: raw pixel value that is scaled to 0.
        high: raw pixel value that is scaled to 1.
        prevalence: (C,) share of each class in the training images; of masks in their pixels, of
            findings (2·L,) absent and present for one after the other (``Task.cells``).
        feature_mean: (C, D) mean features of each class, or cell, on the training images.
        feature_var: (C, D) their variances.
        separation: J on the validation images, grouped by predicted class.
        temperature: that minimises the negative log-likelihood on the validation images.
        entropy_quantiles: (101,) quantiles 0 to 1 of the prediction entropy on the validation
            images, in nats.
        data: the data set's kind and options, as ``adapt.py``'s default.
        metrics: of the source's test images.
        fisher: diagonal Fisher information of the normalisation layers' parameters, by name; None
            in older files.
        layer_moments: mean and mean square (2, C, channels) of each BatchNorm layer's input by
            class; None in older files.
        calibration: what the guard's statistics are on healthy streams (``tta/calibration.py``);
            None where it was left out.
        share_quantiles: (101, cells) quantiles 0 to 1 of what validation images hold of each class;
            None where images have one label, and in older files.
        task: name and options of what the network's answer means (``Task.described``); None: one
            label an image, as in older files.
        doubt_quantiles: (101,) quantiles 0 to 1 of how little the network agrees with itself on the
            mirror image of a validation case; None where images have one label.
    """

    network: dict[str, Any]
    weights: dict[str, Tensor]
    class_names: list[str]
    low: float
    high: float
    prevalence: Tensor
    feature_mean: Tensor
    feature_var: Tensor
    separation: float
    temperature: float
    entropy_quantiles: Tensor
    data: dict[str, Any]
    metrics: dict[str, Any]
    fisher: dict[str, Tensor] | None = None
    layer_moments: dict[str, Tensor] | None = None
    calibration: dict[str, Any] | None = None
    task: dict[str, Any] | None = None
    share_quantiles: Tensor | None = None
    doubt_quantiles: Tensor | None = None

    def save(self, path: Path) -> None:
        """Write the file; a run that is stopped meanwhile leaves an older one whole."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        _save(path, {"format": _SOURCE, "version": _VERSION, **fields})

    @classmethod
    def load(
        cls, path: str | Path, model: str | Callable[..., nn.Module] | None = None
    ) -> "SourceCheckpoint":
        """Read ``path``, or ``source.ckpt`` in the folder ``path``.

        Args:
            path: of the file, or of its folder.
            model: the function that builds its network, or ``FILE.py:function``, where it was
                trained by one; a checkpoint that names one has no code run.

        Raises:
            InputError: no such file, another project's, or one whose content is damaged.
        """
        if model is not None:
            give_function(model)
        file = source_file(path)
        content = _load(
            file, _SOURCE, "a source checkpoint of Holdfast: train one with python train.py"
        )
        fields = dataclasses.fields(cls)
        missing = {
            field.name for field in fields if field.default is dataclasses.MISSING
        } - content.keys()
        if missing:
            raise InputError(
                f"{file} lacks {', '.join(sorted(missing))}: train the source again with this "
                "version"
            )
        given = {field.name: content[field.name] for field in fields if field.name in content}
        try:
            check_source(given)
        except Unsound as problem:
            raise InputError(
                f"{file} is damaged or was tampered with, {problem}: take a copy that is whole, or "
                "train the source again"
            ) from problem
        return cls(**given)

    @property
    def meaning(self) -> Task:
        """The task that ``task`` describes, of its classes or findings."""
        return task_of(self.task, len(self.class_names))

    @property
    def features(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """What a guard knows of the classes: means, variances, and the quantiles of shares."""
        return self.feature_mean, self.feature_var, self.share_quantiles

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return int(self.network["channels"])

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width of the images; of volumes depth, height and width."""
        return tuple(int(side) for side in self.network["size"])

    @property
    def architecture(self) -> str:
        """The kind of its network, by which rates are scaled: ``vit`` for all vision
        transformers.
        """
        kind, options = str(self.network["kind"]), self.network["options"]
        return "vit" if "vit" in str(options.get("name", "")) else kind

    @property
    def hash(self) -> str:
        """SHA-256 of the weights, by name, shape, type and value."""
        digest = hashlib.sha256()
        for name, value in sorted(self.weights.items()):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def build(self) -> Network:
        """The network with its weights, in eval mode.

        Raises:
            InputError: it is built by code that is not there, or that has changed.
        """
        network = network_from(self.network)
        network.load_state_dict(self.weights)
        check_seal(network, self.network)
        return network.eval()


def source_file(path: str | Path) -> Path:
    """The file that ``source=`` means: itself, or ``source.ckpt`` in a folder."""
    file = Path(path).expanduser()
    return file / "source.ckpt" if file.is_dir() else file


@dataclass(frozen=True)
class AdaptedTensors:
    """What an adaptation left.

    Attributes:
        method: its name.
        state: adapted tensors by name.
        statistics: by which its BatchNorm layers normalised at the end; empty where it has none,
            None in older files.
        moments: mean and variance of moving ones, by the names of the running ones in whose place
            they stand.
    """

    method: str
    state: dict[str, Tensor]
    statistics: str | None
    moments: dict[str, Tensor]


def save_adapted(
    path: Path,
    source: SourceCheckpoint,
    method: str,
    state: Mapping[str, Tensor],
    statistics: Mapping[str, Any] | None = None,
) -> None:
    """Write adapted tensors with the hash of the source that they belong to.

    Args:
        path: the file.
        source: the checkpoint that was adapted.
        method: name of the method.
        state: adapted tensors by name, from ``Method.adapted_state``.
        statistics: of normalisation, from ``statistics_in_use``.
    """
    tensors = {name: value.cpu() for name, value in state.items()}
    content = {
        "format": _ADAPTED,
        "version": _VERSION,
        "source_hash": source.hash,
        "method": method,
        "state": tensors,
        "statistics": dict(statistics or {}),
    }
    _save(path, content)


def load_adapted(path: str | Path, source: SourceCheckpoint) -> dict[str, Tensor]:
    """Read adapted tensors; what ``read_adapted`` refuses is refused."""
    return read_adapted(path, source).state


def read_adapted(path: str | Path, source: SourceCheckpoint) -> AdaptedTensors:
    """Read what an adaptation left.

    Raises:
        InputError: no such file, another project's, or adapted from another source.
    """
    content = _load(Path(path).expanduser(), _ADAPTED, "an adapted.ckpt of Holdfast")
    if content.get("source_hash") != source.hash:
        raise InputError(
            f"{path} was adapted from another source checkpoint: give the one it came from as "
            "source="
        )
    state: dict[str, Tensor] = content.get("state", {})
    served = content.get("statistics") or {}
    moments = served.get("values", {})
    try:
        check_adapted(state)
        check_adapted(moments)
    except Unsound as problem:
        raise InputError(
            f"{path} is damaged or was tampered with, {problem}: start from the source, or from "
            "another adapted.ckpt"
        ) from problem
    return AdaptedTensors(str(content.get("method")), state, served.get("choice"), moments)


def save_file(path: Path, kind: str, content: Mapping[str, Any], before: Path) -> None:
    """Write a file of a kind of its own, of plain values, that outlasts a power cut.

    Args:
        path: of the file.
        kind: its format.
        content: what it holds.
        before: where the one that is there goes.

    Raises:
        OSError: the disk takes no more.
    """
    _save(path, {"format": kind, "version": _VERSION, **content}, before)


def load_file(path: Path, kind: str, description: str) -> dict[str, Any]:
    """What ``save_file`` wrote.

    Raises:
        InputError: no such file, another one, torn, or of another version.
    """
    return _load(path, kind, description)


def _save(path: Path, content: Mapping[str, Any], before: Path | None = None) -> None:
    """Write a file, with a checksum over its content; whatever happens, an older one stays whole
    until this one is.

    Args:
        path: of the file.
        content: what it holds.
        before: where the older one goes; None: it is replaced, and nothing waits for the disk.

    Raises:
        OSError: the disk takes no more.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            torch.save({**content, "checksum": checksum(content)}, file)
            if before is not None:
                file.flush()
                os.fsync(file.fileno())
        if before is not None and path.exists():
            path.replace(before)
        part.replace(path)
        if before is not None:
            sync(path.parent)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        cause = _cause(error)
        if cause is error:
            raise
        raise cause from error


def _cause(error: BaseException) -> BaseException:
    """What the disk said, which torch hides behind an error of its own."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, OSError):
        inner = inner.__context__
    return inner or error


def checksum(content: Any) -> str:
    """SHA-256 over nested dictionaries and lists of tensors, numbers and text, in their order."""
    digest = hashlib.sha256()
    _digest(content, digest)
    return digest.hexdigest()


def _digest(value: Any, digest: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        digest.update(f"{{{len(value)}".encode())
        for key, item in value.items():
            _digest(key, digest)
            _digest(item, digest)
    elif isinstance(value, list | tuple):
        digest.update(f"[{len(value)}".encode())
        for item in value:
            _digest(item, digest)
    else:
        digest.update(f"{value!r};".encode())


def _load(path: Path, wanted: str, description: str) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path} does not exist: expected {description}")
    foreign = kind_of(path)
    if foreign is not None:
        raise InputError(f"{path} is not {description}; it is {foreign}")
    if unpacks_to_more(path):
        raise InputError(f"{path} is not {description}; it unpacks to more than its own size")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch raises half a dozen unrelated types on files that are not its own
        raise InputError(f"{path} is damaged, or not {description}") from error
    if not isinstance(content, dict) or content.get("format") != wanted:
        raise InputError(f"{path} is not {description}")
    if content.get("version") != _VERSION:
        raise InputError(
            f"{path} has format version {content.get('version')}; this version of Holdfast reads "
            f"{_VERSION}"
        )
    try:
        check_plain(content)
    except Unsound as problem:
        raise InputError(
            f"{path} is damaged or was tampered with, {problem}: take a copy that is whole"
        ) from problem
    # Files of earlier releases have none; a newer reader of this version's files still finds all it
    # knows.
    expected = content.pop("checksum", None)
    if expected is not None and expected != checksum(content):
        raise InputError(
            f"{path} is damaged, its content does not match its checksum: copy it again from where "
            "it came from"
        )
    return content
