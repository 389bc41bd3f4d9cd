"""The front door: names, values in, results out, and a guarded method in a plain loop."""

import doctest
import gc
import importlib
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import holdfast
from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import AdaptConfig, completed
from holdfast.programs import adapt as program
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.config import to_dict
from holdfast.tta.errors import InputError
from holdfast.tta.methods.tent import Tent
from tests.conftest import ACCELERATOR, QUICK, ROOT, small_network

SILENT: dict[str, Any] = {
    "trainer": {"enable_progress_bar": False, "accelerator": ACCELERATOR},
    "wandb": {"mode": "disabled"},
}
#: Modules whose docstrings show what a user calls.
SHOWN = (
    *("holdfast", "holdfast.loop", "holdfast.api"),
    *("holdfast.tta.methods", "holdfast.tta.config", "holdfast.tta.batches"),
    *("holdfast.callbacks.columns", "holdfast.callbacks.trajectory"),
)


def test_the_front_door_is_open_at_once_and_torch_is_left_for_later() -> None:
    code = "import sys, holdfast; assert 'torch' not in sys.modules; print(*dir(holdfast))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(holdfast.__all__) <= set(done.stdout.split())
    for name in holdfast.__all__:
        assert getattr(holdfast, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'adopt'"):
        _ = holdfast.adopt


@pytest.mark.parametrize("name", SHOWN)
def test_what_docstrings_show_is_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed


def test_python_serves_what_the_command_serves(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["notebook", "--no-such=thing"])
    command, python = tmp_path / "command", tmp_path / "python"
    words = [f"source={source}", *QUICK, "method=tent", "method.lr=1e-3", f"output={command}"]
    assert program.main(words) == 0
    capfd.readouterr()
    result = holdfast.adapt(
        source=source, method="tent", output=python, **{"method.lr": 1e-3}, **SILENT
    )
    assert capfd.readouterr().out == ""  # a library speaks when it is asked
    assert result.folder == python
    assert "balanced accuracy" in repr(result)
    for name in ("predictions.csv", "trace.csv", "events.jsonl", "config.yaml"):
        ours, theirs = ((folder / name).read_text() for folder in (python, command))
        assert ours.partition("\n")[2] == theirs.partition("\n")[2], name
    served = result.predictions
    assert len(served["id"]) == len(set(served["id"])) == 500
    assert all(0 <= share <= 1 for share in served["confidence"])
    assert len(result.trace["batch"]) == result.metrics["batches"] == 8
    assert {event["event"] for event in result.events} <= {"mode", "verdict", "skipped"}
    assert (
        result.state.keys()
        == torch.load(python / "adapted.ckpt", weights_only=True)["state"].keys()
    )


def test_the_checkpoint_is_read_once_a_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str | Path] = []
    load = SourceCheckpoint.load

    def counted(path: str | Path, *others: Any) -> SourceCheckpoint:
        read.append(path)
        return load(path, *others)

    monkeypatch.setattr(SourceCheckpoint, "load", counted)
    words = [f"source={source}", *QUICK, "data.target_images=128", "preflight=report"]
    assert program.main([*words, f"output={tmp_path}"]) == 0
    assert read == [str(source)]


def test_values_come_in_any_form_that_python_has(source: Path) -> None:
    given: list[dict[str, Any]] = [
        {"method": "tent", "method.lr": 0.5},
        {"method.lr": 0.5, "method": "tent"},
        {"method": {"kind": "tent", "lr": 0.5}},
        {"method": Tent.Config(optimizer="auto", lr=0.5, normalization="auto")},
    ]
    first, *others = (
        to_dict(completed(AdaptConfig, {"source": source, **options})[0]) for options in given
    )
    assert first["method"]["lr"] == 0.5
    assert all(other == first for other in others)
    half_made = AdaptConfig(source=str(source), method="tent", trainer={"accelerator": "cpu"})
    again = completed(AdaptConfig, to_dict(completed(AdaptConfig, {"source": source})[0]))[0]
    assert to_dict(again) == to_dict(completed(AdaptConfig, {"source": source})[0])
    with pytest.raises(InputError, match=r"check=only and preflight=only"):
        holdfast.adapt(half_made, preflight="only")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "source is missing"),
        ({"source": "here", "metod": "tent"}, "does not exist|no such|nothing"),
        ({"method": "tnet"}, "did you mean tent"),
        ({"method.lrr": 1}, "did you mean"),
        ({"trainer": {"max_steps": 3}}, "would change what is served"),
    ],
)
def test_a_mistake_is_one_sentence_and_no_exit(
    source: Path, options: dict[str, Any], says: str
) -> None:
    where = {} if not options or "source" in options else {"source": source}
    with pytest.raises(InputError, match=says):
        holdfast.adapt(**where, **options)


def test_a_plain_loop_serves_what_the_trainer_serves(source: Path, tmp_path: Path) -> None:
    options = {"kind": "tent", "optimizer": "adam", "lr": 1e-3}
    result = holdfast.adapt(source=source, method=options, output=tmp_path / "run", **SILENT)
    checkpoint = holdfast.load_source(source)
    assembly = Assembly.of(*completed(AdaptConfig, {"source": source, "method": options}))
    assembly.seed()
    method = holdfast.create_method(
        "tent",
        checkpoint.build(),
        num_classes=len(checkpoint.class_names),
        optimizer="adam",
        lr=1e-3,
        normalization="auto",
    )
    guarded = holdfast.guard(method, source=source)
    rows = []
    for batch in assembly.loader:
        probabilities = guarded(batch["image"], batch["id"]).softmax(1)
        rows += [round(value, 6) for value in probabilities.max(1).values.tolist()]
    if ACCELERATOR == "cpu":
        assert rows == result.predictions["confidence"]
    assert guarded.events == result.events
    assert guarded.mode == result.trace["mode"][-1]


def cells(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 12, 12) of four classes, by where the bright quarter is, and their labels."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    images = 0.3 * torch.randn(count, 1, 12, 12, generator=draw)
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = 6 * (label // 2), 6 * (label % 2)
        image[:, top : top + 6, left : left + 6] += 1
    return images, labels


def trained() -> nn.Module:
    """A small network that knows the classes of ``cells``."""
    torch.manual_seed(0)
    model = small_network()
    images, labels = cells(512, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(5):
        for part, known in zip(images.split(64), labels.split(64), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(part), known).backward()
            optimizer.step()
    return model.eval()


def test_any_network_is_guarded_in_a_plain_loop() -> None:
    known = [(images, labels) for images, labels in [cells(256, seed=1)]]
    images, labels = cells(1280, seed=2)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(9))
    images = 0.6 * images + 0.5 * noise
    right = {}
    for name in ("alone", "guarded"):
        method = holdfast.create_method(
            "tent", trained(), num_classes=4, optimizer="sgd", lr=5.0, momentum=0.9
        )
        serve = holdfast.guard(method, source=known) if name == "guarded" else method
        served = torch.cat([serve(part).argmax(1) for part in images.split(64)])
        right[name] = float((served == labels)[640:].float().mean())
    assert right["alone"] < 0.3 < 0.6 < right["guarded"]
    assert serve.mode in ("resting", "holding", "frozen", "hedging", "adapting")
    assert any(event["event"] == "correction" for event in serve.events)


def test_a_plain_loop_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    known = [cells(256, seed=1)]
    batches = list((0.8 * cells(640, seed=3)[0]).split(64))

    def new() -> Any:
        torch.manual_seed(1)
        method = holdfast.create_method(
            "cotta", trained(), num_classes=4, optimizer="adam", lr=1e-3
        )
        return holdfast.guard(method, source=known)

    whole = new()
    expected = [whole(batch) for batch in batches]
    first = new()
    for batch in batches[:5]:
        first(batch)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = new()
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for batch, logits in zip(batches[5:], expected[5:], strict=True):
        assert torch.equal(second(batch), logits)


def test_a_source_that_says_nothing_is_refused_or_told(source: Path, caplog: Any) -> None:
    images, labels = cells(64, seed=1)
    images[0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        holdfast.guard(
            holdfast.create_method("tent", small_network(), num_classes=4),
            source=[(images, labels)],
        )
    method = holdfast.create_method("tent", small_network(), num_classes=4, normalization="auto")
    with pytest.raises(InputError, match="of another network"):
        holdfast.guard(method, source=source)
    images, labels = cells(64, seed=1)
    holdfast.guard(method, source=[(images[labels < 3], labels[labels < 3])])
    assert "no image of 1 of 4 classes, the first of them 3" in caplog.text


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: holdfast.create_method("tent", None, num_classes=4), "no torch.nn.Module"),
        (lambda: holdfast.create_method(3, small_network(), num_classes=4), "a name such as tent"),
        (lambda: holdfast.create_method("tent", small_network(), num_classes="4"), "num_classes=4"),
        (lambda: holdfast.guard(small_network()), "create_method"),
        (lambda: holdfast.adapt("runs/train/here"), "options are named"),
        (lambda: holdfast.adapt(source=3), "path of a checkpoint"),
        (lambda: holdfast.load_source(None), "named by its path"),
        (lambda: holdfast.train(seed=-1), "seed=-1"),
    ],
)
def test_values_of_another_kind_get_a_sentence(call: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()


def test_a_loop_refuses_what_are_no_images() -> None:
    serve = holdfast.guard(holdfast.create_method("tent", small_network(), num_classes=4))
    images = torch.zeros(4, 1, 12, 12)
    for given, ids, says in (
        (images.numpy(), None, "this ndarray"),
        (images.to(torch.uint8), None, "images are uint8"),
        (images.double(), None, r"float64, and the network computes in float32: give images.to"),
        (images.half(), None, "images are float16, and the network"),
        (images[:0], None, "a batch has no image"),
        (images, ["a"], "1 ids for 4 images"),
    ):
        with pytest.raises(InputError, match=says):
            serve(given, ids)


def test_a_method_without_a_guard_refuses_them_as_well() -> None:
    method = holdfast.create_method("tent", small_network(), num_classes=4)
    images = torch.zeros(4, 1, 12, 12)
    with pytest.raises(InputError, match="this ndarray"):
        method(images.numpy())
    with pytest.raises(InputError, match="images are uint8"):
        method(images.to(torch.uint8))
    with pytest.raises(InputError, match="images are float64"):
        method(images.double())
    softmax = nn.Sequential(small_network(), nn.Softmax(1))
    method = holdfast.create_method("tent", softmax, num_classes=4)
    with pytest.raises(InputError, match="leave out its softmax"):
        method(cells(8, seed=0)[0])


def test_a_network_in_double_precision_takes_doubles() -> None:
    serve = holdfast.guard(holdfast.create_method("tent", small_network().double(), num_classes=4))
    assert serve(cells(8, seed=0)[0].double()).dtype == torch.float64


def test_under_autocast_images_may_be_of_another_precision() -> None:
    serve = holdfast.guard(holdfast.create_method("tent", small_network(), num_classes=4))
    with torch.autocast("cpu", torch.bfloat16):
        assert serve(cells(8, seed=0)[0].bfloat16()).isfinite().all()


def test_a_method_has_one_guard_at_a_time() -> None:
    method = holdfast.create_method("tent", small_network(), num_classes=4)
    first = holdfast.guard(method)
    with pytest.raises(InputError, match="has a guard already"):
        holdfast.guard(method)
    holdfast.guard(deepcopy(method))
    assert first.mode == "adapting"
    del first
    gc.collect()
    holdfast.guard(method)


def test_labels_in_another_order_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    network = nn.Sequential(nn.AvgPool2d(6), nn.Flatten(), nn.Linear(4, 4))
    nn.init.eye_(network[2].weight)  # the brightest quarter is the class
    images, labels = cells(200, seed=0)
    for order, told in (([0, 1, 2, 3], False), ([1, 2, 3, 0], True)):
        caplog.clear()
        method = holdfast.create_method("source", deepcopy(network), num_classes=4)
        holdfast.guard(method, source=[(images, torch.tensor(order)[labels])])
        assert ("in the order of the network's outputs" in caplog.text) is told


def test_a_guard_refuses_what_it_cannot_use() -> None:
    method = holdfast.create_method("tent", small_network(), num_classes=4)
    for options, says in (
        ({"odrer": "mixed"}, "did you mean order"),
        ({"order": "sorted"}, "order.*mixed"),
        ({"class_names": ["a", "b"]}, "must be 4 different strings"),
        ({"class_names": "abcd"}, "class_names='abcd' must be 4 different strings"),
        ({"class_names": ["a", "b", "c", "c"]}, "must be 4 different strings"),
        ({"class_names": [1, 2, 3, 4]}, "must be 4 different strings"),
        ({"source": []}, "no image of the source has a label of 0 to 3"),
    ):
        with pytest.raises(InputError, match=says):
            holdfast.guard(method, **options)
