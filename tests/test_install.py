"""What an install puts into an environment: one name, complete, and deaf to its surroundings."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import holdfast
from tests.conftest import QUICK, ROOT, TINY_TRAINING

#: Folders of the tree that lie inside the package when it is installed.
PARTS = ("tta", "callbacks", "datamodules", "benchmarks", "configs")
#: What a working tree has besides its files.
NOT_OURS = (".git", ".venv", "runs", "wandb", "lightning_logs", "build", "dist", "shared")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: Modules that are called otherwise than the distributions that bring them.
DISTRIBUTIONS = {"PIL": "pillow", "prometheus_client": "prometheus-client", "yaml": "pyyaml"}


class Built(NamedTuple):
    """What there is to publish."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist of a copy of this tree, and the wheel made of what that sdist holds."""
    folder = tmp_path_factory.mktemp("built")
    left = shutil.ignore_patterns(*NOT_OURS, "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, folder / "tree", ignore=left, symlinks=True)
    sdist = folder / build("sdist", folder / "tree", folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    [unpacked] = (folder / "unpacked").iterdir()
    return Built(sdist, folder / build("wheel", unpacked, folder))


def build(kind: str, tree: Path, folder: Path) -> str:
    """Build a tree as pip would, with the setuptools that is installed; returns the file's name."""
    code = f"from setuptools import build_meta as b; print(b.build_{kind}({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_the_wheel_claims_one_name_and_holds_every_file(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    info = f"holdfast-{holdfast.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"holdfast", info}
    ours = [ROOT / "holdfast", *(ROOT / part for part in PARTS)]
    expected = {inside(path) for part in ours for path in sources(part)}
    expected |= {"holdfast/py.typed", "holdfast/tta/options.json"}
    assert {name for name in names if name.startswith("holdfast/")} == expected
    assert len([name for name in expected if name.startswith("holdfast/configs/")]) > 80


def test_the_sdist_holds_what_builds_and_tests_it(built: Built) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this tree is no repository")
    with tarfile.open(built.sdist) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    present = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    assert present - held == set()


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for part in ("holdfast", *PARTS) for path in sources(ROOT / part)}
    told = {inside(folder).replace("/", ".") for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == {*told, "holdfast.configs"}
    places = PROJECT["tool"]["setuptools"]["package-dir"]
    assert places == {"holdfast": "holdfast", **{f"holdfast.{part}": part for part in PARTS}}


def test_what_is_imported_is_asked_for() -> None:
    wanted = [*PROJECT["project"]["dependencies"], *extras(without=("test", "lint", "package"))]
    known = {re.split(r"[^\w-]", word)[0].lower() for word in wanted}
    code = [path for part in ("holdfast", *PARTS) for path in sources(ROOT / part)]
    found = {name for path in code if path.suffix == ".py" for name in imported(path)}
    foreign = found - set(sys.stdlib_module_names) - {"holdfast"}
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} <= known


def test_sentences_name_extras_that_exist() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    code = [path for part in ("holdfast", *PARTS) for path in sources(ROOT / part)]
    named = {
        name
        for path in [*pages, *code]
        for words in re.findall(r"holdfast\[([\w,]+)\]", path.read_text())
        for name in words.split(",")
    }
    assert named >= {"dicom", "parquet", "tensorboard", "mlflow"}
    assert named <= set(PROJECT["project"]["optional-dependencies"])


@pytest.mark.slow
def test_an_installed_program_runs_beside_a_users_own_modules(built: Built, tmp_path: Path) -> None:
    environment, place = fresh(tmp_path / "environment", built.wheel), hostile(tmp_path / "project")
    python, holdfast_ = environment / "bin" / "python", environment / "bin" / "holdfast"
    where = run([python, "-c", "import holdfast.tta.config as c; print(c.CONFIGS)"], place)
    assert Path(where.strip()) == site(environment) / "holdfast" / "configs"
    assert run([holdfast_, "--version"], place).strip() == holdfast.__version__
    # ``python -m`` looks for modules in the folder where it is typed first, a script in its own.
    run(
        [python, "-m", "holdfast", "train", *QUICK, *TINY_TRAINING, "epochs=1", "output=model"],
        place,
    )
    for words in (["method=tent", "output=one"], ["workers=1", "output=two"]):
        run([holdfast_, "adapt", "source=model", "data.target_images=130", *QUICK, *words], place)
    ran = [(place / name / "predictions.csv").read_text().count("\n") for name in ("one", "two")]
    assert ran == [131, 131]
    saved = (place / "one" / "config.yaml").read_text()
    assert saved.startswith("# holdfast adapt one/config.yaml\n")
    again = saved.splitlines()[0].removeprefix("# holdfast ").split()
    run([holdfast_, *again, "output=again", *QUICK], place)
    # A user's own files are theirs, and what is typed in their folder finds them.
    assert "callbacks is mine" in refused([python, "-c", "import callbacks"], place)


def fresh(folder: Path, wheel: Path) -> Path:
    """An environment with the wheel, which sees the packages that are installed here, but not
    Holdfast as it is installed here.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True)
    # What lies in a folder that such a line names is found after the environment's own, and lines
    # of that folder, an editable Holdfast among them, are not read.
    here = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    (site(folder) / "shared.pth").write_text("\n".join(here))
    return folder


def site(environment: Path) -> Path:
    """Where packages lie in an environment."""
    [found] = (environment / "lib").glob("python*/site-packages")
    return found


def hostile(folder: Path) -> Path:
    """A project with modules of its own that are called like ours, each of which ends who imports
    it.
    """
    folder.mkdir()
    for name in ("callbacks", "configs", "datamodules", "benchmarks"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise SystemExit('{name} is mine')")
    for name in ("train", "adapt", "benchmark", "tta"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name} is mine')")
    return folder


def run(words: Iterable[str | Path], folder: Path) -> str:
    """What a command prints, which ends well."""
    done = command(words, folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(words: Iterable[str | Path], folder: Path) -> str:
    """What a command says that does not end well."""
    done = command(words, folder)
    assert done.returncode
    return done.stderr


def command(words: Iterable[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, its environment without hints to this tree."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(word) for word in words], cwd=folder, env=clean, capture_output=True, text=True
    )


def sources(folder: Path) -> list[Path]:
    """Files of a part that belong into the wheel."""
    kinds = ("**/*.yaml",) if folder.name == "configs" else ("**/*.py",)
    return [path for kind in kinds for path in folder.glob(kind) if "__pycache__" not in path.parts]


def inside(path: Path) -> str:
    """The name that a file or folder of the tree has in the wheel."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts if parts[0] == "holdfast" else ("holdfast", *parts))


def extras(without: Iterable[str]) -> list[str]:
    """Requirements of the extras."""
    every = PROJECT["project"]["optional-dependencies"]
    return [word for name, words in every.items() if name not in without for word in words]


def imported(path: Path) -> set[str]:
    """Names at top level that a file imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names
