"""Two real processes that share a batch learn what one process learns of all of it."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from holdfast.loop import guard
from holdfast.tta.distributed import joint_mean, place, total_of_all
from holdfast.tta.methods import Method, create_method
from holdfast.tta.normalization import choose_statistics, own_share
from tests.conftest import golden_network
from tests.test_resume import ended, forked

#: Batches of a stream, and images of each; the last one does not go round evenly.
SIZES = (16, 16, 16, 13)
CASES = [
    *[("tent", name) for name in ("batch", "blend", "robust", "source")],
    *[(name, "batch") for name in ("dsbr", "eta", "eata", "pseudo_label", "shot_im", "dot")],
]


def stream() -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [2 * torch.randn(count, 1, 12, 12, generator=draw) for count in SIZES]


def method_of(name: str, normalization: str) -> Method:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"optimizer": "sgd", "lr": 0.05, "normalization": normalization}
    if name == "pseudo_label":
        settings["threshold"] = 0.5
    if name in ("eta", "eata"):
        settings["entropy_margin"] = 1.2
    if name == "eata":
        affine = create_method("tent", golden_network(), num_classes=4).adapted
        settings["fisher"] = {key: torch.ones_like(value) for key, value in affine.items()}
    method = create_method(name, golden_network(), num_classes=4, **settings)
    average_gradients(method)
    return method


def average_gradients(method: Method) -> None:
    """As DDP does: the mean of all processes' gradients."""
    parameters = list(method.adapted.values())

    def backward(loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad.copy_(total_of_all(parameter.grad) / place()[1])

    method.backward = backward


def served(name: str, normalization: str) -> dict[str, Any]:
    """What this process's share of the stream is told, and the weights at the end."""
    method, (rank, size) = method_of(name, normalization), place()
    logits = [method(images[rank::size]).clone() for images in stream()]
    return {"logits": logits, "weights": method.adapted_state()}


def in_two(work: Callable[[], Any], folder: Path) -> list[Any]:
    """What two processes that share a run find."""

    def one(rank: int) -> int:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        meeting = f"file://{folder / 'meeting'}"
        dist.init_process_group(
            "gloo", meeting, rank=rank, world_size=2, timeout=timedelta(seconds=60)
        )
        torch.save(work(), folder / f"{rank}.pt")
        return 0

    children = [forked(lambda: one(0)), forked(lambda: one(1))]
    assert [ended(child) for child in children] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def test_they_learn_what_one_learns_of_the_joint_batch(tmp_path: Path) -> None:
    found = in_two(lambda: [served(*case) for case in CASES], tmp_path)
    start = method_of("tent", "batch").adapted_state()
    for number, case in enumerate(CASES):
        whole = served(*case)
        for rank in (0, 1):
            share = found[rank][number]
            for mine, joint in zip(share["logits"], whole["logits"], strict=True):
                torch.testing.assert_close(
                    mine, joint[rank::2], atol=1e-5, rtol=1e-5, msg=str(case)
                )
            for name, value in share["weights"].items():
                torch.testing.assert_close(
                    value, whole["weights"][name], atol=1e-5, rtol=1e-5, msg=f"{case} {name}"
                )
                assert torch.equal(value, found[0][number]["weights"][name])
        if case[0] != "shot_im":  # which adapts other tensors as well
            moved = [(whole["weights"][name] - value).abs().max() for name, value in start.items()]
            assert max(moved) > 1e-3, case


def arriving(batch: int) -> Tensor:
    """Images of classes that differ in brightness, in blocks; some are broken, and the scanner
    changes.
    """
    draw = torch.Generator().manual_seed(batch)
    kinds = torch.full((LAST if batch == ROUNDS - 1 else 64,), batch // 4 % 4)
    kinds[::3] = torch.randint(4, kinds[::3].shape, generator=draw)
    images = torch.randn(len(kinds), 1, 12, 12, generator=draw, dtype=torch.float64)
    images += kinds[:, None, None, None]
    if batch in BROKEN:
        images[5, 0, 3] = float("nan")  # which one process alone sees
    return images * (0.3 if batch > 11 else 1.0)


ROUNDS, BROKEN, LAST = 20, (2, 9), 41


def watched(name: str) -> list[dict[str, Any]]:
    """What a guard lets out of this process's share, in double precision, and why."""
    torch.manual_seed(0)
    network = golden_network().double()
    known = [(arriving(batch), torch.arange(64) % 4) for batch in range(100, 104)]
    method = create_method(name, network, num_classes=4, lr=0.01, normalization="auto")
    average_gradients(method)
    guarded, (rank, size) = guard(method, known), place()
    found = []
    for batch in range(ROUNDS):
        logits = guarded(arriving(batch)[rank::size])
        said = (guarded.verdict, guarded.mode, guarded.served_by, len(guarded.events))
        found.append({"probabilities": logits.softmax(1), "said": said})
    return found


def test_under_the_guard_they_say_what_one_says(tmp_path: Path) -> None:
    names = ("tent", "dsbr")
    found = in_two(lambda: [watched(name) for name in names], tmp_path)
    for number, name in enumerate(names):
        whole = watched(name)
        assert len({one["said"] for one in whole}) > 3, "the guard had nothing to do"
        for rank in (0, 1):
            for batch, (mine, joint) in enumerate(zip(found[rank][number], whole, strict=True)):
                assert mine["said"] == joint["said"], (name, batch)
                # Evidence is weighed in single precision.
                torch.testing.assert_close(
                    mine["probabilities"], joint["probabilities"][rank::2], atol=1e-6, rtol=0
                )


def test_a_process_with_one_value_per_channel_takes_part(tmp_path: Path) -> None:
    rows = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def slopes() -> Tensor:
        model = torch.nn.Sequential(torch.nn.BatchNorm1d(4)).double()
        choose_statistics(model, "moving")
        rank, size = place()
        own = rows[rank::size].clone().requires_grad_()
        model(own).pow(3).sum().backward()
        assert own.grad is not None
        return own.grad

    found, whole = in_two(slopes, tmp_path), slopes()
    for rank in (0, 1):
        torch.testing.assert_close(found[rank], whole[rank::2])


def test_sums_and_shares(tmp_path: Path) -> None:
    values = torch.arange(10.0)

    def work() -> list[Any]:
        rank, _ = place()
        mine = values[:3] if rank == 0 else values[3:]
        none = joint_mean(values[:0] if rank else values)
        method = method_of("tent", "batch")
        with own_share():
            alone = method.predict(stream()[0][rank::2]).logits.detach()
        return [joint_mean(mine), none, alone]

    for rank, (mean, none, alone) in enumerate(in_two(work, tmp_path)):
        assert float(mean) == float(none) == 4.5
        torch.testing.assert_close(alone, method_of("tent", "batch")(stream()[0][rank::2]))
