"""`Send`: signals from run to run, and to oneself."""

from __future__ import annotations

from dalsegno import Flow, Receive, Send, SendFailed, Sleep, workflow
from dalsegno.core.events import RunCompleted, SignalReceived, SignalSent
from dalsegno.core.store import Status
from dalsegno.testing.simulation import Simulation


def test_a_signal_to_oneself_is_seen_before_the_run_ends():
    """A run that ends right after it has sent itself a signal does end, and reports the signal as unread."""

    @workflow
    def mutter() -> Flow[str]:
        yield Send("mutterer", "word", 1)
        return "done"

    with Simulation([mutter]) as simulation:
        run = simulation.start(mutter, id="mutterer")
        assert run.result() == "done"
        sent, received, ended = run.history()[1:]
        assert isinstance(sent, SignalSent)
        assert isinstance(received, SignalReceived)
        assert isinstance(ended, RunCompleted)
        assert ended.unread == {"word": 1}


def test_a_run_receives_what_it_sent_itself():
    """A signal to oneself arrives like any other."""

    @workflow
    def echo() -> Flow[int]:
        yield Send("echo", "word", 7)
        return (yield from Receive("word", int))

    with Simulation([echo]) as simulation:
        assert simulation.start(echo, id="echo").result() == 7


def test_a_signal_to_nobody_or_to_the_dead_fails_where_it_was_sent():
    """`SendFailed` is raised at the `Send`, and says what became of the target."""

    @workflow
    def brief() -> Flow[None]:
        yield Sleep(1)

    @workflow
    def caller(target: str) -> Flow[str]:
        try:
            yield Send(target, "word")
        except SendFailed as error:
            return str(error)
        return "sent"

    with Simulation([brief, caller]) as simulation:
        assert "no run of that id" in simulation.start(caller, "nobody").result()
        ended = simulation.start(brief, id="brief")
        assert ended.result() is None
        assert ended.status is Status.COMPLETED
        assert "has ended (completed)" in simulation.start(caller, "brief").result()
