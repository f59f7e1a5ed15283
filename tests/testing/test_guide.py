"""The guide to testing says nothing that does not run."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dalsegno.testing import FaultPlan
from dalsegno.testing.faults import SITES

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"


@pytest.fixture(scope="module")
def guide() -> Any:
    """The snippets of the guide, one after another, as one module."""
    module = ModuleType("guide_to_testing")
    sys.modules[module.__name__] = module
    source = "\n".join(re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.S | re.M))
    exec(compile(source, str(GUIDE), "exec"), vars(module))
    yield module
    del sys.modules[module.__name__]


NAMES = re.findall(r"^def (test_\w+)", GUIDE.read_text(), re.M)


@pytest.mark.parametrize("name", NAMES)
def test_the_guides_tests_pass(guide: Any, name: str, capsys: pytest.CaptureFixture[str]):
    """Each test that the guide shows is a test that passes."""
    getattr(guide, name)()
    said = capsys.readouterr().out
    if name == "test_a_careless_charge_is_found_and_repeated":
        assert "fulfil: AssertionError: the bank took 10" in said
        assert "only='error-after step.charge #1'" in said
    if name == "test_fulfil_survives_any_crash":
        assert "every single fault, 100 with a second one" in re.sub(r"\s*│\n│\s*│\s*│\s*", " ", said)


def test_the_guide_shows_tests():
    """There is something to run."""
    assert len(NAMES) >= 6


def test_the_guide_names_every_site():
    """Every fault site is in the guide's table."""
    text = GUIDE.read_text()
    assert [site for site in SITES if site not in text and f"`.{site.split('.')[1]}`" not in text] == []
    assert len(FaultPlan.sites()) == len(SITES)
