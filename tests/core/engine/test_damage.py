"""A damaged record costs one run, which is set aside and can still be ended; no other run feels it."""

from __future__ import annotations

import pytest

from dalsegno import Flow, Receive, RunBlocked, Send, SendFailed, Status, workflow
from dalsegno.backends import layout
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.events import RunTerminated
from dalsegno.core.history import decode_event
from dalsegno.testing.simulation import Simulation


@workflow
def listener() -> Flow[list[int]]:
    """Waits for three numbers."""
    return [
        (yield from Receive("number", int)),
        (yield from Receive("number", int)),
        (yield from Receive("number", int)),
    ]


@workflow
def caller(target: str) -> Flow[str]:
    """Sends a number to another run, and tells what came of it."""
    try:
        yield from Send(target, "number", 1)
    except SendFailed as error:
        return str(error)
    return "sent"


def flip(store: MemoryBackend, key: bytes) -> None:
    """Flip a bit of the record under a key."""
    with store.begin(True) as txn:
        value = txn.get(key)
        assert value is not None
        txn.put(key, bytes([value[0] ^ 1]) + value[1:])
        txn.commit()


@pytest.mark.parametrize("what", ["event", "message"])
def test_a_damaged_record_blocks_its_run_only(what: str):
    """A run with a damaged event or message is blocked with the reason, and the run beside it goes on."""
    with MemoryBackend() as store:
        with Simulation([listener], store=store) as simulation:
            runs = [simulation.start(listener, id=id) for id in ("damaged", "well")]
            for run in runs:
                run.signal("number", 1)
            simulation.run()
        number, prefix = runs[0].record.number, layout.run_bytes(runs[0].record.number)
        with Simulation([listener], store=store) as simulation:
            for id in ("damaged", "well"):
                simulation.get(id).signal("number", 2)
                simulation.get(id).signal("number", 3)
            seq = store.inbox(number)[0].seq
            event, message = layout.HISTORY + prefix + layout.index_bytes(1), layout.INBOX + prefix
            flip(store, event if what == "event" else message + layout.seq_bytes(seq))
            with pytest.raises(
                RunBlocked, match=f"damaged: {'history' if what == 'event' else 'inbox'} of run {number}"
            ):
                simulation.get("damaged").result()
            assert simulation.get("well").result() == [1, 2, 3]
            simulation.run()  # it comes to rest: nobody tries again and again


def test_a_damaged_run_can_be_terminated():
    """A run with a damaged event is ended from outside; its history keeps what can be read of it."""
    with MemoryBackend() as store, Simulation([listener], store=store) as simulation:
        run = simulation.start(listener)
        run.signal("number", 1)
        simulation.run()
        flip(store, layout.HISTORY + layout.run_bytes(run.record.number) + layout.index_bytes(1))
        simulation.restart()
        run.terminate("damaged")
        simulation.run()
        assert run.status is Status.TERMINATED
        last = store.history(run.record.number, store.head(run.record.number) - 1)
        assert isinstance(decode_event(last[0]), RunTerminated)


def test_a_signal_to_a_damaged_run_fails_where_it_was_sent():
    """Who sends to a run whose record is damaged is told so, and goes on."""
    with MemoryBackend() as store, Simulation([listener, caller], store=store) as simulation:
        run = simulation.start(listener, id="damaged")
        simulation.run()
        flip(store, layout.RUN + layout.run_bytes(run.record.number))
        assert "damaged: record of run 1" in simulation.start(caller, "damaged").result()
