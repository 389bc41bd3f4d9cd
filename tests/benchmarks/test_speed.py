"""The speed benchmark: its loops are the methods that they stand for, and its rows add up."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from holdfast.benchmarks import looks, tried
from holdfast.benchmarks.plain import LOOPS
from holdfast.benchmarks.rounds import in_turns, ranged, ratios
from holdfast.benchmarks.speed import SpeedConfig, main
from holdfast.benchmarks.speed_cases import CASES, of_pixels
from holdfast.benchmarks.tables import read
from holdfast.tta.errors import InputError

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["tent", "eata"])
def test_a_plain_loop_computes_what_the_method_does(name: str) -> None:
    """A faster step that is another one would prove nothing."""
    case = replace(CASES["compact"], rate=1e-3)
    batches = case.batches(3, CPU)
    plain = LOOPS[name](case.network(CPU), case.rate)(batches)
    ours = case.method(name, CPU)(batches)
    still = replace(case, rate=1e-9).method(name, CPU)(batches)
    assert (ours[-1] - still[-1]).abs().max() > 0.1
    for theirs, said in zip(plain, ours, strict=True):
        assert (theirs - said).abs().max() < 0.01


def test_windows_of_ours_say_what_monais_inferer_says() -> None:
    """Ours averages features where windows overlap, which is faster or slower, but no other."""
    case = replace(CASES["basicunet"], sides=(32, 32))
    runs, batches = of_pixels(case, CPU), case.batches(2, CPU)
    ours, monais = runs["windows"](batches), runs["plain: windows"](batches)
    assert ours[0].shape == (2, 4, 32, 64)
    for one, other in zip(ours, monais, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    runs["statistics: tent"](batches)
    assert not of_pixels(CASES["compact"], CPU)


@pytest.mark.parametrize("name", CASES)
def test_every_case_has_its_network(name: str) -> None:
    case = CASES[name]
    with torch.device("meta"):  # its shapes alone: the largest has 86 million numbers
        network = case.architecture()
    assert sum(p.numel() for p in network.parameters()) > 1000


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InputError, match="unknown network 'alexnet'"):
        SpeedConfig(networks=["alexnet"])
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="there is no CUDA device"):
            SpeedConfig(gpu=True)


def test_a_table_and_a_picture_are_left(tmp_path: Path) -> None:
    words = ["networks=[compact]", "methods=[tent]", "rounds=1", "steps=1"]
    assert main([*words, f"output={tmp_path}"]) == 0
    rows = {row["variant"]: row for row in read(tmp_path / "speed.csv")}
    assert set(rows) == {"forward", "plain: tent", "tent", "pass: tent", "guarded pass: tent"}
    assert float(rows["tent"]["of_forward"]) > 1
    assert (tmp_path / "speed.png").is_file()


def test_looks_of_the_guard_are_timed_one_by_one() -> None:
    times = looks.looks(classes=3, width=5)
    assert len(times) == looks.LOOKS
    assert min(times) > 0


def test_rates_at_once_end_where_rates_in_turn_do() -> None:
    case = CASES["compact"]
    turn, once = (run(case.batches(2, CPU)) for run in tried.swept(case, CPU, [1e-4, 1e-3]))
    for name, values in turn.items():
        torch.testing.assert_close(values, once[name], rtol=1e-4, atol=1e-5)
        assert not torch.equal(values[0], values[1])


def test_work_takes_turns_and_the_first_round_is_not_timed() -> None:
    order: list[str] = []
    work = {"own": lambda: 2.5, "slow": lambda: order.append("slow"), "last": lambda: 5.0}
    times = in_turns({**work, "end": lambda: order.append("end")}, 2)
    assert order == ["slow", "end"] * 3
    assert times["own"] == [2.5, 2.5]
    assert {len(taken) for taken in times.values()} == {2}
    assert ratios(times["last"], times["own"]) == [2, 2]
    assert ranged([1.0, 2.0, 6.0], mean=True) == "3.00 (1.00–6.00)"


@pytest.mark.parametrize(
    "name", ["endurance", "peers", "segmentation", "serving", "shifts", "speed"]
)
def test_help_says_how_a_script_is_called(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert import_module(f"holdfast.benchmarks.{name}").main(["--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m holdfast.benchmarks.{name} ")
