"""What the examples look at: drawn cells of three shapes, and a plain torch network that tells them
apart.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = ("disc", "ring", "rod")


def cells(count: int, contrast: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images (count, 1, 20, 20) within 0..1, and their classes (count,); below contrast 1 under
    another microscope, blurred.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    labels = torch.randint(len(CLASSES), (count,), generator=generator)
    axis, angle = torch.arange(20) - 9.5, uniform(0, 3.14)
    x, y = axis[None, None, :] - uniform(-3, 3), axis[None, :, None] - uniform(-3, 3)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    distance, radius = torch.hypot(x, y), uniform(3, 5)
    shapes = [
        distance < radius,
        (distance - radius).abs() < 1,
        (along.abs() < radius) & (across.abs() < 1.5),
    ]
    images = torch.stack([shape.float() for shape in shapes])[
        labels, torch.arange(count)
    ] * uniform(0.5, 0.9)
    images = images[:, None] + 0.1 * torch.randn(count, 1, 20, 20, generator=generator)
    if contrast < 1:
        images = contrast * F.avg_pool2d(images, 3, stride=1, padding=1) + 0.75 * (1 - contrast)
        images += 0.03 * torch.randn(images.shape, generator=generator)
    return images.clamp(0, 1), labels


def trained(epochs: int = 6, seed: int = 0) -> nn.Sequential:
    """A network with BatchNorm and a Linear head, trained on cells under our microscope."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    network = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, len(CLASSES))
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    images, labels = cells(1500, seed=seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
    return network.eval()


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """In percent."""
    return 100 * float((predictions == labels).float().mean())
