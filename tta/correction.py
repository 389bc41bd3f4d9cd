"""Normalisation statistics of a target stream, with its mix of classes explained away.

Batch statistics move for two reasons: the scanner changed, which normalisation should follow, and
the classes come in other shares than in training, which it should not. The source knows, for every
layer, what each class looks like there. So the moments that a stream shows are compared with those
that the source would show *at the same mix of predicted classes*; only what is left is taken for
the shift. The mix is the mean of what the network predicts under these statistics and the source's,
or what of it a site's own knowledge of its classes allows:

    mean = m₀ + (observed mean − Σ p_c m_c)
    variance = v₀ · observed variance / variance at the mix p

Means and mean squares of a mixture are linear in p, so observed moments and p may be averaged over
a long stretch of a stream, whatever the classes do meanwhile; and batches may be of any size.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.tta.distributed import mean_of_all
from holdfast.tta.normalization import named_adjustable_layers, seen_moments, statistics

#: Images that the source's own moments count for, at the start; and the most that the past counts
#: for. A batch of 64 thus moves the statistics half-way at first, and by an eightieth later. With a
#: memory of 1216, blocks of one class that last for 1600 images had replaced all else by the time
#: that they ended (11 points worse over three such streams of the phantom on average, within 2.2 on
#: 18 others).
_PRIOR, _MEMORY = 64.0, 4864.0
#: How far the predicted mix is drawn to equal shares before it is believed. At 0 a model that
#: wrongly calls most images one class explains the very shift away that misleads it; at 1 nothing
#: is explained away. Chosen on streams of nuclei, vessels, chest and phantom: at 1/3 balanced
#: streams lose little against batch statistics, skewed ones and class blocks gain most.
_SHRINKAGE = 1 / 3
#: Variances below this share of the source's are no variance but a constant input.
_SMALLEST = 1e-6
#: Shares below this one count as it: a class of which nothing was seen can be given a share.
_RARE = 1e-6
#: Moments that differ by less than this share of themselves are the same: rounding leaves 2e-7,
#: and no class is so like the mean of all others in every channel.
_SAME = 1e-4


class LabelCorrection(nn.Module):
    """Running moments of every layer's input, and of the predicted classes, turned into corrected
    statistics.

    All layers' channels lie one after the other, so that a batch takes a few operations, not some
    for each layer.

    Args:
        model: network whose BatchNorm layers are adjustable.
        moments: by layer, mean and mean square (2, C, channels) of its input for each class of the
            source.
    """

    def __init__(self, model: nn.Module, moments: Mapping[str, Tensor]) -> None:
        super().__init__()
        sources = {
            name: torch.stack([layer.running_mean.detach(), layer.running_var.detach()])
            for name, layer in named_adjustable_layers(model).items()
            if name in moments and layer.running_mean is not None and layer.running_var is not None
        }
        self.widths = {name: source.shape[1] for name, source in sources.items()}
        known = torch.cat([moments[name].float() for name in sources], 2)
        source = torch.cat([*sources.values()], 1)
        self.register_buffer("weight", torch.tensor(_PRIOR))
        #: The part of the moments and of the mix that is still the source's own.
        self.register_buffer("own", torch.tensor(1.0))
        own = _with_moments(known)
        self.all_known = bool(own.all())
        self.register_buffer("equal", own / own.sum(), persistent=False)
        self.register_buffer("mix", (own / own.sum()).clone())
        self.register_buffer("seen", known.mean(1))
        self.register_buffer("known", known, persistent=False)
        self.register_buffer("source", source, persistent=False)
        self.register_buffer("least", _SMALLEST * source[1], persistent=False)
        self.register_buffer("bounds", None, persistent=False)
        self.weight: Tensor
        self.own: Tensor
        self.equal: Tensor
        self.mix: Tensor
        self.seen: Tensor
        self.known: Tensor
        self.source: Tensor
        self.least: Tensor
        self.bounds: Tensor | None

    def expect_shares(self, bounds: Tensor | None) -> None:
        """Heed what is known of the stream: in the long run its mix lies within these.

        Args:
            bounds: (2, C) least and largest true share of each class; None: nothing is known.
        """
        self.bounds = None if bounds is None else bounds.to(self.mix)

    def probabilities(self, logits: Tensor) -> Tensor:
        """(N, C) probabilities among the classes of which the source has images: of the others
        nobody knows what they look like.

        Args:
            logits: (N, C).
        """
        logits = logits.to(self.mix.dtype)
        if not self.all_known:
            logits = logits.masked_fill(self.equal == 0, -torch.inf)
        return logits.softmax(1)

    @torch.no_grad()
    def after(self, seen: Mapping[str, Tensor], mix: Tensor) -> dict[str, Tensor]:
        """What the running state becomes with a batch, of all processes, which is not kept; the
        same where it is not finite.

        Args:
            seen: by layer, mean and mean square (2, channels) of the batch there.
            mix: (N, C), whose mean are the shares of the classes in the batch.
        """
        means = [mix.mean(0), torch.cat([seen[name] for name in self.widths], 1)]
        (predicted, moments), count = mean_of_all(means, len(mix))
        predicted, moments = predicted.to(self.mix), moments.to(self.seen)
        kept = self.weight.clamp(max=_MEMORY)
        finite = torch.cat([predicted, moments.flatten()]).isfinite().all()
        predicted, moments = (
            torch.where(finite, predicted, self.mix),
            torch.where(finite, moments, self.seen),
        )
        images = count * finite
        weight = kept + images
        share = images / weight
        drawn = torch.lerp(predicted, self.equal, _SHRINKAGE)
        return {
            "weight": weight,
            "own": torch.addcmul(self.own, self.own, share, value=-1),
            "mix": torch.lerp(self.mix, drawn, share),
            "seen": torch.lerp(self.seen, moments, share),
        }

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # A version before did not keep what is still the source's own.
        weight = state_dict.get(f"{prefix}weight")
        if weight is not None:
            state_dict.setdefault(f"{prefix}own", (_PRIOR / weight).clamp(max=1))
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def keep(self, state: Mapping[str, Tensor]) -> None:
        """Make a state from ``after`` the running one."""
        for name, value in state.items():
            self.get_buffer(name).copy_(value)

    @torch.no_grad()
    def statistics(self, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The corrected statistics, by the names of the layers' ``moving_mean`` and ``moving_var``
        in the model.

        Args:
            state: from ``after``; by default the running one.
        """
        now = state or {"mix": self.mix, "seen": self.seen, "own": self.own}
        mix, seen = now["mix"], now["seen"]
        if self.bounds is not None:
            mix = self._heeding(mix, now["own"], self.bounds)
        # In full precision wherever it is asked, or a run that is taken up would differ.
        with torch.autocast(self.known.device.type, enabled=False):
            expected = mix @ self.known
        mean, var = self.source
        means = (mean + seen[0] - expected[0]).split([*self.widths.values()])
        moments = torch.stack([seen, expected], 1)
        of_stream, of_mix = torch.maximum(moments[1] - moments[0].square(), self.least)
        variances = (var * of_stream / of_mix).split([*self.widths.values()])
        return {
            **{
                f"{name}.moving_mean": value for name, value in zip(self.widths, means, strict=True)
            },
            **{
                f"{name}.moving_var": value
                for name, value in zip(self.widths, variances, strict=True)
            },
        }

    def _heeding(self, mix: Tensor, own: Tensor, bounds: Tensor) -> Tensor:
        """A running mix, of which what the stream has shown lies within bounds. The rest, ``own``,
        is the source's, as in the moments that were seen.
        """
        shown = (mix - own * self.equal).clamp(min=0)
        shown = shown / shown.sum().clamp(min=_RARE)
        return torch.lerp(shares_within(shown, bounds), self.equal, own)


def shares_within(shares: Tensor, bounds: Tensor) -> Tensor:
    """The shares (C,) within bounds that are closest to these, as the Kullback-Leibler divergence
    measures it: all are multiplied by one number, and a class stops where it meets a bound.

    Args:
        shares: (C,) that sum to 1.
        bounds: (2, C) least and largest share of each class, which some shares lie within.

    Example:
        >>> bounds = torch.tensor([[0.9, 0.0, 0.0], [1.0, 1.0, 1.0]])
        >>> shares_within(torch.tensor([0.4, 0.4, 0.2]), bounds)
        tensor([0.9000, 0.0667, 0.0333])
    """
    low, high = bounds
    shares = shares.clamp(min=_RARE)
    # Between two of these numbers no class meets a bound, so that their sum is linear in it.
    meets = torch.cat([low / shares, high / shares]).sort().values
    sums = (shares * meets[:, None]).clamp(low, high).sum(1)
    last = len(meets) - 1
    after = torch.searchsorted(sums, torch.ones_like(sums[:1])).clamp(1, last)
    below, above = sums[after - 1], sums[after]
    part = ((1 - below) / (above - below).clamp(min=_RARE)).clamp(0, 1)
    return (shares * torch.lerp(meets[after - 1], meets[after], part)).clamp(low, high)


def _with_moments(known: Tensor) -> Tensor:
    """(C,) 1 for classes with moments of their own, 0 for those that were given the mean of all,
    since the source has no images of them.

    Args:
        known: (2, C, channels) moments of each class.
    """
    classes = known.shape[1]
    others = (known.sum(1, keepdim=True) - known) / max(classes - 1, 1)
    own = ((known - others).abs() > _SAME * known.abs().clamp(min=1)).any(2).any(0)
    return own.float() if own.any() else torch.ones(classes, device=known.device)


@torch.no_grad()
def class_conditional_moments(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    num_classes: int,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """What each class looks like to every BatchNorm layer of a source model, under the source's own
    statistics.

    Args:
        model: network whose BatchNorm layers are adjustable.
        batches: of labelled source images.
        num_classes: C.
        device: where the network is.

    Returns:
        By layer, mean and mean square (2, C, channels) of its input; empty for a network without
        such layers. A class without images gets the moments of all.
    """
    total: dict[str, Tensor] = {}
    counts = torch.zeros(num_classes)
    with statistics(model, "source"):
        for batch in batches:
            labels = batch["label"]
            for label in labels.unique().tolist():
                if label < 0:
                    continue
                rows = labels == label
                with seen_moments(model) as seen:
                    model(batch["image"][rows].to(device))
                counts[label] += int(rows.sum())
                for name, values in seen.items():
                    if name not in total:
                        total[name] = torch.zeros(2, num_classes, values[0].shape[1])
                    total[name][:, label] += int(rows.sum()) * values[0].cpu()
    absent = (counts == 0)[:, None]
    means = {name: value / counts.clamp(min=1)[:, None] for name, value in total.items()}
    return {
        name: torch.where(absent, value.sum(1, keepdim=True) / (counts > 0).sum(), value)
        for name, value in means.items()
    }
