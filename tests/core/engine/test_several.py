"""Several engines on one store: who takes which runs, and what happens when one is frozen, killed or cut off."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from dalsegno import BadOption, Engine, Flow, Receive, Run, Sleep, Status, step, workflow
from dalsegno.core.engine.bodies import step_context
from dalsegno.core.engine.leases import LENGTH_S
from dalsegno.core.events import StepCompleted
from dalsegno.core.store import Backend, RunRecord
from dalsegno.testing.several import Several

LONG_S = 30.0


@step
def short(n: int) -> int:
    """A step."""
    return n + 1


@step
def long(n: int) -> int:
    """A step that is at work for half a minute."""
    return n + 1


@workflow
def chain(n: int) -> Flow[int]:
    """Short steps."""
    for _ in range(3):
        n = yield short(n)
    return n


@workflow
def lasting(n: int) -> Flow[int]:
    """A step that takes long, and a short one."""
    n = yield long(n)
    n = yield short(n)
    return n


@workflow
def waiting() -> Flow[str]:
    """Sleeps, then waits for a word."""
    yield Sleep(20)
    return (yield from Receive("word", str))


@workflow
def patient() -> Flow[str]:
    """Waits for a word. (A timer is due by the wall clock of whoever looks, so that clocks far apart fire it late.)"""
    return (yield from Receive("word", str))


def several(**options: object) -> Several:
    return Several([chain, lasting, waiting, patient], takes={long: LONG_S}, **options)  # type: ignore[arg-type]


def owners(runs: list[RunRecord]) -> Counter[str]:
    return Counter(record.owner for record in runs)


def record_of(store: Backend, id: str) -> RunRecord:
    found = store.find(id)
    assert found is not None
    return found


def test_workers_share_what_nobody_has_begun():
    """Of a hundred runs that a client created each of three workers does some, and each step is recorded once."""
    with several(members=3) as crowd:
        runs = [crowd.start(chain, n, id=f"{n}") for n in range(100)]
        assert crowd.until(lambda: all(run.ended for run in runs))
        assert [run.result() for run in runs] == [n + 3 for n in range(100)]
        assert all(sum(isinstance(event, StepCompleted) for event in run.history()) == 3 for run in runs)
        share = owners([run.record for run in runs])
        assert len(share) == 3
        assert min(share.values()) > 10
        assert crowd.backend.check() == []


def test_messages_and_timers_are_left_to_an_owner_who_lives():
    """Whoever put a run away hears its timer and its signal; nobody else claims it."""
    with several(put_away_after=0.5) as crowd:
        run = crowd.start(waiting, id="w")
        crowd.run(10)
        before = record_of(crowd.backend, "w")
        (other,) = (member for member in crowd.members if member.around.owner != before.owner)
        asked = other.cut.calls["claim"]
        crowd.run(15)
        run.signal("word", "now")
        assert crowd.until(lambda: run.ended)
        assert run.result() == "now"
        after = record_of(crowd.backend, "w")
        assert (after.owner, after.epoch) == (before.owner, before.epoch)
        assert other.cut.calls["claim"] == asked


@pytest.mark.parametrize("skews", [(0, 0), (3600, -3600), (-1e6, 1e6)], ids=["none", "hours", "days"])
@pytest.mark.parametrize("noticed", [True, False])
def test_the_runs_of_a_dead_worker_go_on(noticed: bool, skews: tuple[float, float]):
    """At once where its death is noticed, else within its lease and a second, however far the clocks are apart; also
    runs that were put away, with what came for them before anybody knew."""
    with several(skews=skews, put_away_after=0.5) as crowd:
        runs = [crowd.start(lasting, n, id=f"{n}") for n in range(8)]
        away = [crowd.start(patient if any(skews) else waiting, id=f"away {n}") for n in range(4)]
        crowd.run(5)
        assert len(owners([run.record for run in runs])) == 2
        dead = away[0].record.owner
        begun = crowd.elapsed
        crowd.kill([member.around.owner for member in crowd.members].index(dead), noticed=noticed)
        for run in away:
            run.signal("word", run.id)
        assert crowd.until(lambda: all(run.record.owner != dead for run in runs))
        assert crowd.elapsed - begun < (1 if noticed else LENGTH_S + 1)
        assert noticed or crowd.elapsed - begun > LENGTH_S - 4
        assert crowd.until(lambda: all(run.ended for run in runs) and all(run.ended for run in away))
        assert [run.result() for run in runs] == [n + 2 for n in range(8)]
        assert [run.result() for run in away] == [run.id for run in away]


def test_whoever_was_frozen_beyond_his_lease_changes_nothing():
    """His runs are taken over; thawed, he records nothing of them, his bodies learn it, and he works on with others."""
    seen: list[bool] = []

    def look(n: int) -> int:
        seen.append(step_context().cancelled)
        return n + 1

    with several(fakes={long: look}, skews=(0, 77)) as crowd:
        runs = [crowd.start(lasting, n, id=f"{n}") for n in range(8)]
        crowd.run(5)
        member = crowd.members[0]
        mine = [run for run in runs if run.record.owner == member.around.owner]
        assert mine
        crowd.freeze(0)
        crowd.run(LENGTH_S + 1)
        assert all(run.record.owner != member.around.owner for run in runs)
        assert all(run.record.deaths == 1 for run in mine)
        heads = {run.id: len(run.history()) for run in mine}
        commits, taken = member.commits, {run.record.number for run in mine}
        crowd.thaw(0)
        crowd.run(2)
        assert member.commits == commits
        assert not taken & set(member.loop.live)
        assert {run.id: len(run.history()) for run in mine} == heads
        assert crowd.until(lambda: all(run.ended for run in runs))
        assert [run.result() for run in runs] == [n + 2 for n in range(8)]
        assert Counter(seen) == {False: len(runs), True: len(mine)}
        more = [crowd.start(chain, n) for n in range(40)]
        assert crowd.until(lambda: all(run.ended for run in more))
        assert owners([run.record for run in more])[member.around.owner] > 0


def test_without_a_lease_no_body_begins():
    """A worker that cannot renew its lease starts no body until it knows that its runs are still its own."""
    with several(members=1) as crowd:
        (member,) = crowd.members
        run = crowd.start(chain, 1, id="c")
        crowd.freeze(0)
        crowd.run(1)
        crowd.cut_off(0)
        crowd.thaw(0)
        crowd.run(LENGTH_S + 5)
        assert not member.leases.valid()
        assert not run.ended
        crowd.cut_off(0, away=False)
        assert crowd.until(lambda: run.ended, timeout=5)
        assert member.leases.valid()


def test_whoever_was_frozen_when_nobody_looked_keeps_his_runs():
    """Without another worker nobody ends his lease: thawed, he goes on under the same epoch."""
    with several(members=1) as crowd:
        run = crowd.start(lasting, 1, id="c")
        crowd.run(1)
        before = run.record
        crowd.freeze(0)
        crowd.run(100)
        crowd.thaw(0)
        assert crowd.until(lambda: run.ended)
        assert (run.record.epoch, run.record.owner) == (before.epoch, before.owner)


def test_whoever_was_frozen_himself_says_nothing_of_others():
    """Two workers that were frozen together, as on a machine that slept, take nothing from each other."""
    with several() as crowd:
        runs = [crowd.start(lasting, n, id=f"{n}") for n in range(8)]
        crowd.run(1)
        before = [run.record for run in runs]
        for number in range(2):
            crowd.freeze(number)
        crowd.run(100)
        for number in range(2):
            crowd.thaw(number)
        assert crowd.until(lambda: all(run.ended for run in runs))
        assert [run.record.epoch for run in runs] == [record.epoch for record in before]


def test_an_engine_that_lacks_a_workflow_leaves_it_to_others():
    """It neither claims nor blocks it; alone it does, and says what is missing."""
    with Several([chain], members=1) as crowd:
        crowd._workflows = [chain, lasting]
        crowd.join()
        run = crowd.start(lasting, 1, id="l")
        assert crowd.until(lambda: run.ended)
        assert run.result() == 3
        assert run.record.owner == crowd.members[1].around.owner
        crowd.kill(1)
        crowd.run(1)
        left = crowd.start(lasting, 1, id="left")
        assert crowd.until(lambda: left.status is Status.BLOCKED)
        assert "no workflow called 'lasting'" in left.record.reason


def test_a_worker_that_stops_hands_over_at_once():
    """Runs of a worker that was asked to stop go on at the other without waiting for a lease, and count no death."""
    with several() as crowd:
        runs = [crowd.start(lasting, n, id=f"{n}") for n in range(8)]
        crowd.run(1)
        crowd.members[0].stop()
        begun = crowd.elapsed
        assert crowd.until(lambda: len(owners([run.record for run in runs])) == 1, timeout=1)
        assert crowd.elapsed - begun < 1
        assert all(run.record.deaths == 0 for run in runs)
        assert crowd.until(lambda: all(run.ended for run in runs))


def test_a_killer_is_set_aside_whichever_worker_it_kills():
    """Deaths are counted over all workers: after five the run is quarantined, and others go on."""
    with several() as crowd:
        bad = crowd.start(lasting, 1, id="bad")
        for _ in range(12):
            crowd.run(4)
            holder = [at for at, one in enumerate(crowd.members) if one.moves and one.loop.live]
            if bad.ended or not holder:
                break
            crowd.kill(holder[0])
            crowd.join()
        crowd.run(5)
        assert bad.status is Status.BLOCKED
        assert bad.record.reason.startswith("quarantined: 5 times")
        good = crowd.start(chain, 1)
        assert crowd.until(lambda: good.ended)
        assert good.result() == 4


@pytest.mark.parametrize("seed", range(20))
def test_anything_may_happen_to_workers(seed: int):
    """Under kills, freezes and cuts in any order every run ends right, and every step is recorded once."""
    with several(seed=seed, members=3, skews=(0, 5000, -5000), put_away_after=1.0) as crowd:
        rng = crowd._rng
        runs = [crowd.start([chain, lasting][n % 2], n, id=f"{n}") for n in range(12)]
        away = [crowd.start(patient, id=f"away {n}") for n in range(4)]
        for _ in range(8):
            crowd.run(rng.uniform(0, 15))
            at = rng.randrange(len(crowd.members))
            what = rng.choice(["kill", "freeze", "thaw", "cut", "mend"])
            if what == "kill" and crowd.members[at].moves:
                crowd.kill(at, noticed=rng.random() < 0.5)
                crowd.join(rng.uniform(-1e5, 1e5))
            elif what in ("freeze", "thaw"):
                crowd.members[at].frozen = what == "freeze"
            elif what in ("cut", "mend"):
                crowd.cut_off(at, what == "cut")
        for at in range(len(crowd.members)):
            crowd.thaw(at)
            crowd.cut_off(at, away=False)
        for run in away:
            run.signal("word", run.id)
        everything: list[Run[Any]] = [*runs, *away]
        for one in everything:
            if not one.ended:
                one.resume()  # what was active in many deaths is suspected of them
        assert crowd.until(lambda: all(one.ended for one in everything))
        assert [run.result() for run in runs] == [n + (2 if n % 2 else 3) for n in range(12)]
        assert [run.result() for run in away] == [run.id for run in away]
        assert all(len({e.id for e in steps}) == len(steps) for run in runs if (steps := completed(run)))
        assert crowd.backend.check() == []


def completed(run: Run[Any]) -> list[StepCompleted]:
    return [event for event in run.history() if isinstance(event, StepCompleted)]


def test_a_lease_has_a_least_length():
    """One that could not be renewed three times is refused."""
    with pytest.raises(BadOption, match="half a second at least"):
        Engine("memory:", workflows=[chain], lease=0.1)
