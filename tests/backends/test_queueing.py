"""Order and limits of queues, as properties: for whatever comes in whatever order, by a clock that may go back."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.queues import Queue, Rate, Task
from dalsegno.core.store import RunRecord
from dalsegno.testing.run_promises import apply, begin, step
from dalsegno.testing.task_promises import answer, put, task

SECOND = 1_000_000


def one_by_one(store: MemoryBackend, now_us: int = 1) -> list[Task]:
    """Take one task after the other, until there is none."""
    return list(iter(lambda: next(iter(store.take(["q"], "w", 1, now_us)), None), None))


@given(many=st.integers(1, 15), taken=st.integers(0, 15), others=st.integers(1, 5), batch=st.integers(1, 7))
def test_a_key_with_many_delays_others_by_one_place(many: int, taken: int, others: int, batch: int):
    """Whenever tasks of other keys come, each has at most one task of the busy key before it."""
    with MemoryBackend.open() as store:
        run = begin(store)
        put(store, run, *(task(f"busy {n}", key="busy") for n in range(many)))
        while taken > 0 and (got := store.take(["q"], "w", min(batch, taken), 1)):
            taken -= len(got)
        put(store, run, *(task(f"other {n}", key=str(n)) for n in range(others)))
        order = [one.key for one in one_by_one(store)]
        last = max(at for at, key in enumerate(order) if key != "busy")
        assert order[: last + 1].count("busy") <= 1


def put_some(store: MemoryBackend, run: RunRecord, coin: random.Random, n: int) -> None:
    """Put a task of any of three keys, some of them for later."""
    later = coin.choice([0, 0, coin.randrange(60 * SECOND)])
    put(store, run, task(str(n), key=coin.choice("abc"), priority=coin.randrange(2), not_before_us=later))


@given(seed=st.integers(0, 2**32), concurrency=st.integers(1, 4), per_key=st.integers(1, 3))
def test_limits_are_never_exceeded(seed: int, concurrency: int, per_key: int):
    """Whatever is put, taken, answered, dropped and given back: at no time are more at work than may be; and when all
    is answered nothing is left over."""
    coin = random.Random(seed)
    with MemoryBackend.open() as store:
        store.declare([Queue("q", concurrency=concurrency, per_key=per_key)])
        run, at_work = begin(store), list[Task]()
        for n in range(25):
            what = coin.randrange(5)
            if what < 2:
                put_some(store, run, coin, n)
            elif what == 2:
                at_work += store.take(["q"], coin.choice("wv"), coin.randrange(1, 4), coin.randrange(60 * SECOND))
            elif at_work:
                one = at_work.pop(coin.randrange(len(at_work)))
                if what == 3:
                    answer(store, one)
                else:
                    store.give_back([(one.number, one.claim)], one.owner)
            by_key = Counter(one.key for one in at_work)
            assert len(at_work) <= concurrency
            assert max(by_key.values(), default=0) <= per_key
        while at_work:
            answer(store, at_work.pop())
            at_work += store.take(["q"], "w", 9, 60 * SECOND)
        while got := store.take(["q"], "w", 9, 60 * SECOND):
            for one in got:
                answer(store, one)
        assert (store.tasks_of(run.number), store.check()) == ([], [])


@given(
    steps=st.lists(st.integers(-3 * SECOND, 3 * SECOND), min_size=1, max_size=20),
    rate=st.builds(Rate, count=st.integers(1, 4), per=st.sampled_from([0.1, 1, 2.5, 7])),
)
def test_no_window_has_more_than_the_rate_allows(steps: list[int], rate: Rate):
    """In any time, however long, no more begin than the bucket holds and gets in it; a clock that goes back and comes
    forward again gives nothing twice."""
    with MemoryBackend.open() as store:
        store.declare([Queue("q", rate=rate)])
        run = begin(store)
        put(store, run, *(task(str(n)) for n in range(50)))
        now, latest = 0, -4 * SECOND
        begun: list[tuple[int, int]] = []
        for forward in steps:
            now += forward
            latest = max(latest, now)
            begun.append((latest, len(store.take(["q"], "w", 3, now))))
    for first, (since, _) in enumerate(begun):
        total = 0
        for until, so_many in begun[first:]:
            total += so_many
            assert total <= rate.count + rate.count * (until - since) / (rate.per * SECOND) + 1e-9


def test_a_key_that_comes_again_at_once_is_new():
    """A key of which nothing is left is forgotten, also for what comes in the same transition."""
    with MemoryBackend.open() as store:
        run = begin(store)
        put(store, run, *(task(f"a{n}", key="a") for n in range(3)))
        gone, come = ("a0", "a1", "a2"), (task("b0", key="b"), task("b1", key="b"), task("a", key="a"))
        apply(store, step(run, 1, tasks_withdrawn=gone, tasks=come))
        assert [one.step for one in one_by_one(store)] == ["b0", "a", "b1"]


def test_a_key_that_was_moved_aside_and_back_keeps_its_turn():
    """A look that finds nothing to take leaves what is due where it is, turns and all."""
    with MemoryBackend.open() as store:
        run = begin(store)
        put(store, run, task("later", key="a", not_before_us=5, name="ship"), task("now", key="a", name="ship"))
        before = store.queues(), store.changes()
        assert store.take(["q"], "w", 9, 9, ["pay"]) == []
        assert (store.queues(), store.changes()) == before
        put(store, run, task("last", key="a", name="ship"))
        assert [one.step for one in one_by_one(store, 9)] == ["now", "last", "later"]
