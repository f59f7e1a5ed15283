"""The guide to testing says nothing that does not run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import unittest
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dalsegno import Engine, Flow, step, workflow
from dalsegno.testing import FaultPlan
from dalsegno.testing.faults import SITES
from dalsegno.tools.ledger import Outcomes

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "testing.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.S | re.M)
FILES = {block.split()[1]: block for block in BLOCKS if block.startswith("# test_")}
SNIPPETS = [block for block in BLOCKS if block not in FILES.values()]
NAMES = re.findall(r"^def (test_\w+)", "\n".join(SNIPPETS), re.M)
COMMANDS = re.findall(r"^```sh\n(.*?)\n```", GUIDE.read_text(), re.S | re.M)
PROGRAMS = {
    "replay": "from dalsegno.tools.replay import main; main()",
    "pytest": "import pytest; pytest.console_main()",
}


@pytest.fixture(scope="module")
def guide() -> Any:
    """The snippets of the guide, one after another, as one module."""
    module = ModuleType("guide_to_testing")
    sys.modules[module.__name__] = module
    exec(compile("\n".join(SNIPPETS), str(GUIDE), "exec"), vars(module))
    yield module
    del sys.modules[module.__name__]


@pytest.mark.parametrize("name", NAMES)
def test_the_guides_tests_pass(guide: Any, name: str, capsys: pytest.CaptureFixture[str]):
    """Each test that the guide shows is a test that passes."""
    getattr(guide, name)()
    said = capsys.readouterr().out
    if name == "test_a_careless_charge_is_found_and_repeated":
        assert "fulfil: AssertionError: the bank took 10" in said
        assert "only='error-after step.charge #1'" in said
    if name == "test_the_guard_names_the_line":
        assert "workflow 'hasty' called time.time() at " in said
    if name == "test_runs_in_flight_still_fit":
        assert "'order-1' left its recorded path at event 1" in said
    if name == "test_fulfil_survives_any_crash":
        assert "every single fault, 100 with a second one" in re.sub(r"\s*│\n│\s*│\s*│\s*", " ", said)


def test_the_guides_unittest_case_passes(guide: Any):
    """What it shows for unittest is run by unittest."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(guide.TestFulfil).run(result)
    assert (result.testsRun, result.wasSuccessful()) == (1, True), result.errors + result.failures


@pytest.mark.parametrize("command", COMMANDS)
def test_the_guides_commands_do_what_they_should(guide: Any, command: str, tmp_path: Path):
    """Each command is run where the guide's workflow, its tests and a store in use lie, and finds nothing wrong."""
    (tmp_path / "orders.py").write_text(SNIPPETS[0])
    (tmp_path / "conftest.py").write_text(
        "from dalsegno.testing.profiles import register_profiles\nregister_profiles()"
    )
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    with Engine(f"lmdb:{tmp_path / 'orders'}", workflows=[guide.changed]) as engine:
        engine.start(guide.changed, "order-1", 5)
    (tmp_path / "ledger.jsonl").write_text("")
    program, *arguments = shlex.split(command)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMS[program], *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("2 passed" if program == "pytest" else "everything fits" if "check" in command else "0 findings") in (
        done.stdout + done.stderr
    )


def test_what_the_guide_writes_down_is_a_ledger(guide: Any, tmp_path: Path):
    """The lines that a step of the guide writes are read by `replay check`, and fit what was recorded."""
    ledger = tmp_path / "ledger.jsonl"

    @step
    def pay(number: int) -> int:
        guide.write_down(str(ledger))
        return number

    @workflow
    def buy(number: int) -> Flow[int]:
        return (yield from pay(number))

    outcomes = Outcomes()
    with Engine("memory:", workflows=[buy]) as engine:
        run = engine.start(buy, 1, id="buy-1")
        run.result(timeout=10)
        record = engine.backend.find("buy-1")
        assert record is not None
        outcomes.note(record, run.history())
    compared = outcomes.against(ledger)
    assert (compared.executions, compared.outcomes, compared.problems) == (1, 1, [])
    ledger.write_text("")
    assert [problem.what for problem in outcomes.against(ledger).problems] == [
        "StepCompleted of 'pay' (command 1), attempt 1, and no body ran"
    ]


def test_the_guide_shows_tests():
    """There is something to run, and the first of it is no longer than it says."""
    assert len(NAMES) >= 10
    assert len(COMMANDS) >= 4
    first = next(block for block in SNIPPETS if "def test_" in block)
    assert len([line for line in first.splitlines() if line]) < 10


def test_what_the_guide_links_to_is_there():
    """Every section and every file it points to."""
    text = GUIDE.read_text()
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        assert not file or (GUIDE.parent / file).exists(), target
        assert file or anchor in anchors, target


def test_the_guide_names_every_site():
    """Every fault site is in the guide's table."""
    text = GUIDE.read_text()
    assert [site for site in SITES if site not in text and f"`.{site.split('.')[1]}`" not in text] == []
    assert len(FaultPlan.sites()) == len(SITES)
