"""Two histories side by side: where they part for the first time, and what differs after that.

Events are matched by what they are about, not by where they stand: the command's id, and what is said about it (its
attempt 2, its deadline, its outcome). So a step that completed here and failed there stands in one row,
and branches that ended in another order are still matched; their order alone is said to differ.

What two runs may always have apart is left out: their ids, seeds, times and the numbers of messages. Where two runs
did the same things (`timings`), what they took for each can be compared: how long steps ran and commands waited. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, Final

import attrs

from dalsegno.core import events as ev
from dalsegno.core.errors import DecodeError
from dalsegno.core.events import Event
from dalsegno.core.values.codec import Codec
from dalsegno.tools.timeline import PAYLOADS, timeline

_APART: Final = frozenset(
    {
        "at_us",
        "took_us",
        "seq",
        "seed",
        "workflow_id",
        "generation",
        "deadline_us",
        "retry_at_us",
        "parent",
        "origin",
        "line",
        "consumed",
        "digest",
    }
)

_ASPECTS: Final[dict[type[Event], str]] = {
    ev.StepStarted: "begun",
    ev.StepAttemptFailed: "attempt",
    ev.TimerSet: "deadline",
    ev.TimerFired: "timer's end",
    ev.TimerCancelled: "timer's end",
    ev.ChildStarted: "start",
    ev.ChildNotStarted: "start",
}


@attrs.frozen(kw_only=True)
class Difference:
    """One field that is not the same. `field` is a path: `result.items[2].price`."""

    field: str
    a: object
    b: object


@attrs.frozen(kw_only=True)
class Pair:
    """What stands at one place of both histories: indices into them, None where one has nothing."""

    a: int | None
    b: int | None
    differences: tuple[Difference, ...] = ()
    moved: bool = False

    @property
    def same(self) -> bool:
        """Whether both have it, alike, in the same order."""
        return self.a is not None and self.b is not None and not self.differences and not self.moved


@attrs.frozen
class Comparison:
    """Two histories aligned."""

    pairs: tuple[Pair, ...]

    @property
    def divergences(self) -> tuple[Pair, ...]:
        """The places where they differ; the first is where to look."""
        return tuple(pair for pair in self.pairs if not pair.same)


def compare(a: Sequence[Event], b: Sequence[Event], codec: Codec) -> Comparison:
    """Align two histories."""
    keys_a, keys_b = _keys(a), _keys(b)
    place_a = {key: index for index, key in enumerate(keys_a)}
    place_b = {key: index for index, key in enumerate(keys_b)}
    pairs: list[Pair] = []
    matcher = SequenceMatcher(None, keys_a, keys_b, autojunk=False)
    for tag, a1, a2, b1, b2 in matcher.get_opcodes():
        if tag == "equal":
            pairs += [
                Pair(a=i, b=j, differences=tuple(_differences(a[i], b[j], codec)))
                for i, j in zip(range(a1, a2), range(b1, b2), strict=True)
            ]
            continue
        for i in range(a1, a2):
            j = place_b.get(keys_a[i])
            if j is None:
                pairs.append(Pair(a=i, b=None))
            else:  # it stands elsewhere in the other one, and is shown once, here
                pairs.append(Pair(a=i, b=j, differences=tuple(_differences(a[i], b[j], codec)), moved=True))
        pairs += [Pair(a=None, b=j) for j in range(b1, b2) if keys_b[j] not in place_a]
    return Comparison(tuple(pairs))


Key = tuple[str, str, int]


def _keys(events: Sequence[Event]) -> list[Key]:
    """What each event is about; a number tells those apart that are about the same."""
    seen: Counter[tuple[str, str]] = Counter()
    keys = []
    for event in events:
        about = _about(event)
        keys.append((*about, seen[about]))
        seen[about] += 1
    return keys


def _about(event: Event) -> tuple[str, str]:
    if event.closes:
        return ("the end", "")
    if isinstance(event, ev.StepAttemptFailed):
        return (f"attempt {event.attempt}", event.id)
    if isinstance(event, ev.SignalReceived):
        return ("signal", event.name)
    if isinstance(event, ev.PatchAdopted):
        return ("patch", event.change)
    id = getattr(event, "id", None)
    return (type(event).__name__, "") if id is None else (_ASPECTS.get(type(event), "outcome"), id)


# --- times ---------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Span:
    """What one command took in either run: `what` says which time it is, as a timeline does."""

    id: str
    what: str
    name: str
    a_us: int
    b_us: int

    @property
    def more_us(self) -> int:
        """How much longer it took in B."""
        return self.b_us - self.a_us


@attrs.frozen(kw_only=True)
class Timings:
    """What two runs of one shape took, as a whole and for each command, the largest difference first."""

    a_us: int
    b_us: int
    spans: tuple[Span, ...]


def timings(comparison: Comparison, a: Sequence[Event], b: Sequence[Event]) -> Timings | None:
    """The times of two runs, if they have one shape: the same events about the same commands, whatever they carry.

    None where an event of one has no counterpart, or is of another kind, since their times are not of the same things.
    """
    for pair in comparison.pairs:
        if pair.a is None or pair.b is None or type(a[pair.a]) is not type(b[pair.b]):
            return None
    line_a, line_b = timeline(a), timeline(b)
    spans = []
    for pair in comparison.pairs:
        row, other = line_a.rows[pair.a or 0], line_b.rows[pair.b or 0]
        if row.took_us is not None and other.took_us is not None:
            spans.append(Span(id=row.id, what=row.what, name=row.name, a_us=row.took_us, b_us=other.took_us))
    spans.sort(key=lambda span: -abs(span.more_us))
    return Timings(a_us=line_a.length_us, b_us=line_b.length_us, spans=tuple(spans))


# --- fields --------------------------------------------------------------------------------------------------------


def _differences(a: Event, b: Event, codec: Codec) -> Iterator[Difference]:
    if type(a) is not type(b):
        yield Difference(field="event", a=type(a).__name__, b=type(b).__name__)
    fields_a, fields_b = ev.fields(a), ev.fields(b)
    found = False
    for name in [*fields_a, *(name for name in fields_b if name not in fields_a)]:
        if name in _APART or fields_a.get(name) == fields_b.get(name):
            continue
        found = True
        if name in PAYLOADS:
            yield from _in_values(name, _value(fields_a.get(name), codec), _value(fields_b.get(name), codec))
        else:
            yield Difference(field=name, a=fields_a.get(name), b=fields_b.get(name))
    # What a command was called with is not recorded, only its digest; where that alone differs it is all there is.
    digests = [fields.get("digest") for fields in (fields_a, fields_b)]
    if not found and None not in digests and digests[0] != digests[1]:
        yield Difference(field="arguments' digest", a=digests[0].hex(), b=digests[1].hex())  # type: ignore[union-attr]


def _value(payload: bytes | None, codec: Codec) -> object:
    if not payload:
        return None
    try:
        node = codec.to_json(payload)
    except DecodeError:
        return {"$type": "unreadable", "bytes": payload.hex()}
    error = node.get("$error") if isinstance(node, dict) else None
    if not isinstance(error, dict):
        return node
    return {key: value for key, value in error.items() if key not in ("args", "traceback")}  # the message has them


def _in_values(path: str, a: Any, b: Any) -> Iterator[Difference]:
    """Where two JSON values differ, as deep inside as they are of one shape."""
    if isinstance(a, dict) and isinstance(b, dict) and a.get("$type") == b.get("$type"):
        for key in [*a, *(key for key in b if key not in a)]:
            yield from _in_values(f"{path}.{key}", a.get(key), b.get(key))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from _in_values(f"{path}[{index}]", one, other)
    elif a != b or type(a) is not type(b):
        yield Difference(field=path, a=a, b=b)
