"""Replaying histories against code: what fits, what diverges and where, what cannot be told."""

from __future__ import annotations

import pytest

from dalsegno.core.errors import DecodeError
from dalsegno.core.history import decode_history, encode_event
from dalsegno.core.store import Backend
from dalsegno.tools.app import load_app
from dalsegno.tools.stores import Kept, all_runs, find_run, read_run
from dalsegno.tools.timeline import as_far_as_readable
from dalsegno.tools.verifying import Verdict, answer, grouped, verify, verify_run

TODAY = "tests.tools.shop"
CHANGED = "tests.tools.shop_changed"


def test_the_code_that_recorded_fits(store: Backend):
    """Every history fits, and its events are counted."""
    findings = list(verify(store, all_runs(store), load_app(TODAY)))
    assert {one.verdict for one in findings} == {Verdict.FITS}
    assert sum(one.events for one in findings) == sum(store.head(run.number) for run in store.runs())
    assert answer(findings) == 0
    assert grouped(findings) == []


def test_the_first_divergence(store: Backend):
    """Event, both sides, what differs, and the lines then and now, with the source."""
    finding = verify_run(read_run(store, find_run(store, "order-1")), load_app(CHANGED))
    assert finding.verdict is Verdict.DIVERGES
    assert finding.event == 1
    assert finding.recorded.startswith("step 'charge'")
    assert finding.yielded.startswith("step 'reserve'")
    assert finding.differs == "name"
    assert finding.file.endswith("shop_changed.py")
    assert finding.source == "yield from reserve(order)"
    assert finding.line_then not in (None, finding.line_now)


def test_groups(store: Backend):
    """Runs with one cause are one group, and groups with open runs come first."""
    groups = grouped(verify(store, all_runs(store), load_app(CHANGED)))
    assert [(group.example.workflow, group.runs, group.open) for group in groups] == [("fulfil", 3, 1), ("nap", 1, 1)]
    assert set(groups[0].run_ids) == {"order-1#1", "order-2#1", "order-3#1"}
    assert answer(verify(store, all_runs(store), load_app(CHANGED))) == 1


def test_what_cannot_be_told(store: Backend):
    """A record that cannot be read, and a workflow that is not there, are neither fit nor divergence."""
    kept = read_run(store, find_run(store, "order-2"))
    records = [*kept.records[:2], b"\xc1"]
    events, unreadable = as_far_as_readable(records)
    finding = verify_run(Kept(kept.record, tuple(records), tuple(events), unreadable), load_app(TODAY))
    assert (finding.verdict, finding.event) == (Verdict.UNKNOWN, 2)
    missing = verify_run(read_run(store, find_run(store, "nap-1")), load_app(CHANGED))
    assert missing.verdict is Verdict.UNKNOWN
    assert answer([finding, missing]) == 2


def test_a_history_that_was_tampered_with(store: Backend):
    """An event taken out is a divergence, not an accident."""
    kept = read_run(store, find_run(store, "both-1"))
    events = [event for event in kept.events if type(event).__name__ != "ChildCompleted"]
    changed = Kept(kept.record, tuple(map(encode_event, events)), tuple(events))
    assert verify_run(changed, load_app(TODAY)).verdict is Verdict.DIVERGES


def test_reading_pages(store: Backend, monkeypatch: pytest.MonkeyPatch):
    """A history is read a page at a time and comes out whole."""
    monkeypatch.setattr("dalsegno.tools.stores.PAGE", 2)
    record = find_run(store, "order-1")
    kept = read_run(store, record)
    assert list(kept.events) == decode_history(store.history(record.number))
    with pytest.raises(DecodeError):
        decode_history([b"\xc1"])
