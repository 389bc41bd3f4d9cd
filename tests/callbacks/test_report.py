"""A run's report: one file that needs nothing else, with the parts that the run has data for, and
no markup from its names.
"""

import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.callbacks.report import figures, forest, page, strips
from holdfast.callbacks.report.observe import WINDOW
from holdfast.callbacks.trajectory import running_balanced_accuracy, window_width
from holdfast.programs import adapt
from holdfast.results import Adapted
from holdfast.tta.csvfile import read_rows
from holdfast.tta.intervals import FEW
from tests.conftest import QUICK
from tests.datamodules.test_npz import saved
from tests.test_own_data import clinic
from tests.test_own_data import run as run_program
from tests.test_tracking import offline

ALWAYS = ["What happened", "Guard", "Accuracy over the stream", "What was predicted", "Features"]
LABELLED = ["Confusion", "Calibration"]
END = ["Domains and subgroups", "Largest changes of mind", "Settings"]


class Reader(HTMLParser):
    """What a browser makes of a page: its headings, table rows, elements, and whatever it would
    fetch.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.rows: list[list[str]] = []
        self.elements: set[str] = set()
        self.references: list[str] = []
        self._at = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self._at = tag
        self.references += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "srcset", "data")
        ]
        assert not [name for name, _ in attrs if name.startswith("on")], "an event handler"
        if tag == "h2":
            self.titles.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self._at == "h2":
            self.titles[-1] += data
        if self._at in ("td", "th"):
            self.rows[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._at = ""


def checked(path: Path) -> tuple[str, Reader]:
    """The page, once it is seen to be small and to ask for nothing from elsewhere."""
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 5e6
    reader = Reader(text)
    assert all(
        reference.startswith(("#", "data:image/png;base64,")) for reference in reader.references
    )
    assert (
        not {"script", "link", "iframe", "object", "embed", "foreignobject", "base", "form"}
        & reader.elements
    )
    assert "://" not in text
    assert not re.search(r"url\((?!#)", text)
    assert not any(color in text for color in (page.INK, page.SOFT, page.LINE, page.CARD)), (
        "a colour of no theme"
    )
    return text, reader


def report(source: Path, output: Path, *words: str) -> tuple[str, Reader]:
    assert adapt.main([f"source={source}", f"output={output}", *QUICK, *words, "report=true"]) == 0
    return checked(output / "report.html")


def test_a_guarded_run_has_every_part(source: Path, tmp_path: Path) -> None:
    words = ["method=tent", "method.normalization=batch", "data.target=[scanner_a,scanner_c]"]
    # Batch statistics lead whatever the evidence, and alarms come at once.
    words += ["guard.order=mixed", "guard.tuned.sharpness=0", "method.lr=.3"]
    words += ["guard.levels.R=0", "guard.limits.R=0.001"]
    text, reader = report(source, tmp_path / "with", *words, "data.subgroups=[domain]")
    assert reader.titles == [*ALWAYS, *LABELLED, *END]
    events = [
        json.loads(line) for line in (tmp_path / "with" / "events.jsonl").read_text().splitlines()
    ]
    alarm = next(event for event in events if event["event"] == "correction")
    assert f"Batch {alarm['batch']}: " in text
    for part in (
        "Verdicts.",
        "What is watched.",
        "What alarms.",
        "Before the first alarm.",
        "Who is served worse.",
        "Served.",
        "Control.",
        "Source.",
    ):
        assert f"<b>{part}</b>" in text
    metrics = json.loads((tmp_path / "with" / "metrics.json").read_text())
    for name, part in metrics["subgroups"]["domain"].items():
        assert [name, str(part["images"]), f"{part['balanced_accuracy']:.1f}"] in [
            row[:3] for row in reader.rows
        ]
    assert text.count("<tr class='mark'>") == 1  # the worst domain
    assert "SHA-256" in text
    # The report changes nothing else.
    assert adapt.main([f"source={source}", f"output={tmp_path / 'without'}", *QUICK, *words]) == 0
    assert not (tmp_path / "without" / "report.html").exists()
    for name in ("predictions.csv", "trace.csv", "events.jsonl"):
        assert (tmp_path / "without" / name).read_text() == (tmp_path / "with" / name).read_text()


def test_a_forest_plot_has_the_whole_stream_and_each_subgroup() -> None:
    def part(score: float, groups: int, **more: Any) -> dict[str, Any]:
        ends = {"balanced_accuracy": (score - 5, score + 5)}
        return {"balanced_accuracy": score, "groups": groups, "intervals": ends, **more}

    held = {"control": {"balanced_accuracy": 60.0}}
    by_site = {"A": part(80, 50, against=held), "B": part(40, FEW - 1), "C": {"groups": 9}}
    view: Any = SimpleNamespace(
        models={"source": None, "control": None, "served": None},
        score=lambda name: {"source": 50.0, "control": 70.0}[name],
        facts=SimpleNamespace(metrics=part(66, 99)),
        units=SimpleNamespace(groups=np.arange(99)),
    )
    assert forest.lines_of(view, {"site": by_site}) == [
        forest.ForestLine("all", 66, (61, 71), {"source": 50.0, "control": 70.0}),
        forest.ForestLine("by site"),
        forest.ForestLine("A", 80, (75, 85), {"control": 60.0}),
        forest.ForestLine("B", 40, None),  # of too few for an interval; and C has no figure
    ]
    assert "Who is served worse." in forest.forest(view, {"site": by_site})[0]
    assert forest.forest(view, {"site": {"A": by_site["A"]}}) == []  # nothing to compare


@pytest.mark.slow
@pytest.mark.gate
def test_source_and_control_are_what_runs_of_their_own_say(source: Path, tmp_path: Path) -> None:
    domains = ["data.target=[scanner_b,scanner_c]", "data.target_images=256"]
    _, reader = report(source, tmp_path / "two", "method=dsbr", "guard=off", *domains)
    row = next(row for row in reader.rows if row[0] == "scanner_b")
    for place, method in ((4, "norm"), (5, "source")):
        words = [f"method={method}", "guard=off", *domains]
        assert adapt.main([f"source={source}", f"output={tmp_path / method}", *QUICK, *words]) == 0
        metrics = json.loads((tmp_path / method / "metrics.json").read_text())
        assert row[place] == f"{metrics['domains']['scanner_b']['balanced_accuracy']:.1f}"
    # The source is that of its own run whichever statistics the guard chooses, long after the
    # start.
    _, reader = report(
        source, tmp_path / "guarded", "method=dsbr", "stream.batch_size=32", *domains
    )
    batches = list(csv.DictReader((tmp_path / "guarded" / "trace.csv").open(newline="")))
    assert len(batches) > 5
    assert next(line for line in reader.rows if line[0] == "scanner_b")[5] == row[5]


@pytest.mark.slow
@pytest.mark.gate
def test_what_a_run_lacks_is_left_out(source: Path, tmp_path: Path) -> None:
    few = "data.target_images=200"
    text, reader = report(source, tmp_path / "off", "method=tent", "guard=off", few)
    assert reader.titles == [*ALWAYS, *LABELLED, *END]
    assert "was not guarded" in text
    assert "Verdicts." not in text
    text, _ = report(source, tmp_path / "policy", "method=tent", "guard=martingale", few)
    assert "A published guard" in text
    assert "Evidence." in text
    assert "What alarms." not in text
    text, reader = report(source, tmp_path / "source", "method=source", few)
    assert reader.titles == [*ALWAYS, *LABELLED, "Domains and subgroups", "Settings"]
    assert "<b>Was adapting worth it? Nothing was adapted.</b>" in text
    assert "<b>Control.</b>" not in text
    text, _ = report(
        source,
        tmp_path / "window",
        "method=tent",
        "stream.batch_size=1",
        "stream.window=8",
        "data.target_images=24",
    )
    assert "24 images, 24 batches" in text


def test_an_unlabelled_stream_says_so(source: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (150, 32, 32, 3), dtype=np.uint8)
    words = [
        "data=npz",
        f"data.path={saved(tmp_path, {'images': images})}",
        "data.subgroups=[domain]",
    ]
    text, reader = report(source, tmp_path / "out", *words)
    assert reader.titles == [*ALWAYS, *END]
    assert "<b>Was adapting worth it? Not known.</b> No image of this stream has a label" in text
    assert "no accuracy by domain" in text
    assert "balanced accuracy, served" not in text


def test_names_are_never_markup(tmp_path: Path) -> None:
    from tests.datamodules.test_files import write_picture

    evil = "<img src=x onerror=alert(1)>&\"'$x_$"
    rng = np.random.default_rng(0)
    classes = ("</svg><script>alert(2)</script>", evil)
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "domain", "group", "site"])
        for number in range(60):
            label, split = number % 2, ("train", "train", "val", "test")[number // 4 % 4]
            name = f"{number} '><b onclick=alert(3)>&amp;.png"
            write_picture(
                tmp_path / name,
                rng.normal(90 + 60 * label, 60, (16, 16)).clip(0, 255).astype(np.uint8),
            )
            writer.writerow(
                [name, classes[label], split, evil, number, (evil, "<script>a", "")[number % 3]]
            )
    source = tmp_path / "source"
    train_words = [
        "data=table",
        f"data.path={tmp_path / 't.csv'}",
        "epochs=1",
        "batch_size=8",
        "calibrate=off",
    ]
    from holdfast.programs import train

    run_program(train, *train_words, f"output={source}")
    words = [
        "stream.batch_size=4",
        "stream.passes=6",
        "method=tent",
        "method.lr=.5",
        "guard=off",
        "data.subgroups=[site]",
    ]
    text, reader = report(source, tmp_path / "out", *words, f"name={evil}")
    assert "onerror=alert(1)&gt;" in text
    assert {"b", "img", "svg"} <= reader.elements
    assert evil in [row[0] for row in reader.rows]
    assert "(unknown)" in [row[0] for row in reader.rows]
    assert not re.search(r"<script|<img src=x|<b onclick", text)


@pytest.mark.parametrize("level", ["group", "image"])
def test_all_that_is_told_of_a_run_agrees(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    level: str,
) -> None:
    from holdfast.programs import train

    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ["wandb.mode=offline", *QUICK[1:]]
    path = clinic(tmp_path / "here", count=480, noise=1600.0)
    small = ["data=table", f"data.path={path}", "epochs=2", "batch_size=8", "calibrate=off"]
    assert train.main([*QUICK, *small, f"output={tmp_path / 'source'}"]) == 0
    words += ["stream.batch_size=8", "data.subgroups=[sex,age/10]", f"data.aggregate={level}"]
    capsys.readouterr()
    text, reader = report(tmp_path / "source", tmp_path / "out", *words)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    with Path(path).open(newline="") as file:
        asked = {row["path"]: row for row in csv.DictReader(file) if row["split"] == "test"}
    score = balanced(tmp_path / "out" / "predictions.csv", asked, level)
    patients = len({row["group"] for row in asked.values()})

    assert (metrics["level"], metrics["images"], metrics["groups"]) == (level, 120, patients)
    assert metrics["balanced_accuracy"] == pytest.approx(score(asked), abs=1e-3)
    told = capsys.readouterr().out.splitlines()[-1]
    of = f" of {patients} groups" if level == "group" else ""
    assert f"balanced accuracy {metrics['balanced_accuracy']:.1f} %{of}," in told
    assert f"<b>{metrics['balanced_accuracy']:.1f} %</b>" in text
    low, high = metrics["intervals"]["balanced_accuracy"]
    assert f"balanced accuracy, served (95 %: {low:.1f} to {high:.1f})" in text
    held = metrics["against"]["control"]
    assert f"<b>{in_points(held)}</b><span>served against control (95 %)" in text
    assert "<b>Was adapting worth it? " in text.partition("<nav>")[0]
    assert f"% of {level}s</text>" in text  # of the calibration's lower axis
    assert ("Images are counted here" in text) == (level == "group")
    told_of_each(tmp_path / "out", asked)
    patients_told(tmp_path / "out", metrics, asked, level)
    assert f"<b>Served.</b> Balanced accuracy {metrics['balanced_accuracy']:.1f} %." in text
    classes = {row[0]: row for row in reader.rows if row[0] in ("ill", "well") and len(row) == 6}
    units = patients if level == "group" else 120
    assert sum(int(row[1].rstrip("*")) for row in classes.values()) == units
    for name, row in classes.items():
        low, high = metrics["intervals"]["sensitivity"][name]
        assert row[2:4] == [f"{metrics['sensitivity'][name]:.1f}", f"{low:.1f} to {high:.1f}"]
    bands = list(metrics["subgroups"]["age/10"])
    assert bands == sorted(bands, key=lambda band: int(band.split("-")[0]))
    assert [row[0] for row in reader.rows if row[0] in bands] == bands
    for value, part in [pair for parts in metrics["subgroups"].values() for pair in parts.items()]:
        row = next(row for row in reader.rows if row[0] == value)
        few = "*" if part["groups"] < 20 else ""
        assert row[1:3] == [str(part["images"]), f"{part['groups']}{few}"]
        assert row[3] == f"{part['balanced_accuracy']:.1f}"
        low, high = part["intervals"]["balanced_accuracy"]
        assert row[4] == ("–" if few else f"{low:.1f} to {high:.1f}")
        assert part.get("few") == (True if few else None)
        held = part["against"]
        assert row[5:7] == [
            f"{held[name]['balanced_accuracy']:.1f}" for name in ("control", "source")
        ]
        assert row[7] == in_points(held["control"], ends=not few)
    assert metrics["balanced_accuracy"] < 100
    run, _ = offline(tmp_path / "out")
    assert run["summary"]["balanced_accuracy"] == metrics["balanced_accuracy"]
    assert (run["summary"]["level"], run["summary"]["groups"]) == (level, patients)
    for name, part in metrics["subgroups"]["sex"].items():
        assert run["summary"][f"subgroups/sex/{name}/groups"] == part["groups"]


def in_points(held: dict[str, Any], *, ends: bool = True) -> str:
    """A difference to another model, as a page has it."""
    text = page.signed(held["difference"])
    return f"{text} ({' to '.join(map(page.signed, held['interval']))})" if ends else text


def told_of_each(folder: Path, asked: dict[str, dict[str, str]]) -> None:
    """``predictions.csv`` says of each image what the table does."""
    served = list(read_rows(folder / "predictions.csv"))
    told = ["reason", "batch", "mode", "weights", "labels"]
    assert [*served[0]][-11:] == [*told, "label", "group", "domain", "sex", "age/10", "chain"]
    assert {row["id"] for row in served} == set(asked)
    for row in served:
        for name in ("label", "group", "domain", "sex"):
            assert row[name] == asked[row["id"]][name]
        assert row["age/10"].partition("-")[0] == str(int(asked[row["id"]]["age"]) // 10 * 10)


def patients_told(
    folder: Path, metrics: dict[str, Any], asked: dict[str, dict[str, str]], level: str
) -> None:
    """``patients.csv`` has each patient once, with the mean of the images' probabilities."""
    served = list(read_rows(folder / "predictions.csv"))
    patients = {row["group"]: row for row in read_rows(folder / "patients.csv")}
    table = Adapted(folder, metrics).patients
    assert table["group"] == [*patients] == [*dict.fromkeys(row["group"] for row in served)]
    right: dict[str, list[bool]] = {"ill": [], "well": []}
    for name, row in patients.items():
        own = [image for image in served if image["group"] == name]
        mean = sum(float(image["prob_ill"]) for image in own) / len(own)
        assert (row["images"], row["label"]) == (str(len(own)), own[0]["label"])
        assert (row["domain"], row["sex"]) == ("clinic", asked[own[0]["id"]]["sex"])
        assert float(row["prob_ill"]) == pytest.approx(mean, abs=1e-5)
        assert float(row["confidence"]) == pytest.approx(max(mean, 1 - mean), abs=1e-5)
        right[row["label"]].append(row["prediction"] == row["label"])
    score = 100 * sum(sum(hits) / len(hits) for hits in right.values()) / len(right)
    if level == "group":
        assert score == pytest.approx(metrics["balanced_accuracy"], abs=1e-3)


def balanced(
    path: Path, asked: dict[str, dict[str, str]], level: str
) -> Callable[[dict[str, dict[str, str]]], float]:
    """Balanced accuracy of some images, by hand: of each, or of groups by their mean
    probabilities.
    """
    with path.open(newline="") as file:
        sure = {row["id"]: float(row["prob_ill"]) for row in csv.DictReader(file)}

    def score(rows: dict[str, dict[str, str]]) -> float:
        units: dict[str, list[str]] = {}
        for name, row in rows.items():
            units.setdefault(row["group"] if level == "group" else name, []).append(name)
        right: dict[str, list[bool]] = {"ill": [], "well": []}
        for names in units.values():
            label = asked[names[0]]["label"]
            mean = sum(sure[name] for name in names) / len(names)
            right[label].append((mean > 0.5) == (label == "ill"))
        return 100 * sum(sum(hits) / len(hits) for hits in right.values()) / len(right)

    return score


def test_a_short_stream_has_a_course(source: Path, tmp_path: Path) -> None:
    few = ["method=tent", "guard=off", "data.target_images=96", "stream.batch_size=16"]
    text, _ = report(source, tmp_path / "six", *few)
    assert "In a window of 24 images that slides along the stream." in text
    assert "32 images up to batch 1." in text
    assert "32 images up to batch 5." in text
    assert [f"<b>{name}</b>" in text for name in ("At the start.", "At the end.")] == [True] * 2
    metrics = json.loads((tmp_path / "six" / "metrics.json").read_text())
    assert metrics["last_quarter"] == float(metrics["last_quarter"])
    text, _ = report(source, tmp_path / "one", *few[:2], "data.target_images=40")
    assert "<b>All along.</b>" in text
    assert "At the start." not in text
    assert "last_quarter" not in json.loads((tmp_path / "one" / "metrics.json").read_text())


@pytest.mark.parametrize(("images", "batches"), [(24, 1), (96, 6), (800, 40)])
def test_curves_lie_among_their_batches(images: int, batches: int) -> None:
    """A batch is drawn about its number: no part of a curve is cut off at the stream's end."""
    said = torch.arange(images) % 4
    drawn = [
        figures.accuracy({"served": said}, said, 4, batches, []),
        figures.marginals({"served": said}, dict(enumerate(page.COLORS[:4])), 4, batches),
    ]
    half = window_width(images) / 2 * batches / images
    for figure in drawn:
        axes = figure.axes[0]
        places = axes.lines[0].get_xdata() if axes.lines else axes.collections[0].get_paths()[0]
        places = np.asarray(getattr(places, "vertices", places)).reshape(len(places), -1)[:, 0]
        assert places.min() == pytest.approx(half - 0.5, abs=0.1)
        assert places.max() == pytest.approx(batches - 0.5 - half, abs=0.1)
        assert axes.get_xlim() == (-0.5, max(batches - 0.5, 0.5))
        figure.canvas.draw()
        assert all(tick == round(tick) for tick in axes.get_xticks())


def test_a_page_can_be_printed() -> None:
    """On paper nothing scrolls, unfolds or is dark: all of it is there, in whole figures."""
    style = page.page("title", "lead", []).partition("</style>")[0].partition("@media print")[2]
    rules = dict(re.findall(r"([^{}]+?)\s*{([^{}]*)}", style.partition("{")[2]))
    rules = {name.strip(): rule for name, rule in rules.items()}
    assert "overflow: visible" in rules[".wide, .scroll, pre"]
    assert "break-inside: avoid" in rules["figure, .answer, .tile, .legend, tr"]
    assert "break-after: avoid" in rules["h1, h2, h3, h2 + p, .legend"]
    assert "table-header-group" in rules["thead"]
    assert "content-visibility: visible" in rules["details::details-content"]
    assert "color-scheme: only light" in rules[":root"]
    assert "print-color-adjust: exact" in rules["*"]  # legends are coloured squares
    assert "nav" not in rules  # links within the page lead on in a PDF too


def test_windows_suit_the_stream() -> None:
    widths = {count: window_width(count) for count in (1, 24, 96, 800, 1600, 8000)}
    assert widths == {1: 1, 24: 6, 96: 24, 800: 200, 1600: 200, 8000: 1000}
    labels = torch.arange(96) % 4
    centers, values = running_balanced_accuracy(labels, labels, 4)
    assert len(centers) > 20
    assert set(values.tolist()) == {100.0}


def test_what_may_hold_a_password_is_not_passed_around(source: Path, tmp_path: Path) -> None:
    words = [
        "guard.alert.url=http://127.0.0.1:9/tell-nobody",
        "guard.alert.command=true tell-nobody",
    ]
    text, _ = report(source, tmp_path / "out", "method=norm", "data.target_images=64", *words)
    assert "tell-nobody" not in text


def test_long_streams_are_thinned_to_what_matters() -> None:
    values = np.ones(100_000)
    values[12_345] = -3.0
    values[500:700] = np.nan
    centers, shown = figures.thinned(values, np.fmin)
    assert len(centers) == len(shown) <= 600
    assert np.nanmin(shown) == -3
    assert abs(centers[np.nanargmin(shown)] - 12_345) < 100
    rows = [
        {"verdict": "ALARM" if i == 77_777 else "OK", "served_by": "adapted"}
        for i in range(100_000)
    ]
    drawn = page.figure(lambda: strips.timeline(rows, []), "caption")
    assert strips._STATES["ALARM"] in drawn
    assert {">OK<", ">adapted<"} <= set(re.findall(">[A-Za-z]+<", drawn))
    assert len(drawn) < 2e5
    centers, shown = figures.thinned(np.array([1.0, 2.0]), None)
    assert (centers.tolist(), shown.tolist()) == ([0, 1], [1, 2])


def test_windows_of_features_are_bounded(source: Path, tmp_path: Path) -> None:
    from holdfast.callbacks.report.observe import AdaptedObserver

    observer = AdaptedObserver(None, torch.zeros(2, 5), torch.ones(2, 5))
    place = SimpleNamespace(num_training_batches=0, is_global_zero=True, device="cpu")
    observer.on_train_start(place, place)  # type: ignore[arg-type]
    for batch, size in enumerate([1] * 1000 + [3000, 7]):
        features = torch.full((size, 5), 9.0 if batch == 600 else 1.0)
        labels = torch.full((size,), batch % 2)
        outputs = {"logits": torch.eye(2)[labels], "features": features}
        told = {"label": labels, "id": [str(batch)] * size}
        observer.on_train_batch_end(None, None, outputs, told, batch)  # type: ignore[arg-type]
        assert sum(len(part.labels) for part in observer._parts) <= WINDOW
    assert observer.start is not None
    assert observer.farthest is not None
    assert observer.end is not None
    assert observer.start.batch == 399
    assert 600 <= observer.farthest.batch <= 999
    assert len(observer.end.labels) <= WINDOW
    assert len(observer.predictions) == 1000 + 3007


@pytest.mark.parametrize(
    ("shape", "expected"), [((1, 8, 9), (8, 9)), ((3, 8, 9), (8, 9, 3)), ((1, 5, 8, 9), (8, 9))]
)
def test_images_of_any_kind_become_pictures(
    shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    image = np.zeros(shape, np.float32)
    if len(shape) == 4:
        image[:, 2, 0, 0] = 1.0
    image.reshape(-1)[0] = np.nan
    shown = page.as_picture(image)
    assert shown.shape == expected
    assert len(shape) < 4 or shown[0, 0] == 255
