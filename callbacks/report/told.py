"""What all pages about runs tell: the settings, and how many resamples intervals are of."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

#: Resamples for the intervals of a page, where none were asked for.
_RESAMPLES = 500


def resamples(asked: int) -> int:
    """Resamples for the intervals of a run with a page, of which ``metrics.json`` has the same."""
    return asked or _RESAMPLES


def as_text(settings: Mapping[str, Any]) -> str:
    """The settings as YAML, without what may hold a password."""
    return OmegaConf.to_yaml(OmegaConf.create(shareable(settings)))


def shareable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without addresses and commands that may hold a password: a page is passed
    around.
    """
    guard = dict(settings["guard"])
    if guard.get("alert"):
        hidden = {key: "(set)" for key in ("url", "command") if guard["alert"].get(key) is not None}
        guard["alert"] = {**guard["alert"], **hidden}
    return {**settings, "guard": guard}


def about(settings: Mapping[str, Any]) -> dict[str, str]:
    """The run in a few words."""
    groups = ("data", "method", "stream", "shift", "guard")
    chosen = {name: str(settings[name]["kind"]) for name in groups}
    target = settings["data"].get("target")
    if target is not None:
        chosen["data"] += (
            f", target {', '.join(map(str, [target] if isinstance(target, str) else target))}"
        )
    return {**chosen, "seed": str(settings["seed"]), "source checkpoint": str(settings["source"])}
