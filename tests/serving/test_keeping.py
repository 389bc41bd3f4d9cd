"""A service that is stopped or killed goes on as if it had not been."""

import copy
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.callbacks.audit import Audit
from holdfast.callbacks.chained import Misfit, seal_of
from holdfast.callbacks.stream_checkpoint import changing
from holdfast.serving import engine
from holdfast.serving.config import configured
from holdfast.serving.journal import Journal, read
from holdfast.serving.lane import Item
from holdfast.serving.service import Service
from holdfast.tta.config import save
from holdfast.tta.csvfile import RowFile, read_rows
from holdfast.tta.errors import InputError, WriteError
from holdfast.tta.methods import Method
from holdfast.tta.normalization import BatchStatisticsError
from holdfast.tta.step import StepOutputs
from tests.conftest import file_limit

#: Files that end alike, byte for byte.
WRITTEN = ("predictions.csv", "trace.csv", "events.jsonl")


def images(count: int, seed: int = 0) -> torch.Tensor:
    """Noise that a network of the phantom takes; some of it bright, so that there are classes."""
    rng = np.random.default_rng(seed)
    low = rng.random((count, 1, 8, 8), dtype=np.float32) * rng.random((count, 1, 1, 1))
    return torch.nn.functional.interpolate(torch.from_numpy(low.astype(np.float32)), 32)


def items(batch: int, count: int = 8, channels: int = 3) -> list[Item]:
    shown = images(count, batch).expand(-1, channels, -1, -1).contiguous()
    return [
        Item(image, f"{batch}-{place}", {"group": "=1+1"}, received=1e9 + batch)
        for place, image in enumerate(shown)
    ]


def service(source: Path, folder: Path, *words: str) -> Service:
    folder.mkdir(exist_ok=True)
    config, checkpoint = configured(
        [f"source={source}", "serve.batch_size=8", "device=cpu", "method=tent", *words]
    )
    return Service(config, checkpoint, folder)


def begun(source: Path, folder: Path, *words: str) -> Service:
    made = service(source, folder, *words)
    made.keeper.start()
    return made


def end(one: Service) -> None:
    one.keeper.close(one.source, one.method)


GUARDED = ["guard.order=mixed", "serve.labels=true"]
CASES = {
    "window": [*GUARDED, "serve.window=16"],
    "unguarded": ["guard=off"],
    "guarded": GUARDED,
    "rotta": ["guard=off", "method=rotta"],
    "policy": ["guard=martingale"],
    "frozen": ["serve.adapt=false"],
}
QUICK_CASES = ("window", "unguarded")


@pytest.mark.parametrize(
    "case",
    [case if case in QUICK_CASES else pytest.param(case, marks=pytest.mark.slow) for case in CASES],
)
def test_a_killed_service_goes_on_as_if_it_had_not_been(
    case: str, source: Path, tmp_path: Path
) -> None:
    words = CASES[case]
    whole = begun(source, tmp_path / "whole", *words)
    expected = [whole.keeper.serve(items(batch)) for batch in range(7)]
    end(whole)

    there = tmp_path / "killed"
    killed = begun(source, there, *words)
    answers = [killed.keeper.serve(items(batch)) for batch in range(2)]
    killed.keeper.save()
    answers += [killed.keeper.serve(items(batch)) for batch in (2, 3)]
    with (there / "stream.journal").open("ab") as file:
        file.write(b'{"batch": 4, "shape": [8, 3, 32, 32], "images": [')  # torn, and never served
    again = begun(source, there, *words)  # nothing was closed
    assert again.engine.batch == 4
    answers += [again.keeper.serve(items(4))]
    end(again)
    last = begun(source, there, *words)
    answers += [last.keeper.serve(items(batch)) for batch in (5, 6)]
    end(last)
    assert answers == expected
    for name in WRITTEN:
        assert (there / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    rows = list(read_rows(there / "predictions.csv"))
    assert [row["id"] for row in rows] == [f"{b}-{place}" for b in range(7) for place in range(8)]
    assert {row["group"] for row in rows} == {"=1+1"}
    versions = {answer.weights for batch in expected for answer in batch}
    assert all(versions)
    assert len(versions) > 2 or case != "unguarded"
    save(last.config, there / "config.yaml", "serve.py")
    assert "56 predictions, 7 batches" in Audit(there).check()


def test_an_unguarded_answer_leaves_with_its_row_before_the_batch_is_learned_from(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = begun(source, tmp_path / "a", "guard=off")
    method, first, second = one.engine.model.module.method, items(0), items(1)

    def failing(loss: torch.Tensor) -> None:
        rows = list(read_rows(tmp_path / "a" / "predictions.csv"))
        assert [row["id"] for row in rows] == [item.id for item in first]
        assert [row["prediction"] for row in rows] == [i.answer.result(0).prediction for i in first]
        raise RuntimeError("learning failed")

    with monkeypatch.context() as patched:
        patched.setattr(method, "descend", failing)
        with pytest.raises(RuntimeError, match="learning failed"):
            one.keeper.serve(first)
    assert one.keeper.serve(second)[0].batch == first[0].answer.result(0).batch + 1
    assert one.engine.figures.skips == {"failed": 1}
    end(one)
    rows = list(read_rows(tmp_path / "a" / "trace.csv"))
    assert [(row["batch"], row["skipped"]) for row in rows] == [("0", "failed"), ("1", "")]
    save(one.config, tmp_path / "a" / "config.yaml", "serve.py")
    assert "16 predictions, 2 batches" in Audit(tmp_path / "a").check()


def test_a_killed_service_whose_learning_failed_says_the_same_again(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def failing(method: Method, loss: torch.Tensor) -> None:
        raise RuntimeError("learning failed")

    there = tmp_path / "a"
    one = begun(source, there, "guard=off")
    monkeypatch.setattr(Method, "descend", failing)
    with pytest.raises(RuntimeError, match="learning failed"):
        one.keeper.serve(items(0))
    before = {name: (there / name).read_bytes() for name in WRITTEN}
    again = begun(source, there, "guard=off")  # nothing was closed
    assert {name: (there / name).read_bytes() for name in WRITTEN} == before
    assert "batch 0 could not be learned from again" in caplog.text
    assert again.engine.batch == 1
    end(again)


def test_a_batch_that_failed_leaves_no_draws_and_no_images_behind(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = begun(source, tmp_path / "a", *GUARDED, "serve.window=16")
    one.keeper.serve(items(0))
    module, generator = one.engine.model.module, one.engine.model.module.method.generator

    def failing(batch: object) -> StepOutputs:
        torch.rand(1)
        torch.rand(1, generator=generator)
        raise RuntimeError("no memory")

    ids, drawn, own = list(one.engine.recent_ids), generator.get_state(), torch.get_rng_state()
    with monkeypatch.context() as patched:
        patched.setattr(module, "serve", failing)
        with pytest.raises(RuntimeError, match="no memory"):
            one.keeper.serve(items(1))
    assert one.engine.recent_ids == ids
    assert one.engine.recent is not None
    assert torch.equal(one.engine.recent, torch.stack([item.image for item in items(0)]))
    assert torch.equal(generator.get_state(), drawn)
    assert torch.equal(torch.get_rng_state(), own)
    answers = one.keeper.serve(items(2))
    expected = begun(source, tmp_path / "b", *GUARDED, "serve.window=16")
    expected.keeper.serve(items(0))
    assert answers == expected.keeper.serve(items(2))
    end(one)
    end(expected)


def after(given: Callable[..., Any]) -> Callable[..., Any]:
    """The same, which fails when all of it is done."""

    def failing(*args: Any, **more: Any) -> Any:
        given(*args, **more)
        raise RuntimeError("no memory")

    return failing


@pytest.mark.parametrize("where", ["update", "guard", "answers", "trace"])
@pytest.mark.parametrize(
    "case", ["window", pytest.param("guarded", marks=pytest.mark.slow), "policy"]
)
def test_a_batch_that_fails_before_it_is_answered_leaves_nothing_behind(
    case: str, where: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = begun(source, tmp_path / "a", *CASES[case])
    for batch in range(2):
        one.keeper.serve(items(batch))
    guard = one.engine.model.guard
    assert guard is not None
    place: tuple[Any, str] = {
        "update": (one.engine.model.module.method, "update"),
        "guard": (guard, "on_served"),
        "answers": (engine, "answers_of"),
        "trace": (one.engine.tracer, "on_served"),
    }[where]
    with monkeypatch.context() as patched:
        patched.setattr(*place, after(getattr(*place)))
        with pytest.raises(RuntimeError, match="no memory"):
            one.keeper.serve(items(2))
    answers = [one.keeper.serve(items(batch)) for batch in (3, 4)]
    expected = begun(source, tmp_path / "b", *CASES[case])
    for batch in range(2):
        expected.keeper.serve(items(batch))
    assert answers == [expected.keeper.serve(items(batch)) for batch in (3, 4)]
    end(one)
    end(expected)
    for name in WRITTEN:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_first_batch_that_fails_leaves_the_statistics_of_the_start(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, expected = (begun(source, tmp_path / name, *GUARDED) for name in "ab")
    module = one.engine.model.module
    with monkeypatch.context() as patched:
        patched.setattr(module, "serve", lambda batch: after(module.use)("source"))
        with pytest.raises(RuntimeError, match="no memory"):
            one.keeper.serve(items(0))
    now, start = (
        [layer.statistics for layer in each.engine.model.module.method.layers.values()]
        for each in (one, expected)
    )
    assert now == start
    assert one.keeper.serve(items(1)) == expected.keeper.serve(items(1))
    end(one)
    end(expected)


@pytest.mark.parametrize("method", ["tent", "eata", "dsbr"])
def test_an_answered_batch_that_fails_midway_teaches_nothing_live_or_restarted(
    method: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["guard=off", f"method={method}"]
    one = begun(source, tmp_path / "a", *words)
    one.keeper.serve(items(0))
    learner, second = one.engine.model.module.method, items(1)
    before = changing(one.engine.model.module)
    before = {name: copy.deepcopy(value) for name, value in before.items()}
    with monkeypatch.context() as patched:
        patched.setattr(learner, "update", after(learner.update))
        with pytest.raises(RuntimeError, match="no memory"):
            one.keeper.serve(second)
    assert all(item.answer.done() for item in second)
    same(changing(one.engine.model.module), before)
    one.keeper.idle()  # as the lane does between batches
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    again = begun(source, tmp_path / "b", *words)
    assert one.keeper.serve(items(2)) == again.keeper.serve(items(2))
    end(one)
    end(again)
    for name in WRITTEN:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def same(one: Any, other: Any) -> None:
    """Values that are equal to the last bit, however deep."""
    if isinstance(one, Mapping):
        assert one.keys() == other.keys()
        for key in one:
            same(one[key], other[key])
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_a_batch_that_was_not_served_is_not_served_in_the_place_of_the_next(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(batch: object) -> StepOutputs:
        raise RuntimeError("no memory")

    one = begun(source, tmp_path / "a", *GUARDED)
    with monkeypatch.context() as patched:
        patched.setattr(one.engine.model.module, "serve", failing)
        with pytest.raises(RuntimeError, match="no memory"):
            one.keeper.serve(items(0))
    answers = one.keeper.serve(items(1))
    again = begun(source, tmp_path / "a", *GUARDED)  # nothing was closed
    end(again)
    rows = list(read_rows(tmp_path / "a" / "predictions.csv"))
    assert [row["id"] for row in rows] == [answer.id for answer in answers]


def test_a_checkpoint_behind_a_batch_that_failed_is_tried_again_once_there_is_room(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = begun(source, tmp_path / "a", *GUARDED)
    with monkeypatch.context() as patched:
        patched.setattr(one.engine.model.module, "serve", after(one.engine.model.module.serve))
        with pytest.raises(RuntimeError, match="no memory"):
            one.keeper.serve(items(0))
    with file_limit(1000):
        one.keeper.idle()
    one.keeper.every = 0.0
    one.keeper.idle()
    again = begun(source, tmp_path / "a", *GUARDED)  # nothing was closed
    assert again.engine.batch == 0
    end(again)


def test_an_answer_that_left_stands_where_the_update_has_too_few_values(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(method: Method, loss: torch.Tensor) -> None:
        raise BatchStatisticsError("of a filtered batch one image is left")

    one = begun(source, tmp_path / "a", "guard=off")
    monkeypatch.setattr(Method, "descend", failing)
    assert {answer.served_by for answer in one.keeper.serve(items(0))} == {"adapted"}
    end(one)
    [row] = read_rows(tmp_path / "a" / "trace.csv")
    assert (row["served_by"], row["skipped"]) == ("adapted", "single_value")


def test_a_row_that_the_trace_of_a_service_lacks_is_found(source: Path, tmp_path: Path) -> None:
    one = begun(source, tmp_path / "a", "guard=off")
    for batch in range(3):
        one.keeper.serve(items(batch))
    end(one)
    save(one.config, tmp_path / "a" / "config.yaml", "serve.py")
    trace = tmp_path / "a" / "trace.csv"
    rows = list(read_rows(trace))
    for kept, found in ((rows[:2], ""), (rows[::2], "trace.csv has no row of batch 1")):
        file = RowFile(trace, seal_of(one.keeper.facts))  # anew, so that each follows the last
        file.write_header([column for column in rows[0] if column != "chain"])
        file.write([[cell for name, cell in row.items() if name != "chain"] for row in kept])
        file.close()
        if not found:  # as a kill leaves it
            assert "16 predictions, 2 batches" in Audit(tmp_path / "a").check()
        else:
            with pytest.raises(Misfit, match=found):
                Audit(tmp_path / "a").check()


def test_a_guard_reads_the_very_batch_that_was_served(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = begun(source, tmp_path / "a", *GUARDED)
    arrived: list[int] = []
    module = one.engine.model.module
    read = module.images_of
    monkeypatch.setattr(module, "images_of", lambda batch: arrived.append(1) or read(batch))
    one.keeper.serve(items(0))
    assert len(arrived) == 1  # candidates and control see what was looked through already
    end(one)


def test_a_guarded_answer_waits_for_the_guard(source: Path, tmp_path: Path) -> None:
    one = begun(source, tmp_path / "a", *GUARDED)
    given = items(0)
    one.keeper.serve(given)
    assert not any(item.answer.done() for item in given)  # the lane gives them out
    end(one)


def test_a_folder_of_another_service_is_refused(source: Path, tmp_path: Path) -> None:
    end(begun(source, tmp_path / "a"))
    with pytest.raises(InputError, match=r"of a service with other settings.*overwrite=true"):
        begun(source, tmp_path / "a", "serve.window=16")
    end(begun(source, tmp_path / "a", "serve.port=1234"))


def test_a_full_disk_serves_nobody_and_changes_nothing(source: Path, tmp_path: Path) -> None:
    one = begun(source, tmp_path / "a", "guard=off")
    before = one.keeper.serve(items(0))
    adapted = one.engine.model.module.method.adapted_state()
    weights = {name: value.clone() for name, value in adapted.items()}
    with file_limit(1000), pytest.raises(WriteError, match=r"stream\.journal"):
        one.keeper.serve(items(1))
    now = one.engine.model.module.method.adapted_state()
    assert weights
    assert all(torch.equal(value, now[name]) for name, value in weights.items())
    assert one.keeper.serve(items(1))[0].batch == before[0].batch + 1
    end(one)


def test_a_journal_gives_back_what_it_was_given(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    given = items(3, count=2)
    journal.add(3, given)
    journal.add(4, items(4, count=1))
    journal.close()
    first, second = read(tmp_path / "j")
    assert (first.batch, second.batch) == (3, 4)
    for one, other in zip(first.items, given, strict=True):
        assert torch.equal(one.image, other.image)
        assert (one.id, one.told, one.received) == (other.id, other.told, other.received)
    content = (tmp_path / "j").read_bytes()
    for cut in (len(content) - 1, len(content) // 2, 5):
        (tmp_path / "cut").write_bytes(content[:cut])
        assert len(list(read(tmp_path / "cut"))) == (cut > len(content) // 2)
    assert not list(read(tmp_path / "absent"))


@pytest.mark.parametrize(
    "head",
    [
        b"\0\0\0\0{}\n",
        b"no json\n",
        b"[]\n",
        b"{}\n",
        b'{"batch": 1, "shape": [-1, 3], "images": []}\n',
        b'{"batch": 1, "shape": [1, 3], "images": [["a", 1.0, []]]}\n',
        b"\xff\xfe\n",
    ],
)
def test_a_damaged_journal_gives_what_is_whole_before_it(
    head: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "j")
    journal.add(3, items(3, count=1))
    journal.close()
    content = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(content + head + content)
    assert [recorded.batch for recorded in read(tmp_path / "j")] == [3]
    assert f"j is damaged: what it holds from byte {len(content)} on" in caplog.text


@pytest.mark.parametrize("damage", [b"\xff\xfe\xfd", b"1,x", b'"""'])
def test_a_damaged_trace_is_told_in_a_sentence(damage: bytes, source: Path, tmp_path: Path) -> None:
    one = begun(source, tmp_path / "a", "guard=off")
    for batch in range(2):
        one.keeper.serve(items(batch))
    end(one)
    trace = tmp_path / "a" / "trace.csv"
    content = trace.read_bytes()
    start = content.index(b"\n") + 1
    trace.write_bytes(content[:start] + damage + content[start + len(damage) :])
    with pytest.raises(InputError, match=r"trace\.csv is damaged .*overwrite=true"):
        begun(source, tmp_path / "a", "guard=off")
