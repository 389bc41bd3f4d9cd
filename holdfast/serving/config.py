"""Options of the service, and how words become them."""

import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from holdfast.adapting.config import AdaptConfig
from holdfast.tta import entry, groups
from holdfast.tta.config import Choice, read_arguments, resolve
from holdfast.tta.errors import InputError
from holdfast.tta.options import option, within
from holdfast.tta.settings import PredictionsConfig

if TYPE_CHECKING:  # torch takes seconds, and --help needs none of it
    from holdfast.datamodules.reading import Reading
    from holdfast.tta.checkpoint import SourceCheckpoint

GROUPS = {"method": groups.METHODS, "guard": groups.GUARDS}
#: Environment variable with the token that requests must bear.
TOKEN = "HOLDFAST_TOKEN"
#: Letters of a token that nobody guesses: 16 are 80 bits or more, in any alphabet that is used.
_TOKEN_LENGTH = 16
#: Columns of ``predictions.csv`` that the service writes itself, and those anybody may send.
OWN_COLUMNS = ("received", "domain", "group")
#: How images were brought to the source's form in training, which holds for those that come in.
_TRAINED = ("size", "fit", "channels", "window", "spacing")


@dataclass
class ServiceConfig:
    """How the service is reached, how images are put together, and what is too much."""

    host: str = option("127.0.0.1", f"address to listen at; beyond this machine {TOKEN} is needed")
    port: int = option(8000, "port to listen at; 0: any that is free")
    adapt: bool = option(True, "false: a frozen model, the source or start=adapted.ckpt")
    batch_size: int = option(16, "most images of a batch; fewer teach nothing without a window")
    window: int | None = option(
        None, "newest images that an update sees, for images that come one by one; null: the batch"
    )
    max_wait: float | None = option(
        None, "seconds to wait for a full batch; null: no longer than other requests are on the way"
    )
    queue: int = option(256, "images that may wait; requests beyond are told to come back (429)")
    max_images: int = option(64, "images of a request")
    max_megabytes: float = option(64.0, "megabytes of a request")
    max_megapixels: float = option(50.0, "megapixels that an image may unpack to")
    timeout: float = option(30.0, "seconds that a request may take to come in, and to be answered")
    checkpoint: float = option(30.0, "seconds between checkpoints, from which a restart goes on")
    labels: bool = option(
        False,
        "heed labels that are posted: all candidates then answer each batch, which costs time",
    )
    metadata: list[str] = option(
        [], f"what else requests may say of an image, beside {' and '.join(OWN_COLUMNS[1:])}"
    )

    def __post_init__(self) -> None:
        for name, low, high in (
            ("port", 0, 65535),
            ("batch_size", 1, 4096),
            ("queue", 1, 100_000),
            ("max_images", 1, 4096),
            ("max_wait", 0, 60),
            ("max_megabytes", 0.01, 4096),
            ("max_megapixels", 0.01, 4096),
            ("timeout", 0.1, 3600),
            ("checkpoint", 0.1, 86400),
        ):
            within(self, name, low, high, group="serve")
        if self.window is not None and self.window < self.batch_size:
            raise InputError(
                f"serve.window={self.window} must be at least serve.batch_size={self.batch_size}"
            )
        if self.queue < self.max_images:
            raise InputError(
                f"serve.queue={self.queue} must hold the serve.max_images={self.max_images} of a "
                "request"
            )


@dataclass
class IncomingConfig:
    """How images that come in are read; what is left open is as it was in training."""

    size: int | list[int] | None = option(None, "sides of the images; null: the source's")
    fit: Literal["stretch", "cover", "pad", "crop"] | None = option(
        None, "to data.size by: stretch, cover, pad, or crop unscaled; null: as trained, or stretch"
    )
    channels: int | None = option(None, "1 makes colour grey, 3 repeats grey; null: the source's")
    window: Any = option(
        None,
        "[LOW,HIGH] raw values, file (DICOM's own), percentile, or null: as trained, else the span "
        "of the file's type",
    )
    spacing: float | None = option(
        None, "mm to which NIfTI and DICOM files are resampled; null: as trained"
    )
    range: list[float] | None = option(
        None, "[LOW,HIGH] raw values that become 0 and 1 where files do not say what they span"
    )

    def __post_init__(self) -> None:
        if any(getattr(self, field.name) is not None for field in fields(self)):
            self.reading()

    def reading(self) -> "Reading":
        """The options of decoding.

        Raises:
            InputError: they are none.
        """
        from holdfast.datamodules.settings import FilesConfig

        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return FilesConfig(**{**given, "fit": self.fit or "stretch"}).reading()


@dataclass
class ServeConfig:
    """Options of ``serve.py``."""

    source: str | None = option(None, "source checkpoint, or the folder of one; required")
    method: Any = option("dsbr", "adaptation method")
    guard: Any = option("on", "watch for collapse and correct it; or a published guard instead")
    serve: ServiceConfig = option(ServiceConfig(), "the service", first=["port", "window"])
    data: IncomingConfig = option(IncomingConfig(), "how images that come in are read")
    output: str | None = option(
        None, "folder of the results, of which a restart goes on; null: runs/serve/NAME"
    )
    overwrite: bool = option(False, "begin anew, and remove what is in that folder")
    start: str | None = option(
        None,
        "adapted.ckpt of an earlier run to start from, or with serve.adapt=false its export, a "
        ".safetensors, .pt or .onnx file; null: the source itself",
    )
    name: str | None = option(None, "name of the service; null: made from method and guard")
    model: str | None = option(
        None, "FILE.py:function that built the source's network, where one did"
    )
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", "where the network runs; auto: on a GPU where there is one"
    )
    seed: int = option(0, "seed of what methods draw")
    predictions: PredictionsConfig = option(PredictionsConfig(), "what is written of each image")

    def __post_init__(self) -> None:
        entry.check_counts(self, "seed")
        if self.predictions.parquet:
            raise InputError(
                "predictions.parquet is written when a run ends, and a service has no end: leave "
                "it out"
            )

    def adapting(self, labels: str | None = None) -> AdaptConfig:
        """The same as options of a run, whose stream is what comes in.

        Args:
            labels: file of the labels that come later; None: nobody heeds them.
        """
        serve = self.serve
        stream = groups.STREAMS["iid"](batch_size=serve.batch_size, window=serve.window)
        method, guard = self.method, self.guard
        if not serve.adapt:
            method = Choice("source", groups.METHODS["source"]())
            guard = Choice("off", groups.GUARDS["off"]())
        return AdaptConfig(
            source=self.source,
            data=Choice("folder", groups.DATA["folder"]()),  # none: images come in by themselves
            method=method,
            guard=guard,
            stream=Choice("iid", stream),
            labels=labels,
            start=self.start if serve.adapt else None,
            model=self.model,
            seed=self.seed,
            predictions=self.predictions,
        )


def configured(argv: Sequence[str]) -> "tuple[ServeConfig, SourceCheckpoint]":
    """The configuration of command-line words, and the source checkpoint that they name.

    Raises:
        InputError: the words name none, or what is no option.
    """
    values = read_arguments(argv, GROUPS)
    if values.get("source") is None:
        raise InputError("source is missing: name the checkpoint of train.py, source=DIR_OR_CKPT")
    from holdfast.tta.checkpoint import SourceCheckpoint

    checkpoint = SourceCheckpoint.load(values["source"], values.get("model"))
    config = resolve(ServeConfig, GROUPS, values)
    return replace(config, data=_as_trained(config.data, checkpoint)), checkpoint


def _as_trained(data: IncomingConfig, checkpoint: "SourceCheckpoint") -> IncomingConfig:
    """What is left open of the images as the source's were."""
    known: Mapping[str, Any] = checkpoint.data
    trained = {name: known[name] for name in _TRAINED if known.get(name) is not None}
    form: dict[str, Any] = {"size": list(checkpoint.size)}
    if checkpoint.channels in (1, 3):
        form["channels"] = checkpoint.channels
    if isinstance(trained.get("size"), int):  # of a square or cube, which the network knows
        del trained["size"]
    given = {f.name: getattr(data, f.name) for f in fields(data)}
    given = {name: value for name, value in given.items() if value is not None}
    return IncomingConfig(**{**trained, **form, **given})


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "hospital")]
    [True, True, True, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def token_for(host: str) -> str | None:
    """The token that requests must bear; None: none is needed.

    Raises:
        InputError: others than this machine reach the address, and there is no token; or it is one
            that can be guessed.
    """
    token = os.environ.get(TOKEN, "")
    if token and (len(token) < _TOKEN_LENGTH or not token.isascii() or not token.isprintable()):
        raise InputError(
            f"the token in {TOKEN} needs {_TOKEN_LENGTH} letters of ASCII or more: make one, "
            f"export {TOKEN}=$(openssl rand -hex 32)"
        )
    if not token and not is_loopback(host):
        raise InputError(
            f"serve.host={host} is reached from other machines, so a token is needed: export "
            f"{TOKEN}=$(openssl rand -hex 32), or listen at serve.host=127.0.0.1"
        )
    return token or None
