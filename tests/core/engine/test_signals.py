"""Signals and callbacks: what comes in from outside."""

from __future__ import annotations

import threading

import pytest

from dalsegno import (
    Callback,
    EncodeError,
    Engine,
    Flow,
    InvalidToken,
    NewCallback,
    Receive,
    RunClosed,
    RunNotFound,
    Sleep,
    TimedOut,
    step,
    workflow,
)
from dalsegno.core.events import RunCompleted, SignalReceived, TimerCancelled, TimerFired
from dalsegno.testing.simulation import Simulation


@workflow
def collect_words(count: int) -> Flow[list[object]]:
    """Receive so many words, after a minute."""
    yield Sleep(60)
    words = []
    for _ in range(count):
        words.append((yield Receive("word")))
    return words


def test_signals_wait_and_arrive_in_the_order_they_were_accepted():
    """Signals sent before anybody asks are kept in order, across restarts."""
    with Simulation([collect_words]) as simulation:
        run = simulation.start(collect_words, 5)
        for n in range(3):
            run.signal("word", n)
        simulation.restart()
        for n in range(3, 5):
            run.signal("word", n)
        assert run.result() == [0, 1, 2, 3, 4]


def test_a_signal_with_a_key_is_delivered_once():
    """A second signal with the same `dedup` is accepted and dropped, also after the run has seen the first."""
    with Simulation([collect_words]) as simulation:
        run = simulation.start(collect_words, 2)
        run.signal("word", 1, dedup="k")
        run.signal("word", 2, dedup="k")
        simulation.run(timeout=100)
        run.signal("word", 3, dedup="k")
        run.signal("word", 4, dedup="other")
        assert run.result() == [1, 4]
        run.signal("word", 5, dedup="k")  # it was delivered: the sender need not hear that the run has ended
        with pytest.raises(RunClosed):
            run.signal("word", 6, dedup="new")


def test_signals_nobody_asked_for_are_reported_when_the_run_ends():
    """The closing event counts by name what was never received."""
    with Simulation([collect_words]) as simulation:
        run = simulation.start(collect_words, 1)
        for name in ("word", "word", "other"):
            run.signal(name, 1)
        run.result()
        ended = run.history()[-1]
        assert isinstance(ended, RunCompleted)
        assert ended.unread == {"word": 1, "other": 1}


def test_a_signal_cancels_the_time_out_and_a_late_one_does_not_undo_it():
    """Either the signal or the time-out answers a `Receive`, and what is recorded stays so."""

    @workflow
    def wait(name: str) -> Flow[str]:
        try:
            return (yield from Receive("word", str, timeout=60))
        except TimedOut as error:
            yield Sleep(60)
            return f"no {error.signal} in {error.timeout:g} s"

    with Simulation([wait]) as simulation:
        early, late = simulation.start(wait, "early"), simulation.start(wait, "late")
        simulation.at(59, lambda: early.signal("word", "in time"))
        simulation.at(61, lambda: late.signal("word", "too late"))
        assert early.result() == "in time"
        assert late.result() == "no word in 60 s"
        kinds = [type(e) for e in early.history()]
        assert TimerCancelled in kinds
        assert TimerFired not in kinds


def test_a_payload_that_cannot_be_stored_is_refused_and_an_unknown_run_is_named():
    """`signal` fails before anything is recorded."""
    with Simulation([collect_words]) as simulation:
        run = simulation.start(collect_words, 1)
        with pytest.raises(EncodeError):
            run.signal("word", threading.Lock())
        assert simulation.backend.inbox(run.record.number) == []
        run.terminate()
        simulation.run()
        simulation.backend.purge([run.record.number])
        with pytest.raises(RunNotFound):
            run.signal("word")


def test_signals_from_many_threads_are_all_seen_once():
    """A hundred signals from ten threads, racing with the run's own activations, all arrive exactly once."""

    @workflow
    def count(total: int) -> Flow[list[int]]:
        numbers: list[int] = []
        while len(numbers) < total:
            numbers.append((yield from Receive("number", int)))
        return sorted(numbers)

    with Engine("memory:", workflows=[count]) as engine:
        run = engine.start(count, 100)

        def send(thread: int) -> None:
            for n in range(10):
                run.signal("number", 10 * thread + n, dedup=f"{thread}-{n}")

        threads = [threading.Thread(target=send, args=(thread,)) for thread in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert run.result(timeout=60) == list(range(100))
        seqs = [e.seq for e in run.history() if isinstance(e, SignalReceived)]
        assert seqs == sorted(seqs)


# --- callbacks -----------------------------------------------------------------------------------------------------

tokens: list[str] = []


@step
def hand_out(token: str) -> None:
    """Give a token to the outside."""
    tokens.append(token)


@workflow
def promise() -> Flow[object]:
    """Hand out a promise and wait for it."""
    callback: Callback[object] = yield NewCallback()
    yield hand_out(callback.token)
    return (yield callback)


@pytest.fixture(autouse=True)
def no_tokens():
    """Begin without tokens."""
    tokens.clear()


def test_a_callback_is_answered_by_its_token_once():
    """The value arrives, even across a restart; a second answer is refused, before and after the run's end."""
    with Simulation([promise]) as simulation:
        run = simulation.start(promise)
        simulation.run()
        simulation.restart()
        simulation.complete(tokens[0], {"answer": 42})
        with pytest.raises(InvalidToken, match="was completed before"):
            simulation.fail(tokens[0], "changed my mind")
        assert run.result() == {"answer": 42}
        with pytest.raises(InvalidToken, match="was completed before"):
            simulation.complete(tokens[0], 43)


def test_a_failed_callback_raises_where_it_is_awaited():
    """The error keeps its type; a plain sentence becomes a `RuntimeError`."""
    with Simulation([promise]) as simulation:
        first, second = simulation.start(promise), simulation.start(promise)
        simulation.run()
        simulation.fail(tokens[0], LookupError("gone"))
        simulation.fail(tokens[1], "just no")
        simulation.run()
        errors = {run.error.type for run in (first, second) if run.error is not None}
        assert errors == {"builtins:LookupError", "builtins:RuntimeError"}


def test_a_token_that_was_made_up_or_mistyped_is_refused():
    """A forged secret, another run's name, or rubbish: `InvalidToken`, and the run waits on."""
    with Simulation([promise]) as simulation, Simulation([promise], seed=9) as elsewhere:
        run = simulation.start(promise, id="p")
        simulation.run()
        elsewhere.start(promise, id="p")
        elsewhere.run()
        ours, theirs = tokens
        for forged in (theirs, ours[:-2] + "AA", ours[1:], "", "rubbish", ours + "="):
            with pytest.raises(InvalidToken):
                simulation.complete(forged, 1)
        simulation.complete(ours, 2)
        assert run.result() == 2


def test_a_callback_of_a_run_that_has_ended_cannot_be_answered():
    """Whoever answers too late is told so."""
    with Simulation([promise]) as simulation:
        run = simulation.start(promise)
        simulation.run()
        run.terminate()
        simulation.run()
        with pytest.raises(InvalidToken, match="has ended"):
            simulation.complete(tokens[0], 1)
