"""Where everything lies: the keys of the ordered layout.

The first byte of a key says what it is, then follow fixed-width big-endian numbers, so that keys sort the way they are
read: a run's history is one range in order, its inbox another, the timers one range by deadline.

    m name                       counters and the format number
    r run                        the run's record
    i run seq                    its inbox
    p run key                    what it published
    u run deadline key           its timers (to find them when it closes)
    w id 00 generation           the run of a workflow id and generation
    s status active run          runs by status, so that what is active is found without reading what waits
    t deadline run key           timers by deadline
    n seq                        which run a waiting message belongs to, for the news
    d id digest, key digest      a deduplication key, and the run that accepted it
    l owner digest               the lease of an engine
    x run                        a purged run with records still to be deleted
    q kind queue                 a queue: its limits, and how it stands
    k kind queue key             a key of a queue: its turn, and how many of it are where
    f kind queue priority turn number    the line of a queue, foremost first
    b kind queue key priority number     what stands behind its key
    a kind queue time number             what stands aside until its time
    g number                     a task
    h run step                   the task of a run's step that is wanted
    j owner number               the tasks that an owner has at work
    o run step                   what is noted for a run's step
    v run                        the place of a run in its queue
    c queue dedup                the run that has a place with a dedup
    z run index                  a run's history, one event each

A run's number takes 5 bytes, an event index 4, a sequence number 6: with the 4 bytes of checksum an event costs 14
bytes beyond itself. Histories stand last of all: where the newest run's events are the last keys of the store, pages
are filled to the brim before the next is begun; with anything behind them they would be split in the middle, and half
of each left empty. Texts stand in keys as they are while they are short (LMDB allows 511 bytes); a longer one is
replaced by its digest, and the full text stands in the record. Queues, their keys, owners and dedups stand in keys as
digests of 16 bytes; tasks and runs in queues by numbers of 6 bytes, with `kind` telling which (`backends/queueing.py`).
"""

from __future__ import annotations

import struct
from hashlib import blake2b, sha256

FORMAT = 2
"""The number of this layout. A store that carries a higher one is refused."""

FORMAT_WITHOUT_QUEUES = 1
"""That of a store in which nothing of queues was ever written, which releases before them can open as well."""

FIRST_GENERATION = 1

META, RUN, HISTORY, INBOX, PUBLISHED, TIMERS_OF = b"m", b"r", b"z", b"i", b"p", b"u"
BY_ID, BY_STATUS, BY_DEADLINE, NEWS, DEDUP, PURGING, LEASE = b"w", b"s", b"t", b"n", b"d", b"x", b"l"
QUEUE, QUEUE_KEY, LINE, BEHIND, ASIDE = b"q", b"k", b"f", b"b", b"a"
TASK, TASK_OF, OWNED, NOTES, PLACE, PLACE_DEDUP = b"g", b"h", b"j", b"o", b"v", b"c"

FORMAT_KEY = META + b"format"
NEXT_RUN_KEY = META + b"run"
NEXT_SEQ_KEY = META + b"seq"
NEXT_LEASE_KEY = META + b"lease"
NEXT_TASK_KEY = META + b"task"

RUN_BYTES, INDEX_BYTES, SEQ_BYTES = 5, 4, 6
RUN_MAX, INDEX_MAX, SEQ_MAX = 2**40 - 1, 2**32 - 1, 2**48 - 1

TEXT_MAX = 400  # bytes of a text that stand in a key as they are: 511 less the longest prefix and some room

_DEADLINE_BIAS = 2**63  # moves a signed number of microseconds to where unsigned order is its order
_DEADLINE_MAX = 2**63 - 1


def run_bytes(run: int) -> bytes:
    return run.to_bytes(RUN_BYTES, "big")


def index_bytes(index: int) -> bytes:
    return index.to_bytes(INDEX_BYTES, "big")


def seq_bytes(seq: int) -> bytes:
    return seq.to_bytes(SEQ_BYTES, "big")


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def after(prefix: bytes) -> bytes:
    """The first key beyond all that begin with `prefix`."""
    stripped = prefix.rstrip(b"\xff")  # a prefix of 0xff only has no end; ours begin with a letter
    return stripped[:-1] + bytes((stripped[-1] + 1,))


def history_range(run: bytes, start: int = 0) -> tuple[bytes, bytes]:
    """The keys of a run's events from `start` on. Its end is the next run's beginning."""
    prefix = HISTORY + run
    return prefix + start.to_bytes(INDEX_BYTES, "big"), after(prefix)


def deadline_bytes(deadline_us: int) -> bytes:
    """A deadline as it sorts. What lies beyond the range of 292,000 years either way is put at its edge."""
    return struct.pack(">Q", min(max(deadline_us, -_DEADLINE_BIAS), _DEADLINE_MAX) + _DEADLINE_BIAS)


def deadline_of(data: bytes) -> int:
    return number(data) - _DEADLINE_BIAS


def text_bytes(text: str) -> tuple[bytes, bytes]:
    """A text as it stands at the end of a key, and what the record must hold besides (nothing if it was short).

    A digest is marked by a byte that no UTF-8 text begins with, so that no short text can look like one. Lone
    surrogates pass: keys other than workflow ids come from workflow code and need not be printable.
    """
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= TEXT_MAX:
        return data, b""
    return b"\xff" + sha256(data).digest(), data


def text_of(key_part: bytes, body: bytes) -> str:
    return (body or key_part).decode("utf-8", "surrogatepass")


def id_prefix(workflow_id: str) -> bytes:
    """The beginning of the index keys of a workflow id: ends with NUL, which no id contains, so that the runs of
    'a' and of 'ab' are two ranges."""
    return BY_ID + text_bytes(workflow_id)[0] + b"\0"


def id_key(workflow_id: str, generation: int) -> bytes:
    return id_prefix(workflow_id) + index_bytes(generation)


def status_key(status: int, active: bool, run: bytes) -> bytes:
    return BY_STATUS + bytes((status, active)) + run


def dedup_prefix(workflow_id: str) -> bytes:
    return DEDUP + blake2b(workflow_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def dedup_key(workflow_id: str, key: str) -> bytes:
    """Both parts as digests of 16 bytes: of one length, however long the texts are."""
    return dedup_prefix(workflow_id) + blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def lease_key(owner: str) -> bytes:
    return LEASE + blake2b(owner.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def timer_keys(run: bytes, deadline_us: int, key: str) -> tuple[bytes, bytes, bytes]:
    """The two keys a timer stands under, and the body of both records."""
    text, full = text_bytes(key)
    deadline = deadline_bytes(deadline_us)
    return BY_DEADLINE + deadline + run + text, TIMERS_OF + run + deadline + text, full


RANGES_OF_RUN = (HISTORY, INBOX, PUBLISHED, TIMERS_OF, TASK_OF, NOTES)
"""The prefixes under which a run's number follows at once."""


def describe(key: bytes) -> tuple[str, int | None, int | None]:
    """A key in words, the number of the run it belongs to and the event index, where it has them."""
    kind, rest = key[:1], key[1:]
    run = number(rest[:RUN_BYTES]) if len(rest) >= RUN_BYTES else None
    if kind == HISTORY and len(key) == 1 + RUN_BYTES + INDEX_BYTES:
        index = number(key[-INDEX_BYTES:])
        return f"history of run {run}, event {index}", run, index
    names = {RUN: "record", INBOX: "inbox", PUBLISHED: "published value", TIMERS_OF: "timer", PURGING: "purge mark"}
    names |= {TASK_OF: "task index", NOTES: "note", PLACE: "place in a queue"}
    if kind in names:
        return f"{names[kind]} of run {run} ({key.hex()})", run, None
    if kind == BY_STATUS and len(key) == 3 + RUN_BYTES:
        return f"status index of run {number(key[3:])} ({key.hex()})", number(key[3:]), None
    names = {BY_ID: "id index", BY_DEADLINE: "timer index", NEWS: "news", DEDUP: "deduplication key", META: "counter"}
    names |= {LEASE: "lease", QUEUE: "queue", QUEUE_KEY: "key of a queue", LINE: "line of a queue", TASK: "task"}
    names |= {BEHIND: "what stands behind a key", ASIDE: "what stands aside", OWNED: "task at work"}
    names[PLACE_DEDUP] = "deduplication of places"
    return f"{names.get(kind, 'unknown record')} ({key.hex()})", None, None
