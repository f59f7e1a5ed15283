"""The pytest plugin, as a project that uses it would see it: pytest is run on a small test file of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

Pytest = Callable[..., str]

HEAD = """\
    import time
    import pytest
    from dalsegno import Flow, Random, Sleep, step, workflow

    @step
    def charge(amount: int) -> str:
        raise NotImplementedError("costs money")

    @workflow
    def month() -> Flow[int]:
        yield from Sleep(30 * 86400)
        rng = yield from Random()
        return rng.randint(0, 2**31)

    @workflow
    def pay(amount: int) -> Flow[str]:
        return (yield from charge(amount))

    @workflow
    def asks() -> Flow[None]:
        time.time()
        yield from Sleep(1)
"""


@pytest.fixture
def run_pytest(tmp_path: Path) -> Pytest:
    """Run pytest on a file with these tests, and give what it said."""

    def run(tests: str, *options: str, code: int = 0) -> str:
        (tmp_path / "test_shop.py").write_text(textwrap.dedent(HEAD) + textwrap.dedent(tests))
        arguments = ["-p", "dalsegno.testing.pytest_plugin", "-p", "no:cacheprovider", "--strict-markers", "-rA"]
        # Loaded by name and not by its entry point, so that the outcome does not depend on what is installed.
        alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments, *options, "test_shop.py"],
            cwd=tmp_path,
            env=alone,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    return run


SEEDED = """
    def test_month(simulation):
        with simulation([month]) as engine:
            print("drawn", engine.seed, engine.start(month).result())
        print("own", simulation(month, seed=99).seed)
"""


def drawn(said: str) -> tuple[str, str]:
    found = re.search(r"drawn (\d+) (\d+)", said)
    assert found is not None
    return found[1], found[2]


def test_simulations_have_the_seed_of_the_session(run_pytest: Pytest):
    """The seed is an option, shown in the header; the same seed draws the same, another seed something else."""
    plain, again, other = run_pytest(SEEDED), run_pytest(SEEDED), run_pytest(SEEDED, "--dalsegno-seed=7")
    assert "dalsegno: seed 0, budget 60 s, guard off" in plain
    assert "dalsegno: seed 7" in other
    assert drawn(plain) == drawn(again)
    assert drawn(plain)[0] == "0"
    assert drawn(other)[0] == "7"
    assert drawn(other)[1] != drawn(plain)[1]
    assert "own 99" in plain


def test_a_drawn_seed_can_be_repeated(run_pytest: Pytest):
    """`random` draws a seed, which the header and each failure show."""
    failing = SEEDED + "        assert False\n"
    said = run_pytest(failing, "--dalsegno-seed=random", code=1)
    seed = re.search(r"dalsegno: seed (\d+)", said)
    assert seed is not None
    assert f"repeat with: --dalsegno-seed={seed[1]}" in said
    assert drawn(run_pytest(failing, f"--dalsegno-seed={seed[1]}", code=1)) == drawn(said)


def test_a_drawn_seed_is_the_same_in_every_process(run_pytest: Pytest):
    """Under pytest-xdist each process takes the seed that the header shows."""
    failing = "".join(f"def test_{n}(simulation): assert simulation().seed < 0\n" for n in range(4))
    said = run_pytest(failing, "-p", "xdist", "-n", "2", "--dalsegno-seed=random", code=1)
    assert len(set(re.findall(r"seed[ =](\d+)", said))) == 1


def test_a_failure_without_simulation_says_nothing_of_seeds(run_pytest: Pytest):
    """Other tests' failures stay as they are."""
    assert "repeat with" not in run_pytest("def test_it(): assert False", code=1)


def test_explore_takes_seed_and_budget(run_pytest: Pytest):
    """Crashes are explored with the session's seed; what a test passes comes first; a budget of nothing is spent."""
    said = run_pytest(
        """
        def test_pay(explore):
            report = explore(pay, 5, fakes={charge: lambda amount: "receipt"})
            print("explored", report.seed, report.complete, report.tried > 10)
            print("own", explore(pay, 5, fakes={charge: lambda amount: "receipt"}, seed=3, pairs=0).seed)
        """,
        "--dalsegno-seed=5",
    )
    assert "explored 5 True True" in said
    assert "own 3" in said
    spent = run_pytest(
        """
        def test_pay(explore):
            print("complete", explore(pay, 5, fakes={charge: lambda amount: "receipt"}).complete)
        """,
        "--dalsegno-budget=0",
    )
    assert "complete False" in spent


GUARDED = """
    def test_asks(simulation):
        simulation([asks]).start(asks).result()

    @pytest.mark.dalsegno_guard("off")
    def test_allowed(simulation):
        simulation([asks]).start(asks).result()
"""


def test_the_guard_is_off_unless_told(run_pytest: Pytest):
    """Without the option workflows are not watched; with it the offending test fails, and a mark lets one pass."""
    assert "2 passed" in run_pytest(GUARDED)
    raised = run_pytest(GUARDED, "--dalsegno-guard=raise", code=1)
    assert "NondeterministicCall: workflow 'asks' called time.time()" in raised
    assert "1 failed, 1 passed" in raised
    assert "DeterminismWarning" in run_pytest(GUARDED, "--dalsegno-guard=warn")


def test_a_mark_of_an_unknown_mode(run_pytest: Pytest):
    """A mistyped mode is said to be one."""
    said = run_pytest("@pytest.mark.dalsegno_guard('loud')\ndef test_it(): pass", code=1)
    assert "one of 'off', 'raise', 'warn'" in said


def test_help_names_the_options(run_pytest: Pytest):
    """`pytest --help` has a group for them."""
    said = run_pytest("", "--help")
    assert all(option in said for option in ("--dalsegno-seed", "--dalsegno-budget", "--dalsegno-guard"))
