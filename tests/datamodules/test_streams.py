"""Streams: every image as stated, proportions as asked, the same seed the same order, resumed
exactly, replayed exactly.
"""

import time
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from holdfast.datamodules import (
    STREAMS,
    ImageSet,
    Shift,
    StreamLoader,
    create_stream,
    load_images,
    stream_order,
)
from holdfast.datamodules.npz import NpzConfig
from holdfast.datamodules.phantom import PhantomConfig
from holdfast.datamodules.shifts import CORRUPTIONS
from holdfast.datamodules.streams import (
    BlocksConfig,
    ContinualConfig,
    DirichletConfig,
    GradualConfig,
    MixedConfig,
    PrevalenceConfig,
    RecurringConfig,
    ReplayConfig,
    StreamConfig,
    TimeConfig,
    class_index,
)
from holdfast.datamodules.streams.window import NewestOnly
from holdfast.datamodules.targets import LabelTarget
from holdfast.tta.errors import InputError
from tests.datamodules.test_npz import domain_arrays, saved

#: Options that a stream cannot do without, or that show more of it.
OPTIONS: dict[str, dict[str, Any]] = {
    "prevalence": {"prevalence": [0.6, 0.1, 0.2, 0.1]},
    "recurring": {"times": 2, "shifts": ["noise", "contrast"]},
    "mixed": {"shifts": ["noise", "blur"]},
}
#: What a stream shows of a target of n images, one pass: None where images are drawn with
#: replacement.
VISITS = {"prevalence": None, "recurring": 4}


def images(count: int = 300) -> ImageSet:
    rng = np.random.default_rng(0)
    names = np.arange(count).astype(str)
    return ImageSet(
        images=rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8),
        target=LabelTarget(np.arange(count) % 3, ("a", "b", "c")),
        ids=names,
        domains=np.full(count, "x"),
        groups=names,
    )


def labelled(labels: npt.NDArray[np.int64]) -> ImageSet:
    return replace(images(), target=LabelTarget(labels, ("a", "b", "c")))


@pytest.fixture
def phantom() -> ImageSet:
    """Two domains of the phantom with times, under a shift."""
    target = load_images(
        "phantom", PhantomConfig(target=["scanner_b", "scanner_c"], target_images=90), "target"
    )
    times = np.random.default_rng(0).permutation(len(target))
    return replace(target, transform=Shift((("brightness", 2),), seed=3), metadata={"time": times})


def configured(
    name: str, target: ImageSet, folder: Path, **more: Any
) -> tuple[StreamConfig, ImageSet]:
    """A stream that goes over a target; a replay replays a mixed stream of it, whose table holds
    the shift.
    """
    if name != "replay":
        return STREAMS[name](**{**OPTIONS.get(name, {}), **more}), target
    create_stream(MixedConfig(shifts=["noise", "blur"]), target, 7).save(
        folder / "mixed.csv", target
    )
    return ReplayConfig(path=str(folder / "mixed.csv"), **more), target.transformed(None)


@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_shows_images_as_stated(name: str, phantom: ImageSet, tmp_path: Path) -> None:
    for passes in (1, 2):
        config, target = configured(name, phantom, tmp_path, passes=passes)
        visits = VISITS.get(name, 1)
        order = stream_order(config, target, 0)
        if visits is None:
            assert len(order) == len(target) * passes
        else:
            assert (np.bincount(order, minlength=len(target)) == visits * passes).all()


@pytest.mark.parametrize("name", STREAMS)
def test_the_seed_decides_the_order(name: str, phantom: ImageSet, tmp_path: Path) -> None:
    config, target = configured(name, phantom, tmp_path)
    first, again, other = (stream_order(config, target, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (
        name in ("time", "replay")
    )  # which leave nothing to chance


def batches_of(target: ImageSet, stream: Any, **more: Any) -> StreamLoader:
    return StreamLoader(target, stream, 16, **more)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two batches hold the same, bit by bit."""
    assert first.keys() == second.keys()
    return all(
        torch.equal(v, second[k]) if isinstance(v, torch.Tensor) else v == second[k]
        for k, v in first.items()
    )


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_resumes_at_any_batch(
    name: str, window: int | None, phantom: ImageSet, tmp_path: Path
) -> None:
    config, target = configured(name, phantom, tmp_path)
    stream = create_stream(config, target, 0)
    loader = batches_of(target, stream, window=window)
    states, straight = [loader.state_dict()], []
    for batch in loader:
        straight.append(batch)
        states.append(loader.state_dict())
    assert (
        torch.cat([batch["index"][batch["seen_before"] :] for batch in straight]).tolist()
        == stream.rows.tolist()
    )
    for stop, state in enumerate(states):
        resumed = batches_of(target, create_stream(config, target, 0), window=window)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state == {"position": stop, "lost": []}
        rest = list(resumed) if stop in (3, len(straight)) else [next(iter(resumed))]
        assert all(
            same(*pair) for pair in zip(rest, straight[stop : stop + len(rest)], strict=True)
        )
        assert stop + len(rest) == len(straight) or len(rest) == 1


@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_is_saved_and_replayed(name: str, phantom: ImageSet, tmp_path: Path) -> None:
    config, target = configured(name, phantom, tmp_path)
    stream = create_stream(config, target, 0)
    stream.save(tmp_path / "stream.csv", target)
    bare = target.transformed(None)
    again = create_stream(ReplayConfig(path=str(tmp_path / "stream.csv")), bare, seed=5)
    assert np.array_equal(again.rows, stream.rows)
    assert [str(shift) for shift in again.shifts_of_items()] == [
        str(shift) for shift in stream.shifts_of_items()
    ]
    assert all(
        same(*pair)
        for pair in zip(batches_of(bare, again), batches_of(target, stream), strict=True)
    )
    again.save(tmp_path / "again.csv", bare)
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "stream.csv").read_text()


@pytest.mark.parametrize("passes", [1, 3])
def test_iid_shows_every_image_once_a_pass(passes: int) -> None:
    order = stream_order(StreamConfig(passes=passes), images(), seed=0)
    assert len(order) == 300 * passes
    for part in np.split(order, passes):
        assert sorted(part) == list(range(300))


@pytest.mark.parametrize(("label", "fraction"), [(0, 0.85), ("b", 0.85), (2, 0.0), (1, 1.0)])
def test_prevalence_is_exact_and_as_long_as_the_target(label: int | str, fraction: float) -> None:
    order = stream_order(PrevalenceConfig(label=label, fraction=fraction), images(), seed=0)
    assert len(order) == 300
    number = class_index(label, ("a", "b", "c"))
    assert (images().labels[order] == number).sum() == round(300 * fraction)


@pytest.mark.parametrize("shares", [[0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
def test_prevalence_takes_any_vector(shares: list[float]) -> None:
    order = stream_order(PrevalenceConfig(prevalence=shares), images(), seed=0)
    assert np.bincount(images().labels[order], minlength=3).tolist() == [
        round(300 * share) for share in shares
    ]


@pytest.mark.parametrize("passes", [1, 3])
def test_the_frequent_class_changes_once_in_the_middle_of_all_passes(passes: int) -> None:
    config = PrevalenceConfig(label="b", then=2, passes=passes)
    labels = images().labels[stream_order(config, images(), seed=0)]
    first, second = labels[: 150 * passes], labels[150 * passes :]
    assert len(labels) == 300 * passes
    assert (first == 1).sum() == (second == 2).sum() == round(0.85 * 150 * passes)
    assert (np.bincount(first, minlength=3) > 0).all()
    with pytest.raises(InputError, match="then goes with label"):
        PrevalenceConfig(then=1, prevalence=[0.5, 0.5])


def runs(values: Any) -> list[tuple[Any, int]]:
    """Each value with the length of its run."""
    return [(value, len(list(group))) for value, group in groupby(values)]


def test_blocks_show_every_image_once_a_class_at_a_time() -> None:
    order = stream_order(BlocksConfig(), images(), 0)
    assert sorted(order) == list(range(300))
    assert sorted(runs(images().labels[order].tolist())) == [(0, 100), (1, 100), (2, 100)]
    order = stream_order(BlocksConfig(blocks=4), images(), 0)
    assert sorted(order) == list(range(300))
    rounds = images().labels[order].reshape(12, 25)
    assert (rounds == rounds[:, :1]).all()
    assert all(set(part) == {0, 1, 2} for part in rounds[:, 0].reshape(4, 3))


@pytest.mark.parametrize("blocks", [1, 5])
def test_blocks_show_so_many_classes_at_a_time(blocks: int) -> None:
    order = stream_order(BlocksConfig(blocks=blocks, together=2), images(), 0)
    assert sorted(order) == list(range(300))
    for turn in (
        images().labels[order].reshape(blocks, -1)
    ):  # three classes: two at a time, then one
        pair, single = np.split(turn, [len(turn) * 2 // 3])
        assert (len(set(pair)), len(set(single))) == (2, 1)
        assert len(runs(pair)) > len(pair) / 4
    whole = stream_order(BlocksConfig(blocks=blocks, together=9), images(), 0)
    assert unevenness(images().labels[whole]) < 0.15


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_goes_over_every_shift(name: str, kind: str, tmp_path: Path) -> None:
    target = load_images(
        "phantom", PhantomConfig(target=["scanner_b", "scanner_c"], target_images=12), "target"
    )
    own = Shift(((kind, 2),), seed=4)
    target = replace(target, transform=own, metadata={"time": np.arange(12)})
    config, served = configured(name, target, tmp_path)
    stream = create_stream(config, served, 0)
    batch = next(iter(StreamLoader(served, stream, 4)))
    clean = target.transformed(None).batch(batch["index"].numpy())["image"]
    for image, before, name_, shift in zip(
        batch["image"], clean, batch["id"], stream.shifts_of_items(), strict=False
    ):
        assert isinstance(shift, Shift)
        assert (shift.seed, shift.parts[0][0]) == (4, kind)  # a ramp changes the severity alone
        assert torch.equal(image, shift(before, name_))


def test_a_million_images_are_no_burden() -> None:
    count = 1_000_000
    names = np.arange(count).astype(str)
    target = ImageSet(
        images=np.broadcast_to(np.zeros((1, 1, 1), np.uint8), (count, 1, 1)),
        target=LabelTarget(np.arange(count) % 10, tuple("abcdefghij")),
        ids=names,
        domains=np.where(np.arange(count) < count // 2, "x", "y"),
        groups=names,
        transform=Shift((("noise", 1),)),
        metadata={"time": -np.arange(count)},
    )
    start = time.process_time()
    for name, create in STREAMS.items():
        if name != "replay":
            stream = create_stream(create(), target, 0)
            loader = StreamLoader(target, stream, 64)
            loader.load_state_dict({"position": len(loader) - 1})
            assert next(iter(loader))["index"][-1] == stream.rows[-1]
    assert time.process_time() - start < 10  # two seconds


@pytest.mark.parametrize(
    ("delta", "low", "high"), [(1e-3, 0.8, 1.0), (0.1, 0.3, 1.0), (1e6, 0.0, 0.02)]
)
def test_dirichlet_shows_every_image_once_the_more_correlated_the_smaller_delta(
    delta: float, low: float, high: float
) -> None:
    distances = []
    for seed in range(5):
        config = DirichletConfig(delta=delta, slots=10)
        order = stream_order(config, images(3000), seed)
        assert sorted(order) == list(range(3000))
        distances.append(unevenness(images(3000).labels[order]))
    assert low <= np.mean(distances) <= high


def unevenness(labels: Any) -> float:
    """How far fifths of the stream are from equal shares: 0 if all have them, about 1 if each is of
    one class.
    """
    shares = np.stack(
        [np.bincount(part, minlength=3) / len(part) for part in np.array_split(labels, 5)]
    )
    return float(np.abs(shares - 1 / 3).sum(1).mean() / (4 / 3))


def test_recurring_visits_the_domains_in_turn_and_each_image_once_a_visit() -> None:
    target = replace(images(), domains=np.where(np.arange(300) < 120, "z", "y"))
    order = stream_order(RecurringConfig(times=3), target, 0)
    assert runs(target.domains[order]) == [("z", 120), ("y", 180)] * 3
    for visit in np.split(order, 3):
        assert sorted(visit) == list(range(300))
    assert not np.array_equal(order[:120], order[300:420])
    assert (
        len(stream_order(RecurringConfig(), images(), 0)) == 1500
    )  # one domain: the target repeated


def test_continual_goes_through_domains_or_shifts() -> None:
    target = replace(images(), domains=np.where(np.arange(300) < 120, "z", "y"))
    order = stream_order(ContinualConfig(), target, 0)
    assert runs(target.domains[order]) == [("z", 120), ("y", 180)]
    stream = create_stream(ContinualConfig(shifts=["noise", "blur"], severity=4), target, 0)
    assert runs(map(str, stream.shifts_of_items())) == [("noise4", 300), ("blur4", 300)]
    assert set(stream.domains(target)) == {"z noise4", "z blur4", "y noise4", "y blur4"}


def test_streams_add_their_shifts_to_that_of_the_run() -> None:
    target = images().transformed(Shift((("contrast", 1),), seed=9))
    stream = create_stream(ContinualConfig(shifts=["noise", "blur"]), target, 0)
    assert stream.shifts == (
        Shift((("contrast", 1), ("noise", 3)), 9),
        Shift((("contrast", 1), ("blur", 3)), 9),
    )
    batch = next(iter(StreamLoader(target, stream, 4)))
    clean = target.transformed(None).batch(batch["index"].numpy())["image"][0]
    assert torch.equal(batch["image"][0], stream.shifts[0](clean, batch["id"][0]))  # type: ignore[misc]


def test_mixed_shares_the_images_among_shifts() -> None:
    stream = create_stream(MixedConfig(shifts=["noise", "blur", "contrast"]), images(), 0)
    assert np.bincount(stream.which).tolist() == [100, 100, 100]  # type: ignore[arg-type]
    assert len(runs(map(str, stream.shifts_of_items()))) > 100


def test_gradual_ramps_up_and_down() -> None:
    stream = create_stream(
        GradualConfig(), images().transformed(Shift((("noise", 3), ("blur", 1)), 2)), 0
    )
    severities = [1, 2, 3, 4, 5, 4, 3, 2, 1]
    steps = runs(stream.shifts_of_items())
    assert [step for step, _ in steps] == [
        Shift((("noise", s), ("blur", s)), 2) for s in severities
    ]
    assert {count for _, count in steps} == {33, 34}
    stream = create_stream(GradualConfig(shifts=["noise", "blur"], severity=2), images(), 0)
    assert runs(map(str, stream.shifts_of_items())) == [
        (f"{k}{s}", 100) for k in ("noise", "blur") for s in (1, 2, 1)
    ]


@pytest.mark.parametrize(
    "times",
    [
        np.array([30, 4, 100]),
        np.array([0.3, -1.0, 2.0]),
        np.array(["9", "-1", "10"]),
        np.array(["2024-05", "2023", "2025"]),
    ],
)
def test_time_orders_numbers_and_dates(times: Any) -> None:
    target = replace(images(3), metadata={"when": times})
    assert stream_order(TimeConfig(column="when"), target, 0).tolist() == [1, 0, 2]


def test_a_file_with_times_is_read_in_their_order(tmp_path: Path) -> None:
    path = saved(tmp_path, {**domain_arrays(), "time": np.arange(40)[::-1]})
    target = load_images("npz", NpzConfig(path=path, target="there"), "target")
    assert target.ids[stream_order(TimeConfig(), target, 0)].tolist() == [
        str(i) for i in range(39, 19, -1)
    ]


def test_broken_images_of_a_window_are_told_by_their_new_numbers() -> None:
    for broken, expected in (([1, 3], [1]), ([0, 1], None), ([0, 1, 2, 3], [0, 1]), (None, None)):
        outputs: dict[str, Any] = {"logits": torch.arange(8).reshape(4, 2), "events": [1, 2, 3, 4]}
        outputs["broken"] = None if broken is None else torch.tensor(broken)
        batch = {"id": list("abcd"), "label": torch.arange(4), "seen_before": 2}
        NewestOnly().on_train_batch_end(*[None] * 2, outputs, batch, 0)  # type: ignore[arg-type]
        assert (batch["id"], outputs["logits"].tolist(), len(outputs["events"])) == (
            ["c", "d"],
            [[4, 5], [6, 7]],
            4,
        )
        assert (None if outputs["broken"] is None else outputs["broken"].tolist()) == expected


def test_a_window_slides_over_the_newest_images() -> None:
    order = np.arange(7)
    batches = list(StreamLoader(images(7), order, 1, window=3))
    assert [b["index"].tolist() for b in batches] == [
        [0],
        [0, 1],
        [0, 1, 2],
        [1, 2, 3],
        [2, 3, 4],
        [3, 4, 5],
        [4, 5, 6],
    ]
    assert [b["seen_before"] for b in batches] == [0, 1, 2, 2, 2, 2, 2]
    pairs = list(StreamLoader(images(7), order, 2, window=4))
    assert [b["index"].tolist() for b in pairs] == [
        [0, 1],
        [0, 1, 2, 3],
        [2, 3, 4, 5],
        [3, 4, 5, 6],
    ]
    assert [b["seen_before"] for b in pairs] == [0, 2, 2, 3]


def test_a_table_of_ids_alone_is_a_stream(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("id,shift,severity\n7,,\n3,blur,\n7,noise+blur,1+5\n")
    stream = create_stream(ReplayConfig(path=str(tmp_path / "ids.csv")), images(), 0)
    assert stream.rows.tolist() == [7, 3, 7]
    assert stream.shifts_of_items() == [
        None,
        Shift((("blur", 3),)),
        Shift((("noise", 1), ("blur", 5))),
    ]


def test_ids_that_are_not_unique_are_told_apart_by_row(tmp_path: Path) -> None:
    target = replace(images(4), ids=np.array(["p", "p", "q", "q"]))
    stream = create_stream(StreamConfig(), target, 0)
    stream.save(tmp_path / "stream.csv", target)
    assert np.array_equal(
        create_stream(ReplayConfig(path=str(tmp_path / "stream.csv")), target, 0).rows, stream.rows
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"columns \(none\): expected position, row, id"),
        ("name\n1\n", "columns name: expected"),
        ("id\n", "has no items"),
        ("id\n1\nx\n", "line 3: the target has no image 'x'"),
        ("id,shift,severity\n1,blur,hard\n", "line 2: shift 'blur' with severity 'hard'"),
        ("id,shift,severity\n1,noise+blur,3\n", "is not of the form"),
        ("id,shift,severity\n1,blurr,3\n", "did you mean blur"),
        ("id,shift,severity\n1,blur,9\n", "outside 1..5"),
    ],
)
def test_wrong_tables_are_refused_in_a_sentence(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        create_stream(ReplayConfig(path=str(tmp_path / "table.csv")), images(), 0)


def test_the_loader_serves_the_order_and_resumes_exactly() -> None:
    order = stream_order(StreamConfig(), images(), 0)
    loader = StreamLoader(images(), order, 64)
    batches = list(loader)
    assert [len(batch["id"]) for batch in batches] == [64, 64, 64, 64, 44]
    assert len(loader) == 5
    assert torch.cat([batch["index"] for batch in batches]).tolist() == order.tolist()
    iterator = iter(loader)
    for _ in range(2):
        next(iterator)
    resumed = StreamLoader(images(), order, 64)
    resumed.load_state_dict(loader.state_dict())
    assert [batch["id"] for batch in resumed] == [batch["id"] for batch in batches[2:]]
    assert len(list(resumed)) == 5  # and the next time from the start


@pytest.mark.parametrize("workers", [0, 2])
def test_bytes_travel_as_bytes_and_are_scaled_where_they_arrive(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, order = replace(images(), low=3.0, high=200.0), np.arange(100)
    arrived = []
    scale = ImageSet.scale

    def seen(self: ImageSet, raw: torch.Tensor) -> torch.Tensor:
        arrived.append(raw.dtype)
        return scale(self, raw)

    monkeypatch.setattr(ImageSet, "scale", seen)
    there = StreamLoader(target, order, 32, workers=workers, device="cpu")
    shown = [batch["image"] for batch in there]
    assert arrived == [torch.uint8] * len(shown)  # in this process
    monkeypatch.undo()
    here = [batch["image"] for batch in StreamLoader(target, order, 32)]
    for one, other in zip(shown, here, strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


def test_what_is_shifted_is_scaled_before_it_travels() -> None:
    target = images().transformed(Shift((("contrast", 3),), 0))
    pairs = zip(
        StreamLoader(target, np.arange(64), 32, device="cpu"),
        StreamLoader(target, np.arange(64), 32),
        strict=True,
    )
    assert all(torch.equal(one["image"], other["image"]) for one, other in pairs)


def test_workers_serve_the_same_batches() -> None:
    order = stream_order(StreamConfig(), images(), 0)
    alone, helped = StreamLoader(images(), order, 64), StreamLoader(images(), order, 64, workers=2)
    for first, second in zip(alone, helped, strict=True):
        assert torch.equal(first["image"], second["image"])


def test_bad_streams() -> None:
    with pytest.raises(InputError, match="no images"):
        stream_order(StreamConfig(), images(0), 0)
    with pytest.raises(InputError, match="labelled images of a"):
        stream_order(PrevalenceConfig(), labelled(np.full(300, -1)), 0)
    with pytest.raises(InputError, match="none of the classes: a, b, c"):
        stream_order(PrevalenceConfig(label=3), images(), 0)
    partly = labelled(np.where(np.arange(300) < 7, -1, 0))
    for name in ("blocks", "dirichlet"):
        with pytest.raises(
            InputError,
            match=f"stream={name} orders images by class, but 7 of the target's 300 have no label",
        ):
            stream_order(STREAMS[name](), partly, 0)
    for create, bad in (
        (StreamConfig, {"batch_size": 0}),
        (StreamConfig, {"passes": 0}),
        (BlocksConfig, {"blocks": 0}),
        (BlocksConfig, {"together": 0}),
        (DirichletConfig, {"slots": 0}),
        (RecurringConfig, {"times": 0}),
    ):
        with pytest.raises(InputError, match="at least 1"):
            create(**bad)
    with pytest.raises(InputError, match="must be above 0"):
        DirichletConfig(delta=0)
    for config, message in (
        (
            ContinualConfig(),
            r"stream=continual needs several domains in the target, and it has one \(x\)",
        ),
        (MixedConfig(), "stream=mixed needs several domains"),
        (GradualConfig(), "ramps the severity of a shift: choose one"),
        (TimeConfig(), "no column 'time' to order by"),
        (ReplayConfig(), "stream.path is missing"),
        (ReplayConfig(path="absent.csv"), "cannot be read"),
        (
            PrevalenceConfig(prevalence=[0.5, 0.5]),
            "2 shares for 3 classes: give one for each of a, b, c",
        ),
    ):
        with pytest.raises(InputError, match=message):
            create_stream(config, images(), 0)
    with pytest.raises(InputError, match="empty for 2 of the target's 3 images"):
        create_stream(
            TimeConfig(), replace(images(3), metadata={"time": np.array(["", "4", ""])}), 0
        )
    with pytest.raises(InputError, match="takes its shifts from the table"):
        create_stream(ReplayConfig(path="x.csv"), images().transformed(Shift((("blur", 1),))), 0)
    with pytest.raises(InputError, match=r"stream.window=8 must be at least stream.batch_size=64"):
        StreamConfig(window=8)
    for shares in ([0.5, 0.4], [1.5, -0.5], []):
        with pytest.raises(InputError, match="that sum to 1"):
            PrevalenceConfig(prevalence=shares)
    with pytest.raises(InputError, match="did you mean noise"):
        MixedConfig(shifts=["nois"])
    with pytest.raises(InputError, match=r"severity 9 of shift blur is outside 1\.\.5"):
        ContinualConfig(shifts=["blur"], severity=9)
    with pytest.raises(InputError, match=r"stream\.shifts is empty"):
        ContinualConfig(shifts=[])
    with pytest.raises(InputError, match="outside"):
        PrevalenceConfig(fraction=1.5)


def test_a_class_may_be_called_as_the_others_are() -> None:
    target = images()
    named = replace(target, target=replace(target.target, names=("a", "other classes", "c")))
    rows = create_stream(PrevalenceConfig(label="other classes"), named, 0).rows
    assert (named.target.labels[rows] == 1).mean() == pytest.approx(0.85, abs=0.01)


def test_what_is_held_is_given_raw_under_no_transform() -> None:
    target = images().transformed(Shift((("contrast", 3),), 0))
    raw = target.batch([0, 1], raw=True)["image"]
    assert raw.dtype == torch.uint8
    assert torch.equal(target.scale(raw), target.transformed(None).batch([0, 1])["image"])
