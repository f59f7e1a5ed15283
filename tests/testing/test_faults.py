"""Fault plans and the faulty store: every site does what its sentence says, and after it has healed all runs end."""

from __future__ import annotations

import pickle
from collections import Counter
from functools import partial
from typing import Any

import pytest

from dalsegno import BadOption, Engine, Flow, RunClosed, Status, StoreError, StoreFull, workflow
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.errors import UnknownOutcome
from dalsegno.core.store import Applied, Refusal, Refused, Sent
from dalsegno.testing.clock import VirtualClock
from dalsegno.testing.faults import SITES, Crash, FaultPlan, Faults, Mischief
from dalsegno.testing.faulty_store import FaultyStore
from dalsegno.testing.run_promises import begin, signal, step
from dalsegno.testing.simulation import Simulation
from tests.testing import actors


@pytest.fixture(autouse=True)
def _nothing_happened():
    actors.EFFECTS.clear()


# --- plans -----------------------------------------------------------------------------------------------------------


def test_every_site_is_told_in_a_sentence():
    """A plan lists its sites, each with a name in two words and one sentence."""
    for site in FaultPlan.sites():
        assert site.sentence[0].isupper()
        assert site.sentence.endswith(".")
        assert site.name.count(".") == 1
        assert 0 < site.chance <= 1


@pytest.mark.parametrize(
    "plan",
    [
        FaultPlan(),
        FaultPlan(17),
        FaultPlan(3, on=1.0, only=("store.full", "clock.jump"), most=7),
        FaultPlan(5, chances={"step.slow": 0.5, "store.full": 1.0}),
    ],
    ids=str,
)
def test_a_plan_is_one_line(plan: FaultPlan):
    """A plan prints as a line that is read back as the same plan, and does the same."""
    line = str(plan)
    assert "\n" not in line
    again = FaultPlan.parse(line)
    assert again == plan
    assert again.switched_on() == plan.switched_on()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "is no fault plan"),
        ("seed=3", "is no fault plan"),
        ("faults seed=x", "invalid literal"),
        ("faults store.fun=1", "no fault site is called 'store.fun'"),
        ("faults store.full=2", "no probability"),
        ("faults on=7", "a probability"),
    ],
)
def test_a_line_that_no_plan_prints_is_refused(line: str, why: str):
    """What cannot be a plan is refused, and says why."""
    with pytest.raises(BadOption, match=why):
        FaultPlan.parse(line)


def test_an_unknown_site_is_refused_with_those_there_are():
    """A misspelled site is no site that never fires."""
    with pytest.raises(BadOption, match=r"no fault site is called 'store\.ful'; there are: store\.full"):
        FaultPlan(only=("store.ful",))


def test_the_first_coin_is_for_the_whole_run():
    """Each seed has its own few sites, and over many seeds each site is on about as often as it should be."""
    on = Counter(name for seed in range(400) for name in FaultPlan(seed, on=0.25).switched_on())
    assert on.keys() == SITES.keys()
    assert all(60 < count < 140 for count in on.values())


def test_a_site_keeps_its_coins_whatever_others_there_are():
    """The stream of one site does not depend on which others are on."""
    alone, among = Faults(FaultPlan(1, on=1, only=("news.late",))), Faults(FaultPlan(1, on=1))
    assert [alone.fires("news.late") for _ in range(20)] == [among.fires("news.late") for _ in range(20)]


def test_a_plan_stops_after_its_most():
    """No more faults than `most` fire in one run."""
    faults = Faults(FaultPlan(1, on=1, only=("news.late",), chances={"news.late": 1.0}, most=3))
    assert [faults.fires("news.late") for _ in range(5)] == [True, True, True, False, False]
    assert faults.fired == {"news.late": 3}


# --- the store -------------------------------------------------------------------------------------------------------


def faulty(site: str, **options: Any) -> FaultyStore:
    """A memory store with one site that always fires, and one run in it."""
    inner = MemoryBackend()
    begin(inner, "order-1")
    return FaultyStore(inner, FaultPlan(1, on=1, only=(site,), chances={site: 1.0}), **options)


@pytest.mark.parametrize(
    ("site", "error", "applied"),
    [
        ("store.full", StoreFull, False),
        ("store.error", StoreError, False),
        ("store.unknown-before", UnknownOutcome, False),
        ("store.unknown-after", UnknownOutcome, True),
        ("store.crash-before", Crash, False),
        ("store.crash-after", Crash, True),
        ("store.stuck", UnknownOutcome, True),
    ],
)
def test_a_write_fails_before_or_after_it_took_effect(site: str, error: type[BaseException], applied: bool):
    """Each way to fail raises its error, and has or has not been applied."""
    store = faulty(site)
    with pytest.raises(error):
        store.commit([step(store.inner.find("order-1"), 1, b"more")])  # type: ignore[arg-type]
    assert len(store.inner.history(1)) == 1 + applied


@pytest.mark.parametrize(("site", "seconds"), [("store.slow", (0, 10)), ("store.stuck", (600, 600))])
def test_slow_calls_take_virtual_time(site: str, seconds: tuple[float, float]):
    """A slow call moves the clock, and so does one that is stuck and then given up."""
    clock = VirtualClock()
    store = faulty(site, clock=clock)
    try:
        store.find("order-1")
    except StoreError:
        assert site == "store.stuck"
    assert seconds[0] <= clock.steady_us() / 1e6 <= seconds[1]
    assert clock.steady_us() > 0


def test_after_a_crash_every_call_is_one():
    """Whoever caught the crash on its way cannot go on: the process is dead."""
    store = faulty("store.crash-after")
    with pytest.raises(Crash):
        store.find("order-1")
    store.faults.heal()
    for call in (lambda: store.find("order-1"), store.changes, lambda: store.inbox(1)):
        with pytest.raises(Crash):
            call()


def test_a_conflict_refuses_and_applies_nothing():
    """A transition is refused as if another writer had been there first; the others of its flush go through."""
    store = FaultyStore(MemoryBackend(), OneConflict())
    runs = [begin(store.inner, f"order-{n}") for n in range(3)]
    verdicts = store.commit([step(run, 1, b"more") for run in runs])
    assert verdicts == [Applied(), Refused(Refusal.HEAD), Applied()]
    assert [len(store.inner.history(run.number)) for run in runs] == [2, 1, 2]


class OneConflict(Mischief):
    """Refuses the second transition."""

    def __init__(self) -> None:
        self.asked = 0

    def fires(self, site: str) -> bool:
        self.asked += site == "store.conflict"
        return site == "store.conflict" and self.asked == 2


def test_news_is_lost_and_late_and_comes_twice():
    """Notifications may fail in every way that polling makes good."""
    store = faulty("news.lost")
    begin(store.inner, "order-2")
    run = store.inner.find("order-1")
    assert run is not None
    (verdict,) = store.commit([step(run, 1, messages=(signal("order-2"),))])
    assert verdict == Applied()
    assert store.inner.inbox(2)
    late = faulty("news.late")
    before = late.changes()
    late.inner.send([signal("order-1")], 1)
    assert late.changes() == before
    late.faults.heal()
    assert late.changes() != before
    twice = faulty("mail.twice")
    twice.inner.send([signal("order-1")], 1)
    assert [run for _, run in twice.news()] == [1, 1]


def test_timers_come_late_and_twice():
    """Due timers may not be named at first, and may be named again."""
    for site, named in (("timers.late", 0), ("timers.twice", 2)):
        store = faulty(site)
        run = store.inner.find("order-1")
        assert run is not None
        store.inner.commit([step(run, 1, timers_set=((5, "t:1"),))])
        assert len(store.due(9)) == named


def test_a_message_with_a_dedup_key_is_sent_twice_and_stored_once():
    """What a careful client would do after an unknown outcome does no harm."""
    store = faulty("sends.twice")
    assert store.send([signal("order-1", dedup="once")], 1) == [(Sent.ACCEPTED, 1)]
    assert len(store.inner.inbox(1)) == 1


def test_a_faulty_store_is_opened_by_url():
    """`FaultyStore.open` opens the store inside, too; without a plan nothing goes wrong."""
    with FaultyStore.open("memory:") as store:
        begin(store, "order-1")
        assert store.record(1) is not None
        assert store.stats()["runs"] == 1
        assert store.check() == []


def test_an_engine_with_threads_works_on_a_faulty_store():
    """Sites that do not crash work with a real engine, too."""
    plan = FaultPlan(1, on=1, only=("store.full", "store.unknown-after", "store.conflict", "news.lost"), most=10)
    with Engine(FaultyStore(MemoryBackend(), plan), workflows=[quick]) as engine:
        while True:
            try:
                run = engine.start(quick, id="quick")
                break
            except StoreError:
                continue
        assert run.result(timeout=30) == ["put 0", "LOOK 0"] * 3


@workflow
def quick() -> Flow[list[str]]:
    """Steps without sleeps in between."""
    done = []
    for _ in range(3):
        done.append((yield from actors.put("put 0")))
        done.append((yield from actors.look("look 0")))
    return done


# --- a whole world under faults --------------------------------------------------------------------------------------


def play(plan: FaultPlan) -> tuple[Simulation, dict[str, Any]]:
    """A busy world under a plan: seven kinds of run, signals, sends; then everything heals, and every run ends."""
    with Simulation(actors.ALL, seed=plan.seed, faults=plan) as simulation:
        simulation.start(actors.chain, 3, id="chain")
        simulation.start(actors.fan, 3, id="fan")
        simulation.start(actors.correspondence, id="letters")
        simulation.start(actors.sender, "letters", id="sender")
        simulation.start(actors.payment, id="payment")
        simulation.start(actors.race, id="race")
        counted = simulation.start(actors.generations, 3, id="generations")

        def count(number: int) -> None:
            try:
                counted.signal("number", number)
            except RunClosed:  # faults may delay a signal beyond the patience of the run
                pass

        for number in (1, 2, 3):
            simulation.at(number, partial(count, number))
        simulation.run(timeout=20 * 86400)
        simulation.heal()
        runs = ("chain", "fan", "letters", "sender", "payment", "race", "generations")
        results = {id: simulation.get(id).result() for id in runs}
        assert not simulation.witness.broken
        assert not [run for run in simulation.runs() if run.status.open]
        assert simulation.backend.check() == []
        return simulation, results


def check(results: dict[str, Any]) -> None:
    """What has to come out whatever happened."""
    assert results["chain"] == ["put 0", "LOOK 0", "put 1", "LOOK 1", "put 2", "LOOK 2"]
    assert results["fan"][:3] == ["fetch 0", "fetch 1", "fetch 2"]
    assert results["letters"] == ["one", "two", "three"]
    assert results["sender"] == "sent"
    assert results["payment"] in ("paid", "unknown")
    assert results["race"] == "work"
    assert actors.EFFECTS["payment#1/1"] <= 1


@pytest.mark.parametrize("site", SITES)
def test_every_site_by_itself_fires_and_heals(site: str):
    """With one kind of fault only, and often: nothing recorded is done again, and every run ends as it should."""
    if site.startswith("step.error"):
        chance = 0.3
    else:
        chance = min(1.0, 3 * SITES[site].chance)
    simulation, results = play(FaultPlan(11, on=1, only=(site,), chances={site: chance}))
    check(results)
    assert isinstance(simulation.faults, Faults)
    assert simulation.faults.fired[site] > 0


@pytest.mark.parametrize("seed", range(40))
def test_many_faults_at_once_heal(seed: int):
    """Each seed misbehaves in its own few ways; what has to come out comes out."""
    check(play(FaultPlan(seed))[1])


def test_one_seed_one_history_under_faults_too():
    """The same plan and seed give byte-equal histories, crashes and all."""

    def histories() -> list[list[bytes]]:
        simulation, _ = play(FaultPlan(4, on=0.6))
        return [simulation.backend.history(number) for number in range(1, 12)]

    assert histories() == histories()


def test_result_heals_when_nothing_moves_any_more():
    """A run whose lease was lost waits for another engine; `result()` opens one."""
    plan = FaultPlan(1, on=1, only=("lease.lost",), chances={"lease.lost": 1.0}, most=3)
    with Simulation(actors.ALL, faults=plan) as simulation:
        assert simulation.start(actors.chain, 1).result() == ["put 0", "LOOK 0"]
        assert {run.status for run in simulation.runs()} == {Status.COMPLETED}


def test_signals_of_one_simulation_after_another_all_arrive():
    """Under faults every signal is said with a key; those of the next simulation of a store are others."""
    plan = FaultPlan(1, on=1, only=("store.unknown-after",), chances={"store.unknown-after": 0.5})
    store = MemoryBackend()
    for word in ("one", "two", "three"):
        with Simulation(actors.ALL, store=store, faults=plan) as simulation:
            run = simulation.start(actors.correspondence, id="letters")
            run.signal("word", word)
            simulation.run(timeout=60)
    with Simulation(actors.ALL, store=store) as simulation:
        assert simulation.get("letters").result() == ["one", "two", "three"]


def test_a_plan_survives_a_trip_to_another_process():
    """Plans are plain values."""
    assert pickle.loads(pickle.dumps(FaultPlan(3, on=0.5))) == FaultPlan(3, on=0.5)
