"""Images on their way: all of a request's get into the lane, or none, and no place stays held."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from holdfast.datamodules.decoding import Unreadable
from holdfast.serving.coming import Coming
from holdfast.serving.lane import Closed, Item, Lane


def read(content: bytes) -> Tensor:
    if content == b"bad":
        raise Unreadable("is empty")
    if content == b"bug":
        raise RuntimeError("a bug")
    return torch.tensor([float(content)])


def ids_of(items: Sequence[Item]) -> list[Any]:
    return [(item.id, float(item.image), item.told) for item in items]


def lane() -> Lane:
    made = Lane(ids_of, lambda: None, size=4, most=4)
    made.start()
    return made


def sent(to: Lane, *contents: bytes, threads: int = 4) -> Coming:
    names = [f"{place}" for place in range(len(contents))]
    to.enter(len(contents))
    coming = Coming(to, read, names, [{"group": name} for name in names])
    with ThreadPoolExecutor(threads) as decoders:
        coming.start(decoders, contents)
    return coming


def test_images_stand_in_the_order_of_their_request_whichever_is_decoded_first() -> None:
    slow = threading.Event()

    def waiting(content: bytes) -> Tensor:
        assert content != b"0" or slow.wait(5)
        slow.set()
        return read(content)

    one = lane()
    one.enter(2)
    coming = Coming(one, waiting, ["a", "b"], [{}, {}])
    with ThreadPoolExecutor(2) as decoders:
        coming.start(decoders, [b"0", b"1"])
    assert [answer.result(5) for answer in coming.answers] == [("a", 0.0, {}), ("b", 1.0, {})]
    one.close(5)


@pytest.mark.parametrize(("bad", "error"), [(b"bad", Unreadable), (b"bug", RuntimeError)])
def test_one_that_cannot_be_read_keeps_all_out_and_leaves_their_places(
    bad: bytes, error: type[Exception]
) -> None:
    one = lane()
    coming = sent(one, b"0", bad, b"2")
    for answer in coming.answers:
        with pytest.raises(error, match="1 is empty" if error is Unreadable else "a bug"):
            answer.result(5)
    whole = sent(one, b"0", b"1", b"2", b"3")  # as many as have room
    assert whole.answers[3].result(5) == ("3", 3.0, {"group": "3"})
    one.close(5)


def test_those_that_come_when_the_service_stops_are_told() -> None:
    one = lane()
    one.enter(1)
    coming = Coming(one, read, ["a"], [{}])
    one.close(5)
    with ThreadPoolExecutor(1) as decoders:
        coming.start(decoders, [b"0"])
    with pytest.raises(Closed):
        coming.answers[0].result(5)


def test_what_nobody_waits_for_any_more_is_not_served() -> None:
    one = lane()
    one.enter(1)
    coming = Coming(one, read, ["a"], [{}])
    coming.answers[0].cancel()
    with ThreadPoolExecutor(1) as decoders:
        coming.start(decoders, [b"0"])
    assert sent(one, b"5").answers[0].result(5)[1] == 5.0
    one.close(5)
