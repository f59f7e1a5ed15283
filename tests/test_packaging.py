"""What is built from the tree is the whole tree, under one name.

The package is made of top-level folders through links, so here is what links could get wrong: a part left out of the
wheel, a part in it twice under its bare name, links instead of files in the sdist.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from configparser import ConfigParser
from pathlib import Path
from zipfile import ZipFile

import pytest
from attrs import frozen

ROOT = Path(__file__).resolve().parent.parent
PARTS = ["core", "backends", "testing", "tools", "examples"]
SOURCES = [*PARTS, "dalsegno", "pyproject.toml", "README.md", "LICENSE"]


@frozen
class Built:
    """A wheel made from an sdist made from a copy of the tree: the way a release reaches a user."""

    sdist: Path
    wheel: Path
    site: Path  # the wheel, unpacked


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    # A copy, because setuptools leaves its build/ beside the sources and would find last week's modules there.
    folder = tmp_path_factory.mktemp("built")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", folder],
        check=True,
        stdout=sys.stderr,
        stderr=subprocess.STDOUT,
    )
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return Built(sdist, wheel, folder / "site")


def shipped() -> set[str]:
    """Every file of the parts, by the path it has inside the package."""
    files = {
        f"dalsegno/{file.relative_to(ROOT).as_posix()}"
        for part in PARTS
        for file in (ROOT / part).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    return files | {"dalsegno/__init__.py", "dalsegno/py.typed"}


def test_the_wheel_holds_every_file_of_the_parts_and_nothing_else(built: Built):
    """Modules, templates and py.typed are in the wheel under `dalsegno/`, each once."""
    names = [name for name in ZipFile(built.wheel).namelist() if ".dist-info/" not in name]
    assert sorted(names) == sorted(shipped())


def test_the_sdist_holds_files_where_the_tree_has_links(built: Built):
    """An sdist can be unpacked where links cannot be made, and carries licence and readme."""
    with tarfile.open(built.sdist) as archive:
        files = {member.name.split("/", 1)[-1] for member in archive if member.isfile()}
        assert [member.name for member in archive if member.issym()] == []
    assert shipped() | {"LICENSE", "README.md", "pyproject.toml"} <= files


def test_commands_and_backends_are_announced(built: Built):
    """The wheel names both commands and all backends, and each name leads to a module that is inside."""
    (metadata,) = built.site.glob("*.dist-info/entry_points.txt")
    points = ConfigParser()
    points.read(metadata)
    assert set(points["console_scripts"]) == {"dalsegno", "replay"}
    assert set(points["dalsegno.backends"]) == {"lmdb", "memory", "postgresql", "sqlite"}
    targets = [target for group in points for target in points[group].values()]
    missing = [target for target in targets if not module_file(built.site, target.split(":")[0]).exists()]
    assert missing == []


def module_file(site: Path, module: str) -> Path:
    path = site.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def test_the_unpacked_wheel_is_importable_by_itself(built: Built):
    """`import dalsegno` works from the wheel alone, without the tree it was built from."""
    program = (
        "import dalsegno, dalsegno.core, dalsegno.backends, dalsegno.testing, dalsegno.tools; print(dalsegno.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=built.site,
        env={**os.environ, "PYTHONPATH": str(built.site)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(done.stdout.strip()) == built.site / "dalsegno" / "__init__.py"
