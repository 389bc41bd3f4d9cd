"""The optimiser and learning rate that ``auto`` stands for."""

from dataclasses import replace

from holdfast.tta.methods.settings import MethodConfig, UpdateConfig

_SMALL = 64  # images up to this side are small


def scaled(
    config: MethodConfig,
    *,
    model: str,
    size: tuple[int, ...],
    batch_size: int,
) -> MethodConfig:
    """Replace ``auto`` by the published scaling for the network, the image size and the batch size.

    Small images take Adam at 1e-3. Larger ones take the method's published optimiser; its rate
    holds for batches of 32 or more and shrinks in proportion below, and vision transformers take
    1e-3·N/64 (the protocol of SAR, ICLR 2023).

    Args:
        config: the method's options.
        model: the network's kind.
        size: sides of the images.
        batch_size: N.
    """
    if not isinstance(config, UpdateConfig):
        return config
    published = config.published
    small = max(size) <= _SMALL
    optimizer, lr = config.optimizer, config.lr
    if optimizer == "auto":
        optimizer = "adam" if small else published.optimizer
    if lr == "auto":
        if optimizer == "adam" and (small or published.optimizer != "adam"):
            lr = 1e-3
        elif model == "vit":
            lr = 1e-3 * batch_size / 64
        else:
            lr = published.lr if batch_size >= 32 else published.lr * 2 * batch_size / 64
    return replace(config, optimizer=optimizer, lr=lr)
