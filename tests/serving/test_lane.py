"""The queue before the model: bounded, in order, and not waiting for nobody."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from time import monotonic, sleep
from typing import Any

import pytest
import torch

from holdfast.serving.lane import Closed, Full, Item, Lane
from holdfast.tta.errors import WriteError


def item(name: str) -> Item:
    return Item(torch.zeros(1, 2, 2), name, {})


class Served:
    """Keeps what was served, and waits where it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, items: Sequence[Item]) -> Sequence[Any]:
        self.go.wait(10)
        self.batches.append([one.id for one in items])
        return self.batches[-1]


def lane(serve: Callable[[Sequence[Item]], Sequence[Any]], **more: Any) -> Lane:
    made = Lane(serve, lambda: None, **{"size": 4, "most": 8, **more})
    made.start()
    return made


def send(to: Lane, *names: str) -> list[Item]:
    items = [item(name) for name in names]
    to.enter(len(items))
    to.put(items)
    return items


def test_batches_are_full_and_in_order_and_a_lone_image_does_not_wait() -> None:
    serve = Served()
    one = lane(serve)
    began = monotonic()
    assert send(one, "first")[0].answer.result(5) == "first"
    assert monotonic() - began < 0.5
    serve.go.clear()
    items = send(one, "a") + send(one, "b", "c", "d") + send(one, "e", "f")
    serve.go.set()
    assert [one.answer.result(5) for one in items] == list("abcdef")
    one.close(5)
    assert [name for batch in serve.batches for name in batch] == ["first", *"abcdef"]
    assert max(map(len, serve.batches)) <= 4


def test_a_batch_waits_for_images_on_their_way_and_no_longer_than_it_may() -> None:
    serve = Served()
    one = lane(serve)
    one.enter(1)  # somebody's image is being read
    first = send(one, "a")[0]
    sleep(0.01)
    one.put([item("b")])
    first.answer.result(5)
    assert serve.batches == [["a", "b"]]
    one.enter(1)  # and this one never comes
    assert send(one, "c")[0].answer.result(5) == "c"
    one.close(5)

    patient = lane(serve, wait=0.2)
    began = monotonic()
    send(patient, "d")[0].answer.result(5)
    assert 0.15 < monotonic() - began < 3
    patient.close(5)


def test_a_full_queue_says_when_to_come_back_and_holds_no_place_for_who_left() -> None:
    serve = Served()
    one = lane(serve)
    serve.go.clear()
    items = send(one, "a")
    while one.waiting:  # until it is being served
        sleep(0.001)
    items += send(one, *"bcdefgh")
    one.enter(1)
    with pytest.raises(Full) as full:
        one.enter(1)
    assert 1 <= full.value.seconds <= 60
    one.leave(1)
    one.enter(1)
    items[3].answer.cancel()
    serve.go.set()
    with pytest.raises(CancelledError):
        items[3].answer.result(5)
    items[-1].answer.result(5)
    assert "d" not in [name for batch in serve.batches for name in batch]
    one.close(5)


def test_a_batch_that_fails_fails_alone() -> None:
    def serve(items: Sequence[Item]) -> Sequence[Any]:
        if items[0].id == "bad":
            raise ValueError("no")
        return [one.id for one in items]

    one = lane(serve)
    with pytest.raises(ValueError, match="no"):
        send(one, "bad")[0].answer.result(5)
    assert send(one, "good")[0].answer.result(5) == "good"
    one.close(5)


@pytest.mark.parametrize(
    ("error", "traced"), [(WriteError("the disk is full: make room"), False), (ValueError(), True)]
)
def test_a_traceback_is_shown_of_what_nobody_expected(
    caplog: pytest.LogCaptureFixture, error: Exception, traced: bool
) -> None:
    def fail(items: Sequence[Item]) -> Sequence[Any]:
        raise error

    one = lane(fail)
    assert send(one, "a")[0].answer.exception(5) is error
    one.close(5)
    assert (
        f"a batch of 1 images was not served{'' if traced else ': the disk is full'}" in caplog.text
    )
    assert ("Traceback" in caplog.text) == traced


def test_what_waits_is_served_before_the_end_and_nothing_comes_after() -> None:
    serve = Served()
    one = lane(serve)
    serve.go.clear()
    items = send(one, *"abcdef")
    threading.Timer(0.05, serve.go.set).start()
    one.close(5)
    assert [one.answer.result(0) for one in items] == list("abcdef")
    with pytest.raises(Closed):
        one.enter(1)
    assert not one.alive
