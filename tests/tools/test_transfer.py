"""Exported files: what goes in comes out, and what is wrong with one is said before anything is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import attrs
import pytest

from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.errors import RunConflict
from dalsegno.core.events import EVENTS, CarriedSignal, Event, RunStarted
from dalsegno.core.history import decode_event, encode_event
from dalsegno.core.store import Backend, Message, NewRun, Status, open_store
from dalsegno.core.values.codec import Codec
from dalsegno.tools.forms import BY_NAME, DoesNotFit, event_form, event_from
from dalsegno.tools.stores import all_runs
from dalsegno.tools.timeline import PAYLOADS
from dalsegno.tools.transfer import BadHistoryFile, export_lines, import_runs, read_file, read_lines, take
from tests.tools.conftest import Cli, everything

CODEC = Codec()
SAMPLES: dict[str, Any] = {
    "int": 7,
    "str": "näme\x1b",
    "bytes": CODEC.encode({"a": [1, 2.5]}),
    "Payload": CODEC.encode("value"),
    "int | None": 9,
    "dict[str, str]": {"k": "v"},
    "dict[str, int]": {"approval": 2},
    "tuple[str, ...]": ("3.1",),
    "tuple[int, ...]": (4, 5),
    "tuple[str, int, str] | tuple[()]": ("parent", 1, "2"),
    "tuple[CarriedSignal, ...]": (CarriedSignal(seq=4, name="late", payload=b"\xc0"),),
}


def sample(cls: type[Event]) -> Event:
    """An event of a class with something in every field."""
    kinds = {name: str(kind) for name, kind in cls.__annotations__.items()}
    values = {a.name: SAMPLES[kinds[a.name]] for a in attrs.fields(cls)}  # type: ignore[arg-type]  # all are attrs
    return cls(**values)


@pytest.mark.parametrize("cls", EVENTS, ids=lambda cls: cls.__name__)
def test_every_event_survives_its_form(cls: type[Event]):
    """An event of each class comes back from JSON as the same bytes."""
    event = decode_event(encode_event(sample(cls)))
    form = json.loads(json.dumps(event_form(3, event, CODEC)))
    assert encode_event(event_from(form)) == encode_event(event)


def test_payloads_are_the_fields_that_are_named_so():
    """What is shown as a payload is every field of bytes but digests and seeds."""
    kinds = {(name, str(kind)) for cls in EVENTS for name, kind in cls.__annotations__.items()}
    assert {name for name, kind in kinds if kind == "Payload"} <= set(PAYLOADS)
    assert {name for name, kind in kinds if kind == "bytes"} == {"digest", "seed"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"event": "RunExploded"}, "knows no event 'RunExploded'"),
        ({"version": 9}, "upgrade dalsegno"),
        ({"fields": {"at_us": 1}}, "required field missing"),
        ({"fields": {"at_us": "now", "reason": ""}}, "expected int"),
        ({"fields": {"at_us": 1, "reason": "", "mood": "good"}}, "mood"),
        ({"fields": None}, "not a CancelRequested"),
    ],
)
def test_forms_that_do_not_fit(change: dict[str, Any], said: str):
    """An unknown event, a later version, a missing, wrong or unknown field: each is named."""
    form = event_form(0, BY_NAME["CancelRequested"](1, ""), CODEC) | change  # type: ignore[call-arg]  # at_us, reason
    with pytest.raises(DoesNotFit, match=re.escape(said)):
        event_from(form)


# --- files ---------------------------------------------------------------------------------------------------------


def sealed(lines: list[bytes], **end: Any) -> bytes:
    """Lines with a closing line that fits them."""
    body = b"".join(lines)
    counts = {"runs": body.count(b'{"run"'), "events": body.count(b'{"event"')}
    last = counts | {"checksum": blake2b(body, digest_size=16).hexdigest()} | end
    return body + json.dumps({"end": last}).encode() + b"\n"


Spoil = Callable[[list[bytes]], bytes]


def on_line(number: int, old: bytes, new: bytes) -> Spoil:
    """Change one line, and have the checksum fit: a file written by somebody else."""
    return lambda lines: sealed([*lines[:number], lines[number].replace(old, new), *lines[number + 1 : -1]])


BAD_FILES: dict[str, tuple[Spoil, str, str]] = {
    "empty": (lambda lines: b"", "alien", "its first line does not say so"),
    "something else": (lambda lines: b"\x89PNG\r\n\x1a\n\x00\xff", "alien", "its first line does not say so"),
    "cut between lines": (lambda lines: b"".join(lines[:-1]), "cut", "was cut short"),
    "cut in a line": (lambda lines: b"".join(lines)[:-30], "cut", "was cut short"),
    "cut by one byte": (lambda lines: b"".join(lines)[:-1], "cut", "was cut short"),
    "one byte changed": (lambda lines: b"".join(lines).replace(b"charge", b"change", 1), "checksum", "its checksum is"),
    "a line missing": (lambda lines: b"".join([*lines[:3], *lines[4:]]), "checksum", "its checksum is"),
    "two files in one": (lambda lines: b"".join(lines + lines), "checksum", "its checksum is"),
    "newer format": (on_line(0, b'"format": 1', b'"format": 2'), "newer", "Upgrade dalsegno"),
    "unknown event": (on_line(3, b"StepCompleted", b"StepDreamt"), "unknown", "line 4"),
    "event misnumbered": (on_line(3, b'"index": 1', b'"index": 5'), "line", "stands where 1 belongs"),
    "no base64": (on_line(3, b'"base64": "', b'"base64": "!'), "line", "line 4"),
    "another id": (on_line(1, b'"order-1"', b'"order-9"'), "history", "RunStarted says workflow_id 'order-1'"),
    "another status": (on_line(1, b'"completed"', b'"failed"'), "history", "the record says failed"),
    "unknown status": (on_line(1, b'"completed"', b'"asleep"'), "line", "asleep"),
    "an unknown line": (lambda lines: sealed([*lines[:-1], b'{"note": 1}\n']), "line", "begins with 'note'"),
    "no object": (lambda lines: sealed([*lines[:-1], b"[]\n"]), "line", "not an object"),
    "an event lost": (
        lambda lines: sealed([lines[0], lines[1], lines[2], *lines[-2:-1]]),
        "counts",
        "events, here are",
    ),
    "counts that lie": (lambda lines: sealed(lines[:-1], runs=2), "counts", "says it holds 2 runs"),
}


@pytest.mark.parametrize("spoiled", BAD_FILES, ids=str)
def test_a_bad_file_is_explained_and_nothing_is_written(spoiled: str, run_replay: Cli, url: str, tmp_path: Path):
    """Each way a file can be wrong has its own sentence, exit code 4, and leaves the store as it was."""
    spoil, why, said = BAD_FILES[spoiled]
    file, target = tmp_path / "run.jsonl", f"lmdb:{tmp_path}/target"
    run_replay("export", "order-1", str(file), "--store", url)
    file.write_bytes(spoil(file.read_bytes().splitlines(keepends=True)))
    with pytest.raises(BadHistoryFile, match=re.escape(said)) as caught:
        read_file(file)
    assert caught.value.why == why
    refused = run_replay("import", str(file), "--store", target, code=4)
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "target").exists()


def test_a_file_that_is_not_there(run_replay: Cli, tmp_path: Path):
    """Importing a path that cannot be read says so."""
    assert "No such file" in run_replay("import", str(tmp_path / "no"), "--store", f"lmdb:{tmp_path}/s", code=4).stderr


def started(id: str, generation: int = 1, *more: Event) -> tuple[bytes, ...]:
    """The beginning of a history."""
    first = RunStarted(1, "nap", id, generation, CODEC.encode_call((), {}), b"seed")
    return tuple(encode_event(event) for event in (first, *more))


def new_run(id: str, generation: int = 1, *more: Event, **changes: Any) -> NewRun:
    """A run made by hand."""
    return NewRun(
        workflow_id=id,
        workflow="nap",
        events=started(id, generation, *more),
        created_at_us=5,
        digest=b"12345678",
        on_conflict="restart_closed",
        **changes,
    )


def exported(store: Backend) -> bytes:
    """Everything in a store as a file, oldest first."""
    return b"".join(export_lines([take(store, one) for one in list(all_runs(store))[::-1]], CODEC, 0))


def test_generations_travel_together():
    """All runs of an id arrive with their numbers, and so does a later one alone; a gap between them is refused."""
    source, target, other = MemoryBackend.open(), MemoryBackend.open(), MemoryBackend.open()
    ended = BY_NAME["RunContinued"](2, "1", b"\x92\x90\x80")  # type: ignore[call-arg]  # at_us, id, arguments
    source.create([new_run("nap", 1, ended, status=Status.CONTINUED, closed_at_us=2)])
    source.create([new_run("nap", 2, ended, status=Status.CONTINUED, closed_at_us=2)])
    source.create([new_run("nap", 3)])
    runs = read_lines(exported(source), "file")
    with pytest.raises(BadHistoryFile, match="nap#3 cannot be imported right after nap#1"):
        import_runs(target, [runs[0], runs[2]], 0)
    assert target.runs() == []
    import_runs(other, runs[2:], 0)
    alone = other.find("nap")
    assert alone is not None
    assert alone.generation == 3
    import_runs(target, runs, 0)
    assert everything(target) == everything(source)
    newest = target.find("nap")
    assert newest is not None
    assert (newest.generation, newest.status) == (3, Status.RUNNING)


def test_a_blocked_run_comes_in_running():
    """Whether a run is blocked is for the code to say that it meets where it arrives."""
    source, target = MemoryBackend.open(), MemoryBackend.open()
    source.create([new_run("nap", status=Status.BLOCKED)])
    import_runs(target, read_lines(exported(source), "file"), 0)
    found = target.find("nap")
    assert found is not None
    assert found.status is Status.RUNNING


def test_a_message_that_entered_meanwhile_is_not_doubled(monkeypatch: pytest.MonkeyPatch):
    """A message read from the inbox that stands in the history by the time that is read is exported once."""
    store = MemoryBackend.open()
    store.create([new_run("nap")])
    store.send([Message(workflow_id="nap", kind="signal", name="a", payload=b"\xc0")], 1)
    record = store.find("nap")
    assert record is not None
    waiting = store.inbox(record.number)
    seq = waiting[-1].seq
    entered = encode_event(BY_NAME["SignalReceived"](2, seq, "a", b"\xc0"))  # type: ignore[call-arg]
    monkeypatch.setattr(store, "history", lambda run, start=0, limit=None: [*started("nap"), entered][start:])
    one = take(store, record)
    assert one.messages == ()
    assert len(one.events) == 2


def test_importing_twice_is_a_conflict(store: Backend):
    """Ids that are taken are named, before anything is written."""
    runs = read_lines(exported(store), "file")
    before = everything(store)
    with pytest.raises(RunConflict, match="'both-1'"):
        import_runs(store, runs, 0)
    assert everything(store) == before
    assert import_runs(store, runs, 0, skip=True) == []


def test_an_imported_run_goes_on(run_replay: Cli, run_dalsegno: Cli, url: str, tmp_path: Path):
    """A run in flight is finished by a worker on the store it was moved to, and then fits the code."""
    file, target = tmp_path / "one.jsonl", f"lmdb:{tmp_path}/other"
    run_replay("export", "order-3", str(file), "--store", url)
    run_replay("import", str(file), "--store", target)
    run_dalsegno("signal", "order-3", "approval", '{"granted": true, "by": "eve"}', "--store", target)
    run_dalsegno("worker", "--app", "tests.tools.shop", "--store", target, "--until-done")
    with open_store(target) as store:
        found = store.find("order-3")
        assert found is not None
        assert found.status is Status.COMPLETED
    run_replay("verify", "order-3", "--app", "tests.tools.shop", "--store", target)


def test_a_run_goes_through_a_pipe(run_replay: Cli, url: str, tmp_path: Path):
    """What `export … -` writes, `import -` reads, and half of it is refused as half a file would be."""
    written = run_replay("export", "order-3", "-", "--store", url).stdout_bytes
    target = f"lmdb:{tmp_path / 'other'}"
    refused = run_replay("import", "-", "--store", target, code=4, stdin=written[:-20])
    assert "standard input was cut short" in refused.stderr
    assert not (tmp_path / "other").exists()
    run_replay("import", "-", "--store", target, stdin=written)
    assert run_replay("ls", "--store", target).stdout.count("order-3") == 1


def test_numbers_of_messages_go_on_where_they_left_off():
    """A run that moves knows messages by the numbers of its old store: the new store gives it only later ones."""
    source, target = MemoryBackend.open(), MemoryBackend.open()
    received = BY_NAME["SignalReceived"](2, 30, "a", b"\xc0")  # type: ignore[call-arg]
    scope = BY_NAME["ScopeCompleted"](3, "1", 7, b"\xc0", b"", (30,))  # type: ignore[call-arg]
    source.create([new_run("nap", 1, received, scope)])
    import_runs(target, read_lines(exported(source), "file"), 0)
    target.send([Message(workflow_id="nap", kind="signal", name="a", payload=b"\xc0")], 1)
    found = target.find("nap")
    assert found is not None
    assert all(message.seq > 30 for message in target.inbox(found.number))
