"""Adaptation methods: one a file, one entry each in ``METHODS``."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import nn

from holdfast.tta.errors import InputError
from holdfast.tta.expected import closest
from holdfast.tta.methods.adami import AdaMI
from holdfast.tta.methods.alpha_norm import AlphaNorm
from holdfast.tta.methods.base import Method, Prediction, Update
from holdfast.tta.methods.cmf import CMF
from holdfast.tta.methods.come import ComeEATA, ComeSAR, ComeTent
from holdfast.tta.methods.cotta import CoTTA
from holdfast.tta.methods.deyo import DeYO
from holdfast.tta.methods.dot import DOT
from holdfast.tta.methods.dsbr import DSBR
from holdfast.tta.methods.eata import EATA
from holdfast.tta.methods.eta import ETA
from holdfast.tta.methods.grata import GraTa
from holdfast.tta.methods.intent import InTEnt
from holdfast.tta.methods.lame import LAME
from holdfast.tta.methods.memo import MEMO
from holdfast.tta.methods.norm import Norm
from holdfast.tta.methods.norm_ema import NormEMA
from holdfast.tta.methods.petta import PeTTA
from holdfast.tta.methods.poem import POEM
from holdfast.tta.methods.pseudo_label import PseudoLabel
from holdfast.tta.methods.rdumb import RDumb
from holdfast.tta.methods.roid import ROID
from holdfast.tta.methods.rotta import RoTTA
from holdfast.tta.methods.sar import SAR
from holdfast.tta.methods.settings import MethodConfig, UpdateConfig, check_words
from holdfast.tta.methods.shot_im import SHOTIM
from holdfast.tta.methods.sictta import SicTTA
from holdfast.tta.methods.source import Source
from holdfast.tta.methods.t3a import T3A
from holdfast.tta.methods.tent import Tent
from holdfast.tta.methods.vptta import VPTTA
from holdfast.tta.registry import Registry
from holdfast.tta.tasks import Task, create_task

__all__ = [
    "HYPERPARAMETERS",
    "METHODS",
    "Method",
    "MethodConfig",
    "Prediction",
    "Update",
    "UpdateConfig",
    "create_method",
    "register_method",
]

_OURS: dict[str, type[Method]] = {
    "source": Source,
    "norm": Norm,
    "alpha_norm": AlphaNorm,
    "norm_ema": NormEMA,
    "tent": Tent,
    "pseudo_label": PseudoLabel,
    "shot_im": SHOTIM,
    "dot": DOT,
    "dsbr": DSBR,
    "eta": ETA,
    "eata": EATA,
    "sar": SAR,
    "deyo": DeYO,
    "come": ComeTent,
    "come_eata": ComeEATA,
    "come_sar": ComeSAR,
    "roid": ROID,
    "cmf": CMF,
    "cotta": CoTTA,
    "rotta": RoTTA,
    "petta": PeTTA,
    "rdumb": RDumb,
    "poem": POEM,
    "memo": MEMO,
    "lame": LAME,
    "t3a": T3A,
    "intent": InTEnt,
    "grata": GraTa,
    "adami": AdaMI,
    "vptta": VPTTA,
    "sictta": SicTTA,
}


def _check(name: str, method: Any) -> None:
    """Refuse what is no method, before a command line or a table meets it."""
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise InputError(
            f"{method!r} is no method: make it a subclass of holdfast.tta.methods.Method"
        )
    if not (is_dataclass(method.Config) and issubclass(method.Config, MethodConfig)):
        raise InputError(
            f"{method.__name__}.Config must be a dataclass, and a subclass of MethodConfig or "
            "UpdateConfig"
        )
    for field in fields(method.Config):
        if "help" not in field.metadata:
            raise InputError(
                f"{method.Config.__name__}.{field.name} needs a default and a sentence for --help: "
                f"write {field.name}: TYPE = holdfast.tta.options.option(DEFAULT, SENTENCE)"
            )


#: Methods by name: ours, registered ones, and entry points of the group ``holdfast.methods``.
METHODS: Registry[type[Method]] = Registry("method", "holdfast.methods", _OURS, _check)
#: The dataclass of each one's hyperparameters, by name, as configurations take it.
HYPERPARAMETERS: Mapping[str, type[MethodConfig]] = METHODS.view(lambda method: method.Config)
register_method = METHODS.register


def create_method(
    name: str | type[Method],
    model: nn.Module,
    *,
    num_classes: int,
    head: str | None = None,
    task: str | Task | type[Task] = "single",
    **hyperparameters: Any,
) -> Method:
    """Wrap a source model into an adaptation method.

    Args:
        name: a key of ``METHODS``, or a method's class.
        model: network from images to logits (N, C), or one logit for two classes; it holds the
            source's weights, and is adapted in place. Of task=segmentation it answers (N, C,
            height, width, …), or one logit for two classes, of multilabel (N, L).
        num_classes: number of classes C, the background among them, or of findings L.
        head: module whose input counts as features; the last Linear, or of task=segmentation the
            last convolution of C outputs, by default.
        task: what the network's answer means: a key of ``TASKS``, a task, or its class.
        **hyperparameters: fields of the method's ``Config``, and what it ``uses`` of the source's
            statistics. What programs would choose by network and images (``auto``) is as
            published here, unless it is given.

    Raises:
        InputError: an unknown method, task or hyperparameter, a value out of range, a missing
            source statistic, a model that cannot be adapted, or a task that the method cannot do.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2))
        >>> method = create_method("tent", model, num_classes=2, lr=0.01)
        >>> method(torch.zeros(4, 3)).shape
        torch.Size([4, 2])
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"the model is no torch.nn.Module but {type(model).__name__}: give the network itself, "
            "its weights loaded"
        )
    if isinstance(name, str):
        METHODS.refuse_unknown(name)
    elif not isinstance(name, type) or not issubclass(name, Method):
        raise InputError(f"a method is a name such as tent, or a class of one, and not {name!r}")
    method = METHODS[name] if isinstance(name, str) else name
    called = name if isinstance(name, str) else name.__name__
    known = [field.name for field in fields(method.Config)]
    for key in hyperparameters:
        if key not in known and key not in method.uses:
            raise InputError(
                f"{called} has no hyperparameter {key!r}: {closest(key, [*known, *method.uses])}"
            )
    chosen = create_task(task, num_classes)
    facts = {key: hyperparameters.pop(key) for key in method.uses if key in hyperparameters}
    check_words(method.Config, hyperparameters)
    try:
        config = method.Config.as_published(**hyperparameters)
        return method(model, num_classes, config, head=head, known=facts, task=chosen)
    except InputError as error:  # options say method.NAME=, as on the command line
        raise InputError(str(error).replace("method.", "")) from None
