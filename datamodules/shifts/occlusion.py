"""What lies between an object and the lens: smoke, dust, hair. For 2D images."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor, nn

from holdfast.datamodules.shifts.geometry import pixels

_FINE = 4  # masks are drawn at four times the resolution, for soft edges


def smoke(image: Tensor, density: float, rng: np.random.Generator) -> Tensor:
    """A light haze of uneven thickness, up to ``density`` opaque: surgical smoke, a clouded lens or
    cornea.
    """
    haze = torch.zeros(image.shape[-2:])
    for cells, weight in ((3, 0.6), (6, 0.4)):
        grid = torch.from_numpy(rng.random((1, 1, cells, cells), dtype=np.float32))
        haze += (
            weight
            * nn.functional.interpolate(grid, haze.shape, mode="bicubic", align_corners=True)[0, 0]
        )
    opacity = density * (0.4 + 0.6 * haze).clamp(0, 1)
    return image * (1 - opacity) + 0.85 * opacity


def dust(image: Tensor, specks: float, rng: np.random.Generator) -> Tensor:
    """Dark specks out of focus, ``specks`` of them, of .8 to 2.5 pixels' radius on a side of 32."""
    mask, draw = _canvas(image)
    for x, y, size in rng.random(
        (int(specks), 3)
    ):  # as many more at higher severities, the first ones the same
        x, y, radius = x * mask.width, y * mask.height, _FINE * pixels(image, 0.8 + 1.7 * size)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return image * (1 - 0.85 * _soft(mask, image, 0.4))


def hair(image: Tensor, hairs: float, rng: np.random.Generator) -> Tensor:
    """Dark curved hairs across the image, ``hairs`` of them, .9 pixels wide on a side of 32."""
    mask, draw = _canvas(image)
    time = np.linspace(0, 1, 24)[:, None]
    scale = np.array([mask.width, mask.height])
    for start, middle, stop in 1.4 * rng.random((int(hairs), 3, 2)) - 0.2:
        curve = (1 - time) ** 2 * start + 2 * time * (1 - time) * middle + time**2 * stop
        draw.line(
            [*map(tuple, curve * scale)],
            fill=255,
            width=max(1, round(_FINE * pixels(image, 0.9))),
            joint="curve",
        )
    opacity = 0.95 * _soft(mask, image, 0.1)
    return image * (1 - opacity) + 0.08 * opacity


def _canvas(image: Tensor) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    height, width = image.shape[-2:]
    mask = Image.new("L", (_FINE * width, _FINE * height))
    return mask, ImageDraw.Draw(mask)


def _soft(mask: Image.Image, image: Tensor, blur: float) -> Tensor:
    """The mask at the image's resolution, blurred by ``blur`` pixels on a side of 32, as (H, W) of
    0..1.
    """
    height, width = image.shape[-2:]
    small = mask.resize((width, height), Image.Resampling.BOX)
    soft = small.filter(ImageFilter.GaussianBlur(pixels(image, blur)))
    return torch.from_numpy(np.asarray(soft, dtype=np.float32) / 255)
