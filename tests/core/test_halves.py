"""Half files as data: what is read of them, and what is said to be missing. (The commands are in tests/tools.)"""

from __future__ import annotations

from random import Random

import pytest

from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.events import Event, RunStarted, SideEffectRecorded
from dalsegno.core.halves import read_as_far
from dalsegno.core.history import encode_event
from dalsegno.core.packing import pack
from dalsegno.core.store import NewRun
from dalsegno.core.transfer import BadHistoryFile, Exported, export_lines, take
from dalsegno.core.values.codec import Codec

EVENTS = 4


@pytest.fixture
def runs() -> list[Exported]:
    """Four runs in flight, of four events each."""
    store = MemoryBackend.open()
    for id in ("a", "b", "c", "d"):
        noted = (SideEffectRecorded(n, str(n), "", b"", 3, b"\xc0", b"") for n in range(1, EVENTS))
        events: tuple[Event, ...] = (RunStarted(0, "nap", id, 1, b"\x92\x90\x80", b""), *noted)
        encoded = tuple(map(encode_event, events))
        store.create([NewRun(workflow_id=id, workflow="nap", events=encoded, created_at_us=0, digest=b"")])
    return [take(store, record) for record in reversed(store.runs())]


@pytest.fixture
def lines(runs: list[Exported]) -> list[bytes]:
    """The lines of a file with them."""
    return list(export_lines(runs, Codec(), 0))


def test_a_whole_file_lacks_nothing(runs: list[Exported], lines: list[bytes]):
    """A whole file is read as ever, packed or not."""
    data = b"".join(lines)
    assert read_as_far(data, "x") == read_as_far(pack(data)[1], "x") == (runs, None)


def test_a_line_in_the_middle(runs: list[Exported], lines: list[bytes]):
    """A run stops at a line that cannot be read, and the next one begins anew."""
    found, cut = read_as_far(b"".join([*lines[:4], b"{}\n", *lines[5:]]), "x")
    assert [len(one.events) for one in found] == [2, EVENTS, EVENTS, EVENTS]
    assert found[0].events == runs[0].events[:2]
    assert found[1:] == runs[1:]
    assert cut is not None
    assert (cut.line, cut.byte, cut.why) == (5, len(b"".join(lines[:4])), "line")
    assert [(one.run_id, one.events, one.of, one.gone) for one in cut.runs] == [("a#1", 2, EVENTS, False)]


def test_many_lines_in_the_middle(lines: list[bytes]):
    """Of many runs that are not whole the first are named, and the others counted."""
    spoiled = [b"?\n" if line.startswith(b'{"event": "Side') else line for line in lines]
    _, cut = read_as_far(b"".join(spoiled), "x")
    assert cut is not None
    assert "a#1 has 1 of its 4 events; b#1 has 1 of its 4 events; c#1 has 1 of its 4 events; 1 more" in cut.what
    assert cut.what.startswith("cannot be read in line 4")
    assert len(cut.runs) == 4


def test_the_sum_of_what_is_right_line_by_line(lines: list[bytes]):
    """A file whose closing line counts other runs than it has does not fit together, and is shown whole."""
    end = lines[-1].replace(b'"runs": 4', b'"runs": 5')
    found, cut = read_as_far(b"".join([*lines[:-1], end]), "x")
    assert cut is not None
    assert (cut.why, cut.runs, len(found)) == ("counts", (), 4)
    assert cut.what == "does not fit together: says it holds 5 runs and holds 4"


def test_any_damage_leaves_a_cut_or_a_sentence(lines: list[bytes]):
    """Whatever bytes are overwritten, a file is shown with a cut, or refused with its name; nothing else is raised."""
    data, chance, refused = b"".join(lines), Random(4), list[str]()
    for _ in range(300):
        spoiled = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(data))
            spoiled[at : at + chance.randint(1, 9)] = chance.randbytes(chance.randint(0, 9))
        if spoiled == data:
            continue
        try:
            found, cut = read_as_far(bytes(spoiled), "the file")
        except BadHistoryFile as error:
            refused.append(str(error))
        else:
            assert cut is not None
            assert len(found) <= 4
    assert all(said.startswith("the file ") for said in refused)
