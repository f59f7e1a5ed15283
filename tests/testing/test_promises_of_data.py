"""The promises G8 to G14 but for G10, each by name, as far as memory and LMDB go: code that has changed, runs that do
harm, records that cannot be read. (The table of all promises stands in test_promises.py.)"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dalsegno import (
    All,
    Client,
    Flow,
    RemoteError,
    Retry,
    Run,
    RunBlocked,
    Sleep,
    Status,
    StoreUnusable,
    step,
    workflow,
)
from dalsegno.backends import layout
from dalsegno.backends.lmdb import LmdbBackend
from dalsegno.backends.ordered import OrderedStore
from dalsegno.backends.records import seal
from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.engine.recovery import DEATHS_MAX
from dalsegno.core.transfer import read_file
from dalsegno.testing.faults import Crash, Mischief
from dalsegno.testing.replaying import assert_replays
from dalsegno.testing.simulation import Simulation
from dalsegno.tools.transfer import import_runs
from tests.histories import flows
from tests.histories.record import HERE
from tests.testing import actors
from tests.testing.behind import keys_of, rewrite

RELEASES = sorted(folder for folder in HERE.iterdir() if folder.name[0].isdigit())

# --- G8 --------------------------------------------------------------------------------------------------------------

put, look = actors.put, actors.look


def program(*parts: Any, arguments: Any = "strict") -> WorkflowDefinition[..., Any]:
    """A workflow called `program` that does these one after another; a number is a sleep of so many days."""

    @workflow(name="program", arguments=arguments)
    def body() -> Flow[list[Any]]:
        done = []
        for part in parts:
            done.append((yield from Sleep(timedelta(days=part)) if isinstance(part, int) else part()))
        return done

    return body


def a() -> Any:
    """A step."""
    return put("a")


def b() -> Any:
    """Another one."""
    return look("b")


def c() -> Any:
    """A third."""
    return put("c")


MUTANTS = {
    "added in front": program(c, a, b, 1, c),
    "added in between": program(a, c, b, 1, c),
    "dropped": program(b, 1, c),
    "swapped": program(b, a, 1, c),
    "renamed": program(lambda: put("a"), lambda: put("b"), 1, c),
    "other arguments": program(lambda: put("A"), b, 1, c),
    "another kind": program(a, 1, b, c),
    "ends early": program(a),
}


class TestG8:
    """Code that no longer fits a history is found at the first diverging command; the run is `BLOCKED`, says why,
    resumes with mended code, is never failed for it. Equal programs are never flagged."""

    @pytest.mark.parametrize("mutant", MUTANTS)
    def test_changed_code_blocks_and_mended_code_goes_on(self, store: OrderedStore, mutant: str):
        """A run started with one program meets another, is blocked with a reason, and ends under the first."""
        with Simulation([program(a, b, 1, c)], store=store) as simulation:
            run = simulation.start(program(a, b, 1, c), id="run")
            simulation.run(timeout=3600)
            head = store.head(run.record.number)
            simulation.crash()
        with Simulation([MUTANTS[mutant]], store=store, clock=simulation.clock) as changed:
            with pytest.raises(RunBlocked, match="recorded"):
                changed.get("run").result(timeout=timedelta(days=2))
            assert store.head(1) == head
            assert "yielded" in changed.get("run").record.reason
        with Simulation([program(a, b, 1, c)], store=store, clock=simulation.clock) as mended:
            assert mended.get("run").result() == ["a", "B", None, "c"]
        assert actors.EFFECTS == {"a": 1, "c": 1}

    def test_equal_programs_are_never_flagged(self, store: OrderedStore):
        """The same program, defined again and replayed at every activation, is the same program."""
        for _ in range(3):
            with Simulation([program(a, b, 1, c)], store=store, cold=True) as simulation:
                simulation.start(program(a, b, 1, c), id="run")
                simulation.run(timeout=3600)
        with Simulation([program(a, b, 1, c)], store=store) as simulation:
            simulation.clock.advance(86400 * 2)
            assert simulation.get("run").result() == ["a", "B", None, "c"]

    def test_arguments_may_be_let_pass(self, store: OrderedStore):
        """A workflow may say that other arguments are no other command."""
        before, after = (program(lambda x=x: put(x), 1, arguments="ignore") for x in ("old", "new"))
        with Simulation([before], store=store) as simulation:
            simulation.start(before, id="run")
            simulation.run(timeout=3600)
            simulation.crash()
        with Simulation([after], store=store) as changed:
            changed.clock.advance(86400)
            assert changed.get("run").result() == ["old", None]


# --- G9 --------------------------------------------------------------------------------------------------------------


@step
def kills() -> None:
    """Takes the process with it."""
    raise AssertionError("faked")


@workflow
def killer() -> Flow[None]:
    """Its step kills every process that runs it."""
    yield from kills()


@step
def leaves() -> None:
    """Tries to end the program."""
    raise SystemExit(3)


@workflow
def leaver() -> Flow[str]:
    """Its step raises SystemExit."""
    try:
        yield from leaves()
    except BaseException as error:
        return type(error).__name__
    return "nothing"


class Killer(Mischief):
    """Kills the process in the body of `kills`, each time."""

    def body(self, step: str, retries: bool, timeout: float | None) -> Any:
        return "crash-before" if step == "kills" else None


class TestG9:
    """One bad run never stops others: process killers, undecodable records, unknown names."""

    def test_one_killer_among_a_hundred(self, store: OrderedStore):
        """A run that kills the process is quarantined after some deaths, and the hundred others end."""
        with Simulation([killer, actors.payment, actors.chain], store=store, faults=Killer()) as simulation:
            bad = simulation.start(killer, id="bad")
            good = simulation.start_many(actors.chain, [(f"good-{n}", (1,)) for n in range(100)])
            simulation.run(timeout=timedelta(days=1))
            assert {run.status for run in good} == {Status.COMPLETED}
            assert bad.status is Status.BLOCKED
            assert "quarantined" in bad.record.reason
            assert simulation.witness.life == 1 + DEATHS_MAX

    def test_a_body_that_leaves_the_program_only_fails(self, store: OrderedStore):
        """`SystemExit` in a body is that step's failure."""
        with Simulation([leaver, actors.payment], store=store) as simulation:
            run = simulation.start(leaver)
            assert simulation.start(actors.payment).result() == "paid"
            assert run.result() in ("RemoteError", "SystemExit")

    def test_an_unknown_name_blocks_its_run_only(self, store: OrderedStore):
        """A workflow nobody serves here waits for an engine that does."""
        with Simulation([actors.payment], store=store) as simulation:
            run: Run[str] = simulation.start("race", id="unknown")
            assert simulation.start(actors.payment).result() == "paid"
            with pytest.raises(RunBlocked, match="no workflow called 'race' is registered"):
                run.result()
        with Simulation([actors.race], store=store) as simulation:
            assert simulation.get("unknown").result() == "work"


# --- G12 -------------------------------------------------------------------------------------------------------------


class TestG12:
    """Damaged records are found, named (key, run, event) and quarantined; never replayed."""

    def test_every_flipped_byte_is_found(self, store: OrderedStore):
        """One bit wrong in any byte of any record of a small store, and `check` names the record."""
        with Simulation([actors.payment], store=store) as simulation:
            run = simulation.start(actors.payment, id="paid")
            run.result()
            assert store.check() == []
            for key in keys_of(store):
                for at in range(len(rewrite(store, key, lambda value: value))):
                    whole = rewrite(store, key, lambda v, at=at: v[:at] + bytes([v[at] ^ 16]) + v[at + 1 :])
                    problems = store.check()
                    assert problems, (key, at)
                    if key[:1] == layout.HISTORY:
                        assert any(p.event == key[-1] and p.run for p in problems)
                    rewrite(store, key, lambda _, whole=whole: whole)
            assert store.check() == []

    @pytest.mark.parametrize("index", range(3))
    def test_a_damaged_event_blocks_its_run_only(self, store: OrderedStore, index: int):
        """A history with a damaged event is not replayed: its run is set aside with the reason, others go on."""
        with Simulation([actors.chain], store=store) as simulation:
            run = simulation.start(actors.chain, 2, id="damaged")
            simulation.run(timeout=60)
            number = run.record.number
            simulation.crash()
        key = layout.HISTORY + layout.run_bytes(number) + layout.index_bytes(index)
        whole = rewrite(store, key, lambda value: bytes([value[0] ^ 1]) + value[1:])
        head = store.head(number)
        with Simulation([actors.chain], store=store, clock=simulation.clock) as later:
            assert later.start(actors.chain, 1, id="good").result() == ["put 0", "LOOK 0"]
            later.run(timeout=7200)
            assert later.get("damaged").status is Status.BLOCKED
            assert "damaged" in later.get("damaged").record.reason
            assert store.head(number) == head
        rewrite(store, key, lambda _: whole)
        with Simulation([actors.chain], store=store, clock=later.clock) as mended:
            assert mended.get("damaged").result() == ["put 0", "LOOK 0", "put 1", "LOOK 1"]
        assert actors.EFFECTS == {"put 0": 2, "put 1": 1}


# --- G13, G14 --------------------------------------------------------------------------------------------------------


class TestG13:
    """Stores of earlier formats open or are refused with a sentence; histories of every release stay replayable."""

    def test_a_newer_format_is_refused_with_a_sentence(self, tmp_path: Path):
        """A store that a later release has written is left alone."""
        folder = str(tmp_path / "store")
        with LmdbBackend.open(folder) as store:
            body = b"\x92" + bytes([layout.FORMAT + 1]) + b"\xa59.9.9"
            rewrite(store, layout.FORMAT_KEY, lambda _: seal(layout.FORMAT_KEY, body))
        with pytest.raises(StoreUnusable, match=f"has format {layout.FORMAT + 1}, and this release of dalsegno reads"):
            LmdbBackend.open(folder)

    @pytest.mark.parametrize("release", RELEASES, ids=lambda folder: folder.name)
    def test_what_earlier_releases_recorded_is_read_and_replayed(self, store: OrderedStore, release: Path):
        """Histories of every release are taken into either store, are sound there, and replay with today's code."""
        for file in sorted(release.glob("*.jsonl")):
            import_runs(store, read_file(file), 0, skip=True)
        with Client(store) as client:
            runs = client.runs()
            assert assert_replays(runs, flows) == len(runs) > 10
            assert {run.status for run in runs} >= {Status.COMPLETED, Status.FAILED, Status.CANCELLED}

    def test_an_event_of_a_later_release_blocks_its_run(self, store: OrderedStore):
        """An event this release does not know is not passed over."""
        with Simulation([actors.chain], store=store) as simulation:
            run = simulation.start(actors.chain, 1, id="newer")
            simulation.run(timeout=60)
            number = run.record.number
            simulation.crash()
        key = layout.HISTORY + layout.run_bytes(number) + layout.index_bytes(1)
        rewrite(store, key, lambda _: seal(key, b"\x92\xcd\x7f\x00\x01"))
        with Simulation([actors.chain], store=store, clock=simulation.clock) as later:
            later.run(timeout=7200)
            assert later.get("newer").status is Status.BLOCKED


@workflow
def parent() -> Flow[list[Any]]:
    """Has a short child and a long one."""
    return list((yield from All(actors.race(), actors.chain(3))))


class TestG14:
    """Retention removes only closed trees, in bounded, resumable batches."""

    def test_only_closed_runs_are_removed(self, store: OrderedStore):
        """A purge that names everything takes what has ended and leaves what waits or works, which then ends."""
        with Simulation([parent, actors.race, actors.chain], store=store) as simulation:
            run = simulation.start(parent, id="parent")
            ended = simulation.start_many(actors.race, [(f"race-{n}", ()) for n in range(20)])
            simulation.run(timeout=60)
            removed = store.purge([each.record.number for each in ended])
            assert removed == 20
            assert store.purge([each.number for each in store.runs(status=[Status.RUNNING])]) == 0
            assert run.result()[0] == "work"
            assert store.check() == []


def test_crash_is_what_nobody_catches_by_accident():
    """The simulated death is no `Exception`; code that catches those does not survive it."""
    assert not issubclass(Crash, Exception)
    assert Retry().retries(RemoteError("x")) is False
