"""The proof of the demo: it holds where it should, and every way to break the promise is noticed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from dalsegno.examples.demo_proof import Kill, compare, keys_recorded
from dalsegno.examples.ledger import Entry, Reader


def entry(key: str) -> Entry:
    return Entry("run#0", key, 1, f"{key}.py", pid=1, at=0.0)


def ledger(keys: str) -> list[Entry]:
    return [entry(key) for key in keys]


def killed(lines: int, recorded: str) -> Kill:
    return Kill(0.0, lines, frozenset(recorded))


def test_an_undisturbed_run_holds():
    """Each body once, each outcome once."""
    proof = compare(ledger("abc"), [], list("abc"))
    assert proof.holds
    assert (proof.bodies, proof.steps, proof.repeated) == (3, 3, 0)


def test_what_was_in_flight_may_run_again():
    """A step that had begun and was not recorded at a kill runs once more for each such kill."""
    proof = compare(ledger("abbbc"), [killed(2, "a"), killed(3, "a")], list("abc"))
    assert proof.holds
    assert proof.repeated == 2


@pytest.mark.parametrize(
    ("keys", "kills", "recorded", "broken"),
    [
        ("aba", [killed(2, "ab")], "ab", "again"),
        ("aab", [killed(3, "ab")], "ab", "unexplained"),
        ("aaa", [killed(1, "")], "a", "unexplained"),
        ("a", [], "ab", "unseen"),
        ("ab", [], "a", "lost"),
        ("a", [], "aa", "twice"),
    ],
)
def test_each_broken_promise_is_noticed(keys: str, kills: list[Kill], recorded: str, broken: str):
    """A recorded step run again, a repetition without a reason, an outcome without a body, a lost or double one."""
    proof = compare(ledger(keys), kills, list(recorded))
    assert not proof.holds
    assert [name for name in ("again", "unexplained", "unseen", "lost", "twice") if getattr(proof, name)] == [broken]


def test_keys_of_a_history_without_outcomes():
    """Only events that record a step's outcome count."""
    assert list(keys_recorded("run#0", [object()])) == []


def test_a_ledger_is_read_as_it_grows(tmp_path: Path):
    """A missing file is empty, whole lines are read once, and a line without its end is left for later."""
    path = tmp_path / "ledger.jsonl"
    reader = Reader(path)
    assert reader.read() == []
    one, two = (json.dumps(asdict(entry(key))).encode() + b"\n" for key in "ab")
    path.write_bytes(one + two[:10])
    assert reader.read() == [entry("a")]
    path.write_bytes(one + two)
    assert reader.read() == [entry("b")]
    assert reader.entries == ledger("ab")
