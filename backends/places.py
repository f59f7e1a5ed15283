"""Places of runs in queues, within one transaction.

A run's place is one record under its number, from when it is created until it has closed or is taken out of the queue.
What its record as a run says of it (`queue`, `queued`) is for the batch to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dalsegno.backends import layout
from dalsegno.backends.keyvalue import KeyValueTransaction
from dalsegno.backends.queue_records import (
    RUNS,
    WORK,
    PlaceRow,
    body_of,
    data,
    decode_place,
    encode,
    place_key,
    taken_key,
)
from dalsegno.backends.queueing import Lane, Waiting
from dalsegno.backends.records import seal, unseal
from dalsegno.core.queues import Place


class Places:
    """All places, as one transaction sees and changes them. `may_begin` tells whether a run can be let in at all."""

    __slots__ = ("_lanes", "_may_begin", "_txn")

    def __init__(self, txn: KeyValueTransaction, may_begin: Callable[[int], bool]) -> None:
        self._txn = txn
        self._may_begin = may_begin
        self._lanes: dict[str, Lane] = {}

    def lane(self, queue: str) -> Lane:
        """The queue of runs of this name."""
        lane = self._lanes.get(queue)
        if lane is None:
            lane = self._lanes[queue] = Lane(self._txn, self, RUNS, queue)
        return lane

    def lanes(self) -> Iterable[Lane]:
        """Those that were looked at."""
        return self._lanes.values()

    # --- as a shelf ------------------------------------------------------------------------------------------------

    def fetch(self, number: int) -> PlaceRow | None:
        place = self._find(number)
        return place if place is None or self._may_begin(number) else None

    def store(self, number: int, entry: Waiting) -> None:
        key = place_key(number)
        self._txn.put(key, seal(key, encode(entry)))

    def _find(self, run: int) -> PlaceRow | None:
        key = place_key(run)
        body = body_of(key, self._txn.get(key))
        return None if body is None else decode_place(body)

    # --- coming and going ------------------------------------------------------------------------------------------

    def taken(self, place: Place) -> int | None:
        """The run that has this very place already, by its `dedup`. Raises `StoreDamaged`."""
        if place.dedup is None:
            return None
        key = taken_key(place.queue, data(place.dedup))
        record = self._txn.get(key)
        return None if record is None else layout.number(unseal(key, record))

    def sound(self, place: Place) -> bool:
        """Whether a run can get this place: the queue is not damaged."""
        return self.lane(place.queue).sound(data(place.key))

    def put(self, run: int, place: Place, at_us: int, dedup: bool) -> None:
        """A run waits from now on, with its `dedup` if that is to count."""
        row = PlaceRow(
            queue=place.queue,
            key=data(place.key),
            priority=place.priority,
            not_before_us=place.not_before_us,
            at_us=at_us,
            state=WORK,
            turn=0,
            dedup=data(place.dedup) if dedup and place.dedup is not None else None,
        )
        self._take_name(run, row)
        self.lane(place.queue).put(run, row)

    def _take_name(self, run: int, row: PlaceRow) -> None:
        if row.dedup is not None:
            key = taken_key(row.queue, row.dedup)
            self._txn.put(key, seal(key, layout.run_bytes(run)))

    def leave(self, run: int) -> None:
        """A run has no place any more; another moves up."""
        row = self._find(run)
        if row is not None:
            self._txn.delete(place_key(run))
            if row.dedup is not None:
                self._txn.delete(taken_key(row.queue, row.dedup))
            lane = self.lane(row.queue)
            lane.remove(run, row)
            lane.move_up()

    def hand_over(self, run: int, to: int) -> None:
        """The continuation of a run has its place from now on."""
        row = self._find(run)
        if row is not None:
            self._txn.delete(place_key(run))
            self.store(to, row)
            self._take_name(to, row)

    def admit(self, queues: Iterable[str], limit: int, now_us: int) -> list[int]:
        """Runs that are at work from now on."""
        admitted: list[int] = []
        for queue in dict.fromkeys(queues):
            if len(admitted) >= limit:
                break
            for run, row in self.lane(queue).take(limit - len(admitted), now_us, None):
                self.store(run, row)
                admitted.append(run)
        return admitted
