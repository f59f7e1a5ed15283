"""The proof after a torture: ledger, sent signals and histories are compared, and every promise is looked at again.

* Each recorded attempt of a step was executed at least once, and none of its bodies began after its record.
* A step that is run at most once has one line in the ledger, and no process ran one attempt of any step twice.
* Each acknowledged signal is in the history once, in the order acknowledged; one of which nobody knows at most once.
* What was read of a history in between is there still, in its place.
* `dalsegno.testing.histories` finds nothing in any history, between histories, or in the records of the store.
* Every run ended with the value it had to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from dalsegno import Client, Run, StepOutcomeUnknown
from dalsegno.core import events as ev
from dalsegno.core.store import RunRecord
from dalsegno.examples.ledger import Reader
from dalsegno.testing.histories import (
    Execution,
    all_records,
    check_executions,
    check_grown,
    check_store,
    read_history,
)
from tests.torture import cast
from tests.torture.sender import dedups, read_letters
from tests.torture.stage import Stage


@attrs.frozen
class Figures:
    """What a torture came to."""

    runs: int
    events: int
    bodies: int
    repeated: int
    unknown: int
    signals: int
    resumed: int

    def __str__(self) -> str:
        return (
            f"{self.runs} runs, {self.events} events, {self.bodies} bodies ({self.repeated} again after a crash, "
            f"{self.unknown} reported unknown), {self.signals} signals acknowledged, {self.resumed} runs resumed"
        )


def prove(stage: Stage, client: Client) -> Figures:
    """Raise `AssertionError` with everything that does not hold; answer the figures."""
    reader = Reader(stage.ledger)
    reader.read()
    histories = [(record, read_history(client.backend, record)) for record in all_records(client.backend)]
    broken = [str(violation) for violation in check_store(client.backend)]
    executions = [Execution(each.key, each.attempt, round(each.at * 1e6), str(each.pid)) for each in reader.entries]
    by_id = {record.run_id: events for record, events in histories}
    late = [each for each in executions if stage.has_just_thawed(each.by, each.at_us)]
    prompt = [each for each in executions if each not in late]
    # Whoever was frozen just before a body begins it when he is thawed, though others have had the run since.
    ledgers = (executions, prompt)
    found = [[str(one) for one in check_executions(some, by_id, slack_us=1, once=[cast.pay.name])] for some in ledgers]
    broken += found[0] and found[1]
    broken += [str(each) for id, seen in stage.seen.items() for each in check_grown(seen, by_id[id], id)]
    broken += _delivered(stage, client, histories)
    broken += wrong_results(stage, client)
    assert not broken, "\n".join([f"{len(broken)} promises are broken:", *broken])
    begun = Counter((entry.key, entry.attempt) for entry in reader.entries)
    return Figures(
        runs=len(histories),
        events=sum(len(events) for _, events in histories),
        bodies=len(reader.entries),
        repeated=len(reader.entries) - len(begun),
        unknown=sum(_is_unknown(client, event) for _, events in histories for event in events),
        signals=sum(len(letters.acknowledged) for letters in read_letters(stage.notes).values()),
        resumed=stage.resumed,
    )


def _is_unknown(client: Client, event: Any) -> bool:
    return isinstance(event, ev.StepFailed) and isinstance(client.codec.decode_error(event.error), StepOutcomeUnknown)


def _delivered(
    stage: Stage, client: Client, histories: Sequence[tuple[RunRecord, Sequence[ev.Event]]]
) -> Iterator[str]:
    """Compare what was sent with what came. A signal that was carried into the next generation counts once."""
    came: dict[str, dict[int, tuple[str, bytes]]] = {}
    for record, events in histories:
        signals = came.setdefault(record.workflow_id, {})
        for event in events:
            if isinstance(event, ev.SignalReceived):
                signals[event.seq] = (event.name, event.payload)
    for target, letters in read_letters(stage.notes).items():
        got = [client.codec.decode(payload) for _, (_, payload) in sorted(came[target].items())]
        promised = [number for number in got if number in set(letters.acknowledged)]
        if promised != letters.acknowledged:
            yield f"{target}: acknowledged {letters.acknowledged}, and got {got}"
        doubled = [number for number, count in Counter(got).items() if count > 1]
        if doubled or not set(got) <= set(letters.tried):
            yield f"{target}: tried {letters.tried}, and got {got}"
        if dedups(target) and sorted(set(letters.tried)) != sorted(letters.acknowledged):
            yield f"{target}: tried {letters.tried}, of which {letters.acknowledged} were ever acknowledged"


def wrong_results(stage: Stage, client: Client) -> Iterator[str]:
    """Every run ended as it had to."""
    for id, expected in stage.expected.items():
        got = _result(client.get(id))
        if isinstance(got, list) and cast.UNKNOWN in got and isinstance(expected, list):
            got = [right if one == cast.UNKNOWN else one for one, right in zip(got, expected, strict=True)]
        if got != expected:
            yield f"{id} ended with {got!r}, and had to with {expected!r}"


def _result(run: Run[Any]) -> Any:
    try:
        return run.result(timeout=1)
    except Exception as error:
        return error
