"""Configuration: merging, validation, errors with the right form."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from holdfast.benchmarks.config import BenchmarkConfig
from holdfast.programs import adapt, train
from holdfast.tta.config import (
    CONFIGS,
    group_choices,
    read_arguments,
    resolve,
    save,
    to_dict,
)
from holdfast.tta.errors import InputError
from holdfast.tta.usage import explain

SHIPPED = sorted(
    path
    for path in CONFIGS.rglob("*.yaml")
    if path.parent.name not in ("benchmark", "demo", "sweep")
)


def configured(*words: str) -> Any:
    return resolve(
        adapt.AdaptConfig,
        adapt.GROUPS,
        read_arguments(words, adapt.GROUPS, {"data": {"kind": "phantom"}}),
    )


def test_defaults() -> None:
    config = configured()
    assert (config.method.kind, config.guard.kind, config.stream.options.batch_size) == (
        "dsbr",
        "on",
        64,
    )
    assert config.method.options.lr == "auto"


def test_choices_and_their_options_in_any_order() -> None:
    config = configured("stream.fraction=0.9", "method.lr=1e-2", "stream=prevalence", "method=tent")
    assert (config.stream.kind, config.stream.options.fraction) == ("prevalence", 0.9)
    assert (config.method.kind, config.method.options.lr) == ("tent", 0.01)


def test_whole_numbers_pass_where_a_float_is_asked_for() -> None:
    assert configured("method=tent", "method.lr=1").method.options.lr == 1.0


@pytest.mark.parametrize(
    ("word", "kind"),
    [("guard=on", "on"), ("guard=off", "off"), ("guard=false", "off"), ("guard=True", "on")],
)
def test_yaml_booleans_choose_the_guard(word: str, kind: str) -> None:
    assert configured(word).guard.kind == kind


def test_none_means_null() -> None:
    assert configured("name=None").name is None
    assert configured("shift=None").shift.kind == "none"


def test_files_come_before_words_and_a_choice_starts_its_group_afresh(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("seed: 3\nguard: off\nstream: {kind: prevalence, fraction: 0.7, passes: 2}\n")
    config = configured(str(file), "seed=4", "stream.label=1")
    assert (config.seed, config.guard.kind) == (4, "off")
    assert (config.stream.options.fraction, config.stream.options.label) == (0.7, 1)
    assert configured(str(file), "stream=iid").stream.options.passes == 1


def test_a_saved_configuration_is_itself_an_argument(tmp_path: Path) -> None:
    config = configured(
        "method=tent",
        "method.lr=0.5",
        "stream=prevalence",
        "guard=off",
        "shift=noise",
        "wandb.tags=[a,b]",
    )
    save(config, tmp_path / "config.yaml", "python adapt.py")
    assert to_dict(configured(str(tmp_path / "config.yaml"))) == to_dict(config)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("metod=tent", "did you mean method"),
        ("method=tnet", "did you mean tent"),
        ("data.task=segmentatoin", r"or multilabel \(did you mean segmentation\?\)$"),
        ("data.task=ct", r"or multilabel$"),
        ("method.lrr=1", "unknown option method.lrr: did you mean lr"),
        ("stream.fraction=1", "unknown option stream.fraction"),
        ("wandb.mod=offline", "wandb"),
        ("wandb.mode=sometimes", "wandb.mode.*expected one of"),
        ("method.lr=fast", "^method.lr=fast: expected a number or auto$"),
        ("seed=many", "^seed=many: expected a whole number$"),
        ("wandb=disabled", "write wandb.mode=disabled"),
        ("wandb=off", "^wandb=off is no option: write wandb.mode=disabled$"),
        ("wandb.mode=off", "^wandb.mode=off: expected one of online"),
        ("wandb=7", "it has options of its own, wandb.mode"),
        ("wandb.tags=a", r"write wandb.tags=\[a\]"),
        ("guard.alert=slack", "guard.alert.command"),
        ("trainer=gpu", "trainer.OPTION=gpu"),
        ("report=perhaps", "true or false"),
        ("batch_size=32", r"did you mean stream.batch_size\?"),
        ("method.batch_size=32", r"did you mean stream.batch_size\?"),
        ("guard.alert.timeot=1", "unknown option guard.alert.timeot: did you mean timeout"),
        ("data.shares=[1]", "unknown option data.shares: it is one of data=.*, data="),
        ("method.supports=5", "unknown option method.supports: it is one of method=t3a$"),
        ("data.site=a", "unknown option data.site: there are"),
        ("devices=2", r"did you mean trainer.devices\?"),
        ("name=${oc.env:HOME}", "would read the environment"),
        ("name=${${x}:HOME}", "would read the environment"),
        ("name=${seed}", "not in the same file"),
        ("method.lr=-1", r"method.lr=-1.0 is outside"),
        ("--seed=1", "write 'seed=1'"),
        ("--verbose", "unknown flag"),
        ("seed", "neither a YAML file nor key=value"),
        ("16,", "neither a YAML file nor key=value: write a list without spaces"),
        ("16]", "or the whole option in quotes"),
        ("absent.yaml", "does not exist"),
        ("a b=1", "not of the form"),
        ("seed=[1", "not YAML"),
    ],
)
def test_bad_words(word: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        configured(word)


def test_no_sentence_shows_how_it_is_done() -> None:
    for word in ("method.lr=fast", "wandb=x", "seed=[1]", "wandb.tags=3", "stream.window=x"):
        with pytest.raises(InputError) as refused:
            configured(word)
        shown = re.search(
            r"Config\b|Union|Literal|Optional|NoneType|<class|str'", str(refused.value)
        )
        assert not shown, str(refused.value)


def test_references_are_followed_within_a_file_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBE_SECRET", "hidden-value")
    file = tmp_path / "run.yaml"
    file.write_text("seed: 7\nname: run-${seed}\nmethod: tent\n")
    assert configured(str(file)).name == "run-7"
    for text in ("${oc.env:PROBE_SECRET}", "${oc.decode:${oc.env:PROBE_SECRET}}", "${a.${seed}}"):
        file.write_text(f"seed: 7\nname: '{text}'\n")
        with pytest.raises(InputError, match="would read the environment") as refused:
            configured(str(file))
        assert "hidden-value" not in str(refused.value)
    # What comes from a checkpoint is not followed either, wherever it stands.
    for data in (
        {"kind": "phantom", "source": "${oc.env:PROBE_SECRET}"},
        {"kind": "phantom", "subgroups": ["${seed}"]},
    ):
        words = read_arguments(["data.target=scanner_b", "seed=1"], adapt.GROUPS, {"data": data})
        assert "hidden-value" not in str(words)
        with pytest.raises(InputError, match="a reference from outside"):
            resolve(adapt.AdaptConfig, adapt.GROUPS, words)


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(InputError, match="must hold options"):
        configured(str(tmp_path / "list.yaml"))
    with pytest.raises(
        InputError, match=r"broken.yaml, line 2, is not readable YAML \(did not find"
    ):
        configured(str(tmp_path / "broken.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_shipped_file_opens_with_its_command_and_loads(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# python ")
    group = path.parent.name
    assert f"{group}={path.stem}" in first
    module = adapt if group in adapt.GROUPS and group != "data" else train
    schema = module.AdaptConfig if module is adapt else module.TrainConfig  # type: ignore[attr-defined]
    base = {"data": {"kind": "phantom"}}
    config = resolve(
        schema, module.GROUPS, read_arguments([f"{group}={path.stem}"], module.GROUPS, base)
    )
    assert getattr(config, group).kind == OmegaConf.load(path).get("kind", path.stem)


@pytest.mark.parametrize(
    "path", sorted((CONFIGS / "benchmark").glob("*.yaml")), ids=lambda path: str(path.stem)
)
def test_every_shipped_benchmark_opens_with_its_command_and_is_valid(path: Path) -> None:
    assert path.read_text().startswith(f"# python benchmark.py configs/benchmark/{path.name}")
    config = resolve(BenchmarkConfig, {}, read_arguments([str(path)], {}))
    real = "chestmnist" if path.stem == "guard_multilabel" else "nuclei/fluor_360"
    assert real in config.data.targets
    assert callable(import_module(f"holdfast.benchmarks.{config.study}").conclude)


def test_every_kind_has_a_file() -> None:
    for groups in (adapt.GROUPS, train.GROUPS):
        for group, kinds in groups.items():
            assert set(kinds) <= set(group_choices(group))


def test_a_kind_that_a_script_registers_needs_no_file() -> None:
    groups = {
        **adapt.GROUPS,
        "method": {**adapt.GROUPS["method"], "mine": adapt.GROUPS["method"]["tent"]},
    }
    words = ["method=mine", "method.lr=0.5"]
    config = resolve(
        adapt.AdaptConfig, groups, read_arguments(words, groups, {"data": {"kind": "phantom"}})
    )
    assert (config.method.kind, config.method.options.lr) == ("mine", 0.5)
    shown = explain(adapt.AdaptConfig, groups, adapt.USAGE, "method")
    assert re.search(r"^  mine +\w", shown, flags=re.MULTILINE)
