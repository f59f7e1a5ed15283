"""The pytest plugin, there wherever dalsegno is installed: two fixtures, and options for seed, budget and guard.

    def test_a_month_passes(simulation):
        with simulation([fulfil]) as engine:
            assert engine.start(fulfil, order).result() == "refunded"

    def test_survives_any_crash(explore):
        explore(fulfil, order, fakes={charge: lambda order: "receipt"})

`simulation` makes a `Simulation` with the session's seed and closes it after the test; `explore` is `explore_crashes`
with the session's seed and budget. Whatever a test passes itself comes first.

    --dalsegno-seed=N        the seed (0 unless told; `random` draws one), shown in the header and with every failure
    --dalsegno-budget=S      seconds that one `explore` may take
    --dalsegno-guard=MODE    run every test under a determinism guard: off (unless told), raise or warn

`@pytest.mark.dalsegno_guard("off")` sets the guard of one test. Of `dalsegno.testing` only this module imports pytest.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final, cast

import pytest

from dalsegno.core.definitions import Definition
from dalsegno.testing.exploring import BUDGET_S, explore_crashes
from dalsegno.testing.guard import Mode, determinism_guard
from dalsegno.testing.reporting import Report
from dalsegno.testing.simulation import Simulation

OFF: Final = "off"
GUARDS: Final = (OFF, "raise", "warn")
MARK: Final = "dalsegno_guard"
SEED: Final = "dalsegno_seed"
FIXTURES: Final = ("simulation", "explore")


# --- options -------------------------------------------------------------------------------------------------------


def seed_of(text: str) -> int:
    """The number that `--dalsegno-seed` means."""
    return secrets.randbelow(2**32) if text == "random" else int(text)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("dalsegno", "dalsegno (durable workflows)")
    group.addoption(
        "--dalsegno-seed",
        type=seed_of,
        default=0,
        metavar="N",
        help="seed of simulations and crash explorations; 'random' draws one (default: 0)",
    )
    group.addoption(
        "--dalsegno-budget",
        type=float,
        default=BUDGET_S,
        metavar="SECONDS",
        help=f"how long one exploration of crashes may take (default: {BUDGET_S:g})",
    )
    group.addoption(
        "--dalsegno-guard",
        choices=GUARDS,
        default=OFF,
        help="catch clocks, chance, files and the like in workflow code while tests run (default: off)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Announce the mark; in a process of pytest-xdist, take over the seed that the first one drew."""
    config.option.dalsegno_seed = getattr(config, "workerinput", {}).get(SEED, config.option.dalsegno_seed)
    config.addinivalue_line("markers", f"{MARK}(mode): run this test under a determinism guard: off, raise or warn")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the seed to a process of pytest-xdist, which would draw another one."""
    node.workerinput[SEED] = node.config.option.dalsegno_seed


def pytest_report_header(config: pytest.Config) -> str:
    """Say with what the tests run."""
    options = config.option
    return (
        f"dalsegno: seed {options.dalsegno_seed}, budget {options.dalsegno_budget:g} s, guard {options.dalsegno_guard}"
    )


# --- around tests --------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run the test under a guard, if one is wanted."""
    mark = item.get_closest_marker(MARK)
    mode = mark.args[0] if mark is not None else item.config.option.dalsegno_guard
    if mode not in GUARDS:
        raise pytest.UsageError(f"@pytest.mark.{MARK}({mode!r}): one of {', '.join(map(repr, GUARDS))}")
    if mode == OFF:
        return (yield)
    with determinism_guard(cast("Mode", mode)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell the seed of a failure where a simulation had part in it."""
    report = yield
    if report.failed and set(FIXTURES) & set(getattr(item, "fixturenames", ())):
        seed = item.config.option.dalsegno_seed
        report.sections.append(("dalsegno", f"seed {seed}; repeat with: --dalsegno-seed={seed}"))
    return report


# --- fixtures ------------------------------------------------------------------------------------------------------


@pytest.fixture
def simulation(request: pytest.FixtureRequest) -> Iterator[Callable[..., Simulation]]:
    """Makes simulations: `simulation([fulfil], fakes={…})` takes what `Simulation` takes, and has the session's seed
    unless it is given one. They are closed after the test."""
    made: list[Simulation] = []

    def make(workflows: Definition | list[Definition] | tuple[Definition, ...] = (), **options: Any) -> Simulation:
        options.setdefault("seed", request.config.option.dalsegno_seed)
        made.append(Simulation([workflows] if isinstance(workflows, Definition) else workflows, **options))
        return made[-1]

    yield make
    for each in reversed(made):
        each.close()


@pytest.fixture
def explore(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """Breaks a workflow at every point: `explore(fulfil, order, check=…)` takes what `explore_crashes` takes, with the
    session's seed and budget unless it is given its own. Shows no progress bar."""
    given = request.config.option

    def run(workflow: Any, *args: Any, **options: Any) -> Report:
        defaults = {"seed": given.dalsegno_seed, "budget": given.dalsegno_budget, "progress": False}
        return explore_crashes(workflow, *args, **(defaults | options))

    return run
