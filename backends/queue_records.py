"""What stands under the keys of queues: how a queue stands, how a key of it stands, tasks and places.

Texts that come from workflow code (keys, step ids, names) are kept as bytes, since they need not be printable.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, TypeVar
from zlib import crc32

import msgspec

from dalsegno.backends import layout
from dalsegno.backends.records import CHECKSUM_BYTES, GOOD
from dalsegno.core.queues import PRIORITY_MAX, Kind, Queue, Rate, Task

STEPS: Final = b"s"
RUNS: Final = b"r"
KIND_OF: dict[bytes, Kind] = {RUNS: "run", STEPS: "step"}

LINE, BEHIND, ASIDE, WORK = range(4)
"""Where a task or a run stands: in line, behind its key, aside until its time, or at work."""

_encode = msgspec.msgpack.Encoder().encode


class QueueRow(msgspec.Struct, array_like=True):
    """A queue: what was declared for it, and how it stands. `clock` is the last `now_us` that took something, `fill`
    what its bucket then held, in tokens times microseconds of `rate_per` (None: full)."""

    name: str
    declared: bool = False
    concurrency: int | None = None
    per_key: int | None = None
    rate_count: int = 0
    rate_per: float = 0.0
    turn: int = 0
    clock: int | None = None
    fill: int | None = None
    line: int = 0
    behind: int = 0
    aside: int = 0
    at_work: int = 0

    @property
    def waiting(self) -> int:
        return self.line + self.behind + self.aside

    @property
    def limits(self) -> Queue:
        rate = Rate(count=self.rate_count, per=self.rate_per) if self.rate_count else None
        return Queue(self.name, concurrency=self.concurrency, per_key=self.per_key, rate=rate)

    @property
    def token(self) -> int:
        """What one token is in `fill`."""
        return max(1, round(self.rate_per * 1_000_000))

    def filled(self, now_us: int) -> int:
        """What the bucket holds at a time that is not before `clock`."""
        most = self.rate_count * self.token
        if self.fill is None or self.clock is None:
            return most
        return min(most, self.fill + (now_us - self.clock) * self.rate_count)

    @property
    def token_us(self) -> int | None:
        """When the bucket holds a token again; None where it does not hold anything back."""
        if self.fill is None or self.clock is None or self.fill >= self.token:
            return None
        return self.clock + -(-(self.token - self.fill) // self.rate_count)


class KeyRow(msgspec.Struct, array_like=True):
    """A key of a queue: its last turn, and how many of it are in line or at work, behind, and aside."""

    turn: int = 0
    standing: int = 0
    behind: int = 0
    aside: int = 0


class Entry(msgspec.Struct, array_like=True):
    """What waits in a queue or is at work there. `turn` counts where it is in line or at work."""

    queue: str
    key: bytes
    priority: int
    not_before_us: int
    at_us: int
    state: int
    turn: int


class TaskRow(Entry, array_like=True):
    """A task. Its number is its key."""

    run: int
    workflow_id: str
    generation: int
    step: bytes
    name: bytes
    attempt: int
    payload: bytes
    timeout_us: int | None
    once: bool
    owner: bytes = b""
    claim: int = 0
    deaths: int = 0
    cancelled: bool = False

    def task(self, number: int, details: bytes) -> Task:
        return Task(
            number=number,
            queue=self.queue,
            run=self.run,
            workflow_id=self.workflow_id,
            generation=self.generation,
            step=text(self.step),
            name=text(self.name),
            attempt=self.attempt,
            payload=self.payload,
            key=text(self.key),
            priority=self.priority,
            timeout_us=self.timeout_us,
            once=self.once,
            at_us=self.at_us,
            owner=text(self.owner),
            claim=self.claim,
            deaths=self.deaths,
            cancelled=self.cancelled,
            details=details,
        )


class PlaceRow(Entry, array_like=True):
    """The place of a run, whose number is its key. `name` is what a task's step is called; a run has none."""

    dedup: bytes | None = None
    name: bytes = b""


E = TypeVar("E", bound=Entry)

encode = _encode
decode_queue = msgspec.msgpack.Decoder(QueueRow).decode
decode_key = msgspec.msgpack.Decoder(KeyRow).decode
decode_task = msgspec.msgpack.Decoder(TaskRow).decode
decode_place = msgspec.msgpack.Decoder(PlaceRow).decode


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def data(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def digest(of: bytes) -> bytes:
    return blake2b(of, digest_size=16).digest()


def body_of(key: bytes, record: bytes | None) -> bytes | None:
    """The body of a record that is there and good."""
    return None if record is None or crc32(record, crc32(key)) != GOOD else record[:-CHECKSUM_BYTES]


# --- keys ----------------------------------------------------------------------------------------------------------


def number_bytes(number: int) -> bytes:
    return number.to_bytes(layout.SEQ_BYTES, "big")


def lane_bytes(kind: bytes, name: str) -> bytes:
    """What stands in keys for a queue: its kind, and a digest, since a name can be too long for a key."""
    return kind + digest(data(name))


LANE_BYTES = 17


def priority_bytes(priority: int) -> bytes:
    """A priority as it sorts: the higher first."""
    return (PRIORITY_MAX - priority).to_bytes(4, "big")


def waiting_key(lane: bytes, entry: Entry, number: int) -> bytes:
    """Where something that waits stands."""
    if entry.state == LINE:
        turn = entry.turn.to_bytes(8, "big")
        return layout.LINE + lane + priority_bytes(entry.priority) + turn + number_bytes(number)
    if entry.state == BEHIND:
        return layout.BEHIND + lane + digest(entry.key) + priority_bytes(entry.priority) + number_bytes(number)
    return layout.ASIDE + lane + layout.deadline_bytes(entry.not_before_us) + number_bytes(number)


def waiting_body(entry: TaskRow | PlaceRow) -> bytes:
    """When it was put there, and the step's name: to choose by without reading the whole."""
    return layout.deadline_bytes(entry.at_us) + entry.name


def task_key(number: int) -> bytes:
    return layout.TASK + number_bytes(number)


def step_key(run: int, step: str) -> bytes:
    return layout.TASK_OF + layout.run_bytes(run) + layout.text_bytes(step)[0]


OWNER_BYTES = 16
"""An owner stands in a key as he does in that of his lease."""


def owned_prefix(owner: str) -> bytes:
    return layout.OWNED + layout.lease_key(owner)[1:]


def note_key(run: int, step: str) -> tuple[bytes, bytes]:
    """The key of a note, and what its record must hold of the step's id besides."""
    short, full = layout.text_bytes(step)
    return layout.NOTES + layout.run_bytes(run) + short, full


def place_key(run: int) -> bytes:
    return layout.PLACE + layout.run_bytes(run)


def taken_key(queue: str, dedup: bytes) -> bytes:
    """Under which the run stands that has a `dedup` in a queue."""
    return layout.PLACE_DEDUP + digest(data(queue)) + digest(dedup)
