"""`--app`: the user's code is found by name, and what is missing is explained."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dalsegno.core.errors import BadOption, DefinitionError, UnknownDefinition
from dalsegno.tools.app import load_app

SOURCE = """
from dalsegno import Codec, Sleep, step, workflow

codec = Codec(max_bytes=1000)

@step
def work(): return 1

@workflow
def job():
    yield Sleep(1)

@workflow
def other():
    yield Sleep(2)

ONLY = [job]
NOTHING = []
NUMBER = 5
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with apps, as the current one; what was imported from it is forgotten afterwards."""
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__init__.py").write_text("")
    (tmp_path / "pkg/flows.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("x = 1\nraise RuntimeError('no database')\n")
    (tmp_path / "needs.py").write_text("import no_such_library\n")
    (tmp_path / "syntax.py").write_text("def (:\n")
    (tmp_path / "twice.py").write_text(SOURCE + "\n@step(name='work')\ndef again(): return 2\n")
    (tmp_path / "plain.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("pkg", "pkg.flows", "broken", "needs", "syntax", "twice", "plain"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def test_a_module():
    """All definitions at its top level, and the codec that stands there."""
    app = load_app("pkg.flows")
    assert (sorted(app.workflows), sorted(app.steps)) == (["job", "other"], ["work"])
    assert app.codec.max_bytes == 1000
    assert {one.name for one in app.definitions} == {"job", "other", "work"}


@pytest.mark.parametrize("name", ["pkg.flows:ONLY", "pkg.flows:job"])
def test_a_name_in_a_module(name: str):
    """A list of definitions, or one of them."""
    assert list(load_app(name).workflows) == ["job"]


def test_a_path(here: Path):
    """A path to a file is taken as the module it is."""
    assert list(load_app("pkg/flows.py").workflows) == ["job", "other"]
    assert load_app(f"{here}/pkg/flows.py:ONLY").steps == {}


def test_a_workflow_that_is_not_there():
    """Those that are there are named."""
    with pytest.raises(UnknownDefinition, match="no workflow 'jop'; it has job, other"):
        load_app("pkg.flows").workflow("jop")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere", "there is no module 'nowhere'"),
        ("pkg.nowhere", r"there is no module 'pkg\.nowhere'"),
        ("pkg flows", "is no module name"),
        ("", "is no module name"),
        ("broken", r"failed at .*broken\.py:2 with RuntimeError: no database"),
        ("needs", r"failed at .*needs\.py:1 with ModuleNotFoundError: No module named 'no_such_library'"),
        ("syntax", "SyntaxError"),
        ("plain", "no @step and no @workflow"),
        ("pkg.flows:NOTHING", "no @step and no @workflow"),
        ("pkg.flows:NUMBER", "is int, not a definition"),
        ("pkg.flows:MISSING", "has no 'MISSING'; it defines work, job, other"),
    ],
)
def test_what_is_missing_is_explained(name: str, says: str):
    """No module, a failing import, no such name, nothing to serve: each its own sentence."""
    with pytest.raises(BadOption, match=says):
        load_app(name)


def test_two_definitions_of_one_name():
    """They are refused, as an engine would."""
    with pytest.raises(DefinitionError, match="two definitions are called 'work'"):
        load_app("twice")
