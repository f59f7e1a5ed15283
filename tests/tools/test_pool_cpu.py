"""Processor time by pool."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from dalsegno.tools import pool_cpu
from dalsegno.tools.pool_cpu import PoolCpu, used_by

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of other threads")


def busy_until(enough: threading.Event) -> None:
    """Use the processor."""
    while not enough.is_set():
        sum(range(10_000))


@linux
def test_a_pools_time_grows_while_its_threads_work_and_stays_when_they_have_ended():
    """Two threads of a pool count together, other threads do not, and nothing is taken back."""
    cpu, enough = PoolCpu(), threading.Event()
    threads = [threading.Thread(target=busy_until, args=(enough,), name=f"dalsegno-probe-{n}") for n in (1, 2)]
    other = threading.Thread(target=busy_until, args=(enough,), name="other")
    for thread in (*threads, other):
        thread.start()
    while cpu.seconds().get("probe", 0) < 0.05:
        pass
    before = cpu.seconds()["probe"]
    enough.set()
    for thread in (*threads, other):
        thread.join()
    assert cpu.seconds()["probe"] >= before
    assert set(cpu.seconds()) <= {"probe", "step", "durable", "async", "clockwork"}


@linux
def test_the_time_of_a_thread_is_what_it_says_itself():
    """What /proc tells of this thread is what the thread's own clock does, to some hundredths of a second."""
    begun = time.thread_time()
    while time.thread_time() - begun < 0.05:
        pass
    used = used_by(threading.get_native_id())
    assert used is not None
    assert abs(used - time.thread_time()) < 0.05


def test_a_number_used_again_is_another_thread(monkeypatch: pytest.MonkeyPatch):
    """A thread whose time went back is a new one under an old number: what it used is added."""
    cpu, times = PoolCpu(), iter([2.0, 0.5, 0.75])
    thread = threading.Thread(name="dalsegno-step-1")
    thread._native_id = 1  # type: ignore[attr-defined]
    monkeypatch.setattr(threading, "enumerate", lambda: [thread])
    monkeypatch.setattr(pool_cpu, "used_by", lambda id: next(times))
    assert [cpu.seconds()["step"] for _ in range(3)] == [2.0, 2.5, 2.75]


def test_where_nothing_can_be_told_nothing_is():
    """A thread that is not there, as on systems without /proc, has no time."""
    assert used_by(-1) is None
