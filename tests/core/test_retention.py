"""Which closed runs may go: by rule, by example, and against an oracle that tries everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dalsegno import Retention, Status, StoreDamaged
from dalsegno.backends import layout
from dalsegno.backends.lmdb import LmdbBackend
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.errors import BadOption
from dalsegno.core.retention import Judge, Stays, Sweep, newest_created_by
from dalsegno.core.store import NewRun, RunRecord
from dalsegno.core.transfer import BadHistoryFile, Exported
from tests.core.bygone import DAY_US, NOW_US, bygone, grow, left

WEEK = Retention()


def swept(runs: list[NewRun], policy: Retention = WEEK, **options: Any) -> tuple[set[str], Sweep]:
    """What is left after a pass over a store of these runs, and the pass."""
    store = MemoryBackend()
    grow(store, runs)
    sweep = Sweep(store, policy, NOW_US, **options)
    for _ in sweep.portions():
        pass
    assert store.check() == []
    return left(store), sweep


# --- the policy ----------------------------------------------------------------------------------------------------


def test_the_policy_says_how_long():
    """7 days for what completed and 30 for the rest, unless it is said otherwise; what makes no sense is refused."""
    assert (WEEK.completed, WEEK.failed, WEEK.continued, WEEK.archive) == (7 * 86400, 30 * 86400, None, None)
    assert Retention(failed=None).failed is Retention(failed=float("inf")).failed is None
    assert Retention(archive=Path("there")).archive == "there"
    for wrong in ({"completed": -1}, {"archive": 7}, {"archive": ""}, {"archive_for": 60}, {"failed": float("nan")}):
        with pytest.raises(BadOption):
            Retention(**wrong)


@pytest.mark.parametrize(
    ("status", "days"),
    [
        (Status.COMPLETED, 7),
        (Status.CONTINUED, 7),
        (Status.FAILED, 30),
        (Status.CANCELLED, 30),
        (Status.TERMINATED, 30),
    ],
)
def test_each_way_to_end_has_its_time(status: Status, days: int):
    """A run goes when it has been closed for so long, and not a minute before."""
    assert swept([bygone("a", status, days - 0.001)])[0] == {"a#1"}
    assert swept([bygone("a", status, days + 0.001)])[0] == set()


@pytest.mark.parametrize("status", [Status.RUNNING, Status.PAUSED, Status.BLOCKED])
def test_what_is_open_stays(status: Status):
    """However old it is."""
    assert swept([bygone("a", status, 4000)], Retention(completed=0, failed=0))[0] == {"a#1"}


def test_what_is_kept_for_ever_stays():
    """None is for ever; and a closed run that does not say when it closed has no age."""
    ageless = attrs.evolve(bygone("b"), closed_at_us=None)
    kept, sweep = swept([bygone("a", Status.FAILED, 4000), ageless], Retention(failed=None))
    assert kept == {"a#1", "b#1"}
    assert sweep.stays == {Stays.FOREVER: 1}  # what is kept for ever is not even looked at


# --- trees ---------------------------------------------------------------------------------------------------------


def family(*statuses: Status) -> list[NewRun]:
    """A parent with a child that has a child, all closed long ago except as said: parent, child, grandchild."""
    parent, child, grandchild = statuses
    return [
        bygone("p", parent, 100, children=["c"]),
        bygone("c", child, 100, parent=("p", 1, "1"), children=["g"]),
        bygone("g", grandchild, 100, parent=("c", 1, "1")),
    ]


DONE, BUSY = Status.COMPLETED, Status.RUNNING


@pytest.mark.parametrize(
    ("statuses", "stay"),
    [
        ((DONE, DONE, DONE), set()),
        ((DONE, DONE, BUSY), {"p#1", "c#1", "g#1"}),
        ((DONE, BUSY, DONE), {"p#1", "c#1", "g#1"}),
        ((BUSY, DONE, DONE), {"p#1", "c#1", "g#1"}),
        ((Status.BLOCKED, Status.FAILED, DONE), {"p#1", "c#1", "g#1"}),
    ],
)
def test_only_closed_trees_go(statuses: tuple[Status, ...], stay: set[str]):
    """Nothing goes above an open run, and nothing below one."""
    assert swept(family(*statuses))[0] == stay


def test_a_closed_branch_goes_before_its_tree():
    """A parent stays for a child that still works; another child, that has long closed, goes."""
    runs = [
        bygone("p", children=["old", "busy"]),
        bygone("old", parent=("p", 1, "1")),
        bygone("busy", BUSY, parent=("p", 1, "2")),
    ]
    kept, sweep = swept(runs)
    assert kept == {"p#1", "busy#1"}
    assert sweep.stays == {Stays.BELOW: 1}


def test_a_child_too_young_keeps_its_parent():
    """A failed child is kept for 30 days, and its parent, which handled that and completed, as long."""
    runs = [bygone("p", days=8, children=["c"]), bygone("c", Status.FAILED, 8, parent=("p", 1, "1"))]
    assert swept(runs)[0] == {"p#1", "c#1"}


def test_a_parent_that_is_gone_holds_nobody():
    """What is left of a tree whose top was deleted, or never was in this store, goes by its own age."""
    assert swept([bygone("c", parent=("p", 1, "1"))])[0] == set()


def test_a_child_of_an_earlier_use_of_an_id():
    """An id that was used again since belongs to whoever started each run, whatever stands there now."""
    runs = [
        bygone("p", children=["report"]),
        bygone("report", parent=("p", 1, "1")),
        bygone("report", BUSY, generation=2),
    ]
    assert swept(runs)[0] == {"report#2"}


def test_runs_that_claim_to_be_each_others_parent_stay():
    """Damaged or made-up links in a circle end in no endless loop; in doubt, runs stay."""
    runs = [
        bygone("a", parent=("b", 1, "1"), children=["b"]),
        bygone("b", parent=("a", 1, "1"), children=["a"]),
    ]
    assert swept(runs)[0] == {"a#1", "b#1"}


def test_a_deep_tree():
    """Two thousand generations of children are no deeper than the stack."""
    runs = [bygone("0", children=["1"])]
    for at in range(1, 2000):
        runs.append(bygone(str(at), parent=(str(at - 1), 1, "1"), children=[str(at + 1)]))
    assert swept(runs)[0] == set()
    assert swept([*runs, bygone("2000", BUSY, parent=("1999", 1, "1"))])[0] == {f"{at}#1" for at in range(2001)}


# --- runs of one id ------------------------------------------------------------------------------------------------


def chain(*last: Status, days: float = 100) -> list[NewRun]:
    """Two runs that continued as new, and then these."""
    return [bygone("a", s, days, generation=g) for g, s in enumerate((Status.CONTINUED, Status.CONTINUED, *last), 1)]


def test_a_chain_goes_as_a_whole():
    """Runs that continued as new stay while their chain goes on, and go when all of it may."""
    assert swept(chain(BUSY))[0] == {"a#1", "a#2", "a#3"}
    assert swept(chain(DONE))[0] == set()
    assert swept(chain(Status.FAILED, days=29))[0] == {"a#1", "a#2", "a#3"}


def test_a_chain_without_end_sheds_what_is_old():
    """With a time for them, runs that continued as new go after that, oldest first, while their chain goes on."""
    policy = Retention(continued=50 * 86400)
    assert swept(chain(BUSY), policy)[0] == {"a#3"}
    assert swept(chain(BUSY, days=49), policy)[0] == {"a#1", "a#2", "a#3"}


def test_children_of_a_chain_that_goes_on():
    """A generation that continued as new has closed: what it started goes, unless it still works."""
    runs = [
        bygone("a", Status.CONTINUED, children=["done", "busy"]),
        bygone("a", BUSY, generation=2),
        bygone("done", parent=("a", 1, "1")),
        bygone("busy", BUSY, parent=("a", 1, "2")),
    ]
    assert swept(runs)[0] == {"a#1", "a#2", "busy#1"}


def test_the_newest_run_of_an_id_goes_last():
    """A success that came after a failure stays as long as that: else the id would mean the failure again."""
    runs = [bygone("a", Status.FAILED, 20), bygone("a", generation=2, days=19)]
    kept, sweep = swept(runs)
    assert kept == {"a#1", "a#2"}
    assert sweep.stays == {Stays.EARLIER: 1, Stays.YOUNG: 1}
    assert swept([bygone("a", days=20), bygone("a", Status.FAILED, 19, generation=2)])[0] == {"a#2"}


# --- an oracle -----------------------------------------------------------------------------------------------------


@attrs.frozen
class World:
    """Records, and who asks for them."""

    records: tuple[RunRecord, ...]

    def find(self, workflow_id: str, generation: int) -> RunRecord | None:
        return next((r for r in self.records if (r.workflow_id, r.generation) == (workflow_id, generation)), None)

    def children(self, record: RunRecord) -> Iterator[RunRecord | None]:
        yield None
        yield from (r for r in self.records if r.parent[:2] == (record.workflow_id, record.generation))

    def without(self, gone: set[int]) -> World:
        return World(tuple(r for r in self.records if r.number not in gone))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Up to five ids with up to three runs each; parents among the runs of ids before."""
    records: list[RunRecord] = []
    for id in "abcde"[: draw(st.integers(1, 5))]:
        for generation in range(1, draw(st.integers(1, 3)) + 1):
            status = draw(st.sampled_from([*Status, Status.COMPLETED, Status.COMPLETED]))
            above = [r for r in records if r.workflow_id != id]
            parent = draw(st.sampled_from([None, *above]))
            days = draw(st.sampled_from([3, 20, 40]))
            records.append(
                RunRecord(
                    number=len(records) + 1,
                    workflow_id=id,
                    generation=generation,
                    workflow="w",
                    status=status,
                    active=False,
                    created_at_us=0,
                    closed_at_us=None if status.open else NOW_US - days * DAY_US,
                    digest=b"",
                    parent=() if parent is None else (parent.workflow_id, parent.generation, "1"),
                )
            )
    return World(tuple(records))


def oracle(world: World, policy: Retention) -> set[int]:
    """The largest set of runs that may go: begin with all, and take out whoever breaks a rule until nobody does."""

    def above(record: RunRecord) -> Iterator[RunRecord]:
        while record.parent and (parent := world.find(*record.parent[:2])) is not None:
            yield parent
            record = parent

    def kept_s(status: Status) -> float | None:
        if status is Status.CONTINUED:
            return policy.completed if policy.continued is None else policy.continued
        return policy.completed if status is Status.COMPLETED else policy.failed

    going = set[int]()
    for record in world.records:
        kept = kept_s(record.status)
        if not record.status.open and kept is not None and record.closed_at_us is not None:
            old = record.closed_at_us + kept * 1e6 <= NOW_US
            if old and not any(parent.status.open for parent in above(record)):
                going.add(record.number)
    while True:
        stay = set[int]()
        for record in world.records:
            needs = [child for child in world.children(record) if child is not None]
            if (before := world.find(record.workflow_id, record.generation - 1)) is not None:
                needs.append(before)
            after = world.find(record.workflow_id, record.generation + 1)
            if record.status is Status.CONTINUED and policy.continued is None and after is not None:
                needs.append(after)
            if any(each.number not in going for each in needs):
                stay.add(record.number)
        if not going & stay:
            return going
        going -= stay


POLICIES = st.sampled_from(
    [
        WEEK,
        Retention(continued=86400),
        Retention(completed=0, failed=0),
        Retention(failed=None),
        Retention(completed=None),
    ]
)


@given(worlds(), POLICIES, st.randoms(use_true_random=False))
def test_the_judge_and_the_oracle_agree(world: World, policy: Retention, random: Any):
    """In whatever order runs are asked about, what may go is what the oracle lets go; and wherever it stops in between,
    what has gone depended on nothing that is left, and the rest is found again."""
    allowed = oracle(world, policy)
    judge, asked = Judge(policy, NOW_US, world), list(world.records)
    random.shuffle(asked)
    order = [each.number for record in asked for going in judge.decide(record) for each in going]
    assert len(order) == len(set(order))
    assert set(order) == allowed
    assert {record.number for record in asked if judge.why(record) is None} == allowed
    for done in range(len(order)):
        after = world.without(set(order[:done]))
        assert oracle(after, policy) == set(order[done:])
        for gone in (record for record in world.records if record.number in order[:done]):
            assert not any(each is not None for each in after.children(gone))
            assert not any(r.workflow_id == gone.workflow_id and r.generation < gone.generation for r in after.records)


# --- a pass over a store -------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(-1, 51), st.sets(st.integers(0, 39)))
@example([5, 5, 5], 5, {1})
def test_where_a_pass_begins(ages: list[int], cut: int, gone: set[int]):
    """Where clocks go forward, halving finds the very run: those below were created by then, those from there on
    later. Numbers of runs that were deleted are in nobody's way."""
    store = MemoryBackend()
    made = grow(store, [bygone(str(at), created_days=age) for at, age in enumerate(sorted(ages, reverse=True))])
    store.purge([record.number for at, record in enumerate(made.values()) if at in gone])
    mark = newest_created_by(store, NOW_US - cut * DAY_US)
    for record in store.runs():
        assert (record.created_at_us <= NOW_US - cut * DAY_US) == (record.number < mark)


def test_a_quick_pass_looks_at_few():
    """Of runs that were created lately, none is looked at: they cannot have closed long ago."""
    runs = [bygone(f"old-{n}", days=20) for n in range(3)] + [bygone(f"new-{n}", days=2) for n in range(500)]
    kept, sweep = swept(runs, thorough=False)
    assert (len(kept), sweep.removed, sweep.examined) == (500, 3, 3)
    assert swept(runs)[1].examined == 503


def test_a_thorough_pass_finds_what_a_wrong_clock_made():
    """A run that was created by a clock far ahead is found by what it says of its end."""
    store = MemoryBackend()
    grow(store, [bygone("a", days=20), bygone("b", days=20, created_days=-4000), bygone("c", days=20)])
    for thorough in (False, True):
        for _ in Sweep(store, WEEK, NOW_US, thorough=thorough).portions():
            pass
        assert left(store) <= {"b#1", "c#1"}
    assert left(store) == set()


def test_a_pass_is_bounded_and_may_be_left_anywhere():
    """Batches are small; a pass that is left after any number of portions is taken up by the next, to the same end."""
    runs = [bygone("top", children=[f"c-{n}" for n in range(300)])]
    runs += [bygone(f"c-{n}", parent=("top", 1, str(n + 1))) for n in range(300)]
    sizes: list[int] = []

    class Counting(MemoryBackend):
        def purge(self, runs: Any) -> int:
            sizes.append(len(runs))
            return super().purge(runs)

    store, passes = Counting(), 0
    grow(store, runs)
    while left(store):
        passes += 1
        for at, _ in enumerate(Sweep(store, WEEK, NOW_US).portions()):
            assert len(left(store)) == 301 or passes > 1 or "top#1" in left(store)
            if at > 60 * passes:
                break
        assert passes < 20
    assert passes > 2
    assert max(sizes) <= 100
    assert sum(sizes) == 301


def test_a_dry_pass_and_a_limit():
    """A dry pass counts and deletes nothing; a limit ends a pass early, and says so."""
    runs = family(DONE, DONE, DONE)
    kept, sweep = swept(runs, dry=True)
    assert (len(kept), sweep.removed, sweep.went) == (3, 3, {("fulfil", DONE): 3})
    kept, sweep = swept(runs, limit=2)
    assert (kept, sweep.removed, sweep.more) == ({"p#1"}, 2, True)
    assert swept(runs, limit=3)[1].more is False


def test_each_run_is_archived_before_it_goes():
    """The archive gets every run whole, while it is still there."""
    store, archived = MemoryBackend(), dict[str, Exported]()
    grow(store, [*family(DONE, DONE, DONE), bygone("a"), bygone("a", generation=2)])

    def put(one: Exported) -> None:
        assert store.find(one.run.workflow_id, one.run.generation) is not None
        archived[one.run_id] = one

    sweep = Sweep(store, WEEK, NOW_US, put=put)
    for _ in sweep.portions():
        pass
    assert set(archived) == {"p#1", "c#1", "g#1", "a#1", "a#2"}
    assert left(store) == set()
    assert len(archived["p#1"].events) == 3


def test_what_the_archive_does_not_take_stays():
    """A history that could not be read again is refused by the archive: its run stays, and so do the later ones of its
    id; the pass goes on."""
    store = MemoryBackend()
    grow(store, [bygone("a"), bygone("a", generation=2), bygone("b")])

    def put(one: Exported) -> None:
        if one.run_id == "a#1":
            raise BadHistoryFile("it does not read back")

    sweep = Sweep(store, WEEK, NOW_US, put=put)
    for _ in sweep.portions():
        pass
    assert left(store) == {"a#1", "a#2"}
    assert sweep.stays == {Stays.UNREADABLE: 1, Stays.EARLIER: 1}


def test_what_cannot_be_read_stays(tmp_path: Path):
    """A damaged history may have started something: its run stays, with those after it, and the pass goes on."""
    with LmdbBackend.open(str(tmp_path / "store"), durability="relaxed") as store:
        made = grow(store, [bygone("a"), bygone("a", generation=2), bygone("b"), bygone("c", children=["a"])])
        key = layout.history_range(layout.run_bytes(made["a#1"].number))[0]
        with store.begin(True) as txn:
            txn.put(key, b"not what was written")
            txn.commit()
        with pytest.raises(StoreDamaged):
            store.history(made["a#1"].number)
        sweep = Sweep(store, WEEK, NOW_US)
        for _ in sweep.portions():
            pass
        assert left(store) == {"a#1", "a#2"}
        assert sweep.stays == {Stays.UNREADABLE: 1, Stays.EARLIER: 1}


def test_a_run_that_another_worker_deleted_is_not_archived_as_nothing():
    """Between being chosen and being read, a run may be gone: the archive keeps what it has of it."""
    store, archived = MemoryBackend(), list[str]()
    grow(store, [bygone("a"), bygone("b")])

    def put(one: Exported) -> None:
        archived.append(one.run_id)
        store.purge([record.number for record in store.runs()])  # everything, by somebody else

    for _ in Sweep(store, WEEK, NOW_US, put=put).portions():
        pass
    assert len(archived) == 1
