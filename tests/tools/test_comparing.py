"""Two histories side by side: matched by what events are about, compared in what they say."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from dalsegno.core import events as ev
from dalsegno.core.events import Event
from dalsegno.core.values.codec import Codec
from dalsegno.tools.comparing import Comparison, compare
from dalsegno.tools.options import console
from dalsegno.tools.reports import diff_data, diff_report

CODEC = Codec()


def payload(value: object) -> bytes:
    return CODEC.encode(value)


def started(id: str = "order-1", *args: Any, **changes: Any) -> ev.RunStarted:
    return attrs.evolve(ev.RunStarted(1, "fulfil", id, 1, CODEC.encode_call(args, {}), b"seed"), **changes)


def done(id: str, name: str, value: object = None, digest: bytes = b"1" * 8, at: int = 5) -> ev.StepCompleted:
    return ev.StepCompleted(at, id, name, digest, 7, 1, 3, payload(value))


def failed(id: str, name: str) -> ev.StepFailed:
    return ev.StepFailed(5, id, name, b"1" * 8, 7, 1, 3, CODEC.encode_error(ValueError("no")))


def parted(a: list[Event], b: list[Event]) -> list[tuple[int | None, int | None, list[str]]]:
    """Where two histories differ, and in which fields."""
    return [(p.a, p.b, [d.field for d in p.differences]) for p in compare(a, b, CODEC).divergences]


def test_ids_times_and_lines_do_not_count():
    """Two runs that did the same at other times, under other ids, are the same."""
    a = [started("order-1", 5), done("1", "charge", "ok"), ev.SignalReceived(9, 4, "go", payload(None))]
    b = [
        started("order-2", 5, seed=b"other", generation=3, origin="fork"),
        attrs.evolve(done("1", "charge", "ok"), at_us=77, took_us=1, line=20),
        ev.SignalReceived(99, 40, "go", payload(None)),
    ]
    assert parted(a, b) == []


def test_values_are_compared_inside():
    """Only the part of a payload that differs is named, by its path."""
    a = [started(), done("1", "load", {"rows": [1, 2, {"n": "x"}], "same": True})]
    b = [started(), done("1", "load", {"rows": [1, 2, {"n": "y"}], "same": True})]
    comparison = compare(a, b, CODEC)
    (pair,) = comparison.divergences
    (difference,) = pair.differences
    assert (difference.field, difference.a, difference.b) == ("result.rows[2].n", "x", "y")


def test_other_outcomes_of_one_command_stand_together():
    """A step that completed here and failed there is one difference of one command."""
    assert parted([started(), done("1", "charge")], [started(), failed("1", "charge")])[0][:2] == (1, 1)
    assert "event" in parted([started(), done("1", "charge")], [started(), failed("1", "charge")])[0][2]


def test_another_step_at_the_same_place():
    """A renamed step is a difference in its name."""
    assert parted([started(), done("1", "charge")], [started(), done("1", "refund")]) == [(1, 1, ["name"])]


def test_other_arguments_with_the_same_result():
    """Where only the digest of the arguments differs, it is named; beside a differing result it is noise."""
    same_result = parted([started(), done("1", "c", 1)], [started(), done("1", "c", 1, b"2" * 8)])
    assert same_result == [(1, 1, ["arguments' digest"])]
    assert parted([started(), done("1", "c", 1)], [started(), done("1", "c", 2, b"2" * 8)]) == [(1, 1, ["result"])]


def test_more_and_fewer_events():
    """What only one history has is said to be there only."""
    a = [started(), done("1", "a"), done("2", "b")]
    assert parted(a, a[:2]) == [(2, None, [])]
    assert parted(a[:2], a) == [(None, 2, [])]
    assert parted([], a[:1]) == [(None, 0, [])]


def test_branches_that_ended_in_another_order():
    """The same events in another order are matched, and shown once as moved."""
    a = [started(), done("1.1", "left"), done("1.2", "right")]
    b = [started(), done("1.2", "right"), done("1.1", "left")]
    divergences = compare(a, b, CODEC).divergences
    assert [(pair.moved, pair.differences) for pair in divergences] == [(True, ())]


def test_attempts_and_repeated_signals_are_kept_apart():
    """The second attempt is compared with the second attempt, the second signal with the second."""

    def attempt(number: int, why: str) -> ev.StepAttemptFailed:
        return ev.StepAttemptFailed(5, "1", "c", b"1" * 8, 7, number, 3, CODEC.encode_error(OSError(why)), 9)

    a = [
        started(),
        attempt(1, "x"),
        attempt(2, "x"),
        ev.SignalReceived(6, 1, "s", payload(1)),
        ev.SignalReceived(7, 2, "s", payload(2)),
    ]
    b = [
        started(),
        attempt(1, "x"),
        attempt(2, "y"),
        ev.SignalReceived(6, 1, "s", payload(1)),
        ev.SignalReceived(7, 2, "s", payload(3)),
    ]
    found = parted(a, b)
    assert [(pair[0], pair[1]) for pair in found] == [(2, 2), (4, 4)]
    assert found[0][2] == ["error.message"]


def test_endings():
    """However two runs ended, their ends are one place."""
    a = [started(), ev.RunCompleted(9, payload(1))]
    b = [started(), ev.RunFailed(9, CODEC.encode_error(ValueError("no")))]
    assert parted(a, b)[0][:2] == (1, 1)


def shown(comparison: Comparison, a: list[Event], b: list[Event], capsys: pytest.CaptureFixture[str]) -> str:
    out = console()
    for part in diff_report(comparison, a, b):
        out.print(part)
    return capsys.readouterr().out


def test_the_report_has_the_first_at_length(capsys: pytest.CaptureFixture[str]):
    """The first divergence is told in full, later ones in a table, and data holds them all."""
    a = [started("a", 1), done("1", "charge", 1), done("2", "ship", 1)]
    b = [started("a", 2), done("1", "charge", 2)]
    text = shown(compare(a, b, CODEC), a, b, capsys)
    assert "They part at event 0 of A, 0 of B" in text
    assert "arguments[0][0]" in text
    assert "result: 1 | 2" in text
    assert "only in A" in text
    data = diff_data(compare(a, b, CODEC), a, b)
    assert [(one["a"], one["b"]) for one in data["divergences"]] == [(0, 0), (1, 1), (2, None)]
    assert data["same"] is False
    assert "The same: 3 events" in shown(compare(a, a, CODEC), a, a, capsys)


def test_a_long_history_is_compared_quickly():
    """Ten thousand events are matched without a quadratic search."""
    a = [started(), *(done(str(number), "step", number) for number in range(1, 10_000))]
    b = [*a[:5000], done("5000", "other", 1), *a[5001:]]
    assert len(parted(a, b)) == 1
