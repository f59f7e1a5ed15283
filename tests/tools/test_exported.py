"""Half files through the command line: what there is is shown, what is missing is marked, and nothing is recorded."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from random import Random

import attrs
import pytest
import zstandard

from dalsegno.core.store import open_store
from dalsegno.tools.stores import open_for_reading, read_run
from tests.tools.conftest import Cli

APP = ("--app", "tests.tools.shop")
Spoil = Callable[[list[bytes]], bytes]


def joined(change: Callable[[list[bytes]], list[bytes]]) -> Spoil:
    """A way to spoil a file by its lines."""
    return lambda lines: b"".join(change(lines))


def in_line(number: int, old: bytes, new: bytes) -> Spoil:
    """Change one line, counted from 1."""
    return joined(lambda lines: [*lines[: number - 1], lines[number - 1].replace(old, new), *lines[number:]])


@attrs.frozen
class Case:
    """A way to spoil the file of `orders`; what is said of it; how much there is of the runs, and how each ends."""

    spoil: Spoil
    why: str
    said: str
    events: dict[str, int]
    how: dict[str, str]
    line: int | None = None


WHOLE = {"order-1#1": 6, "order-2#1": 6}
CASES = {
    "in a line": Case(
        lambda lines: b"".join(lines[:5]) + lines[5][:90], "cut", "was cut short in line 6",
        {"order-1#1": 3}, {"order-1#1": "missing"}, 6,
    ),
    "between lines": Case(
        joined(lambda lines: lines[:4]), "cut", "was cut short after line 4", {"order-1#1": 2},
        {"order-1#1": "missing"}, 5,
    ),
    "in the last of several runs": Case(
        joined(lambda lines: lines[:12]), "cut", "order-2#1 has 2 of its 6 events; what came after it is missing",
        {"order-1#1": 6, "order-2#1": 2}, {"order-2#1": "missing"}, 13,
    ),
    "right after a run's first line": Case(
        joined(lambda lines: lines[:2]), "cut", "order-1#1 has 0 of its 6 events", {"order-1#1": 0},
        {"order-1#1": "missing"}, 3,
    ),
    "after the last event": Case(
        joined(lambda lines: lines[:-2]), "cut", "what came after it is missing", WHOLE, {}, 17,
    ),
    "by one byte": Case(lambda lines: b"".join(lines)[:-1], "cut", "lacks the end of its closing line", WHOLE, {}),
    "one line spoiled": Case(
        in_line(5, b'{"event"', b"?"), "line", "cannot be read in line 5", {"order-1#1": 2, "order-2#1": 6},
        {"order-1#1": "unreadable"}, 5,
    ),
    "a line lost": Case(
        joined(lambda lines: [*lines[:4], *lines[5:]]), "line", "event 3 stands where 2 belongs",
        {"order-1#1": 2, "order-2#1": 6}, {"order-1#1": "unreadable"}, 5,
    ),
    "a run's first line spoiled": Case(
        in_line(10, b'"generation"', b'"generatiom"'), "line", "cannot be read in line 10", {"order-1#1": 6}, {}, 10,
    ),
    "something changed": Case(
        in_line(4, b'"receipt 1: 10"', b'"receipt 1: 99"'), "checksum", "nobody can tell where it was changed",
        WHOLE, dict.fromkeys(WHOLE, "doubtful"),
    ),
    "of a later release": Case(
        in_line(4, b"StepCompleted", b"StepDreamt"), "unknown", "knows no event 'StepDreamt'",
        {"order-1#1": 1, "order-2#1": 6}, {"order-1#1": "unreadable"}, 4,
    ),
    "in itself twice": Case(joined(lambda lines: lines * 2), "line", "begins with 'end'", WHOLE, {}, 18),
}  # fmt: skip


@pytest.fixture
def orders(run_replay: Cli, url: str, tmp_path: Path) -> Path:
    """A file with two runs of six events and a published value each: 18 lines."""
    file = tmp_path / "orders.jsonl"
    run_replay("export", "order-2", "order-1", str(file), "--store", url)
    return file


def spoil(file: Path, how: Spoil) -> str:
    """Spoil a file; its name as a store."""
    file.write_bytes(how(file.read_bytes().splitlines(keepends=True)))
    return f"file:{file}"


@pytest.mark.parametrize("name", CASES)
def test_half_a_file_is_shown_as_far_as_it_goes(name: str, run_replay: Cli, orders: Path, tmp_path: Path):
    """What can be read is listed and shown with a mark where it ends; `import` refuses the same file."""
    case, target = CASES[name], tmp_path / "target"
    url = spoil(orders, case.spoil)
    listed = run_replay("ls", "--store", url, "--json")
    assert re.fullmatch(rf"warning: {re.escape(str(orders))} .*; shown as far as it goes\n", listed.stderr)
    assert case.said in listed.stderr
    cut = json.loads(listed.stdout)["cut"]
    assert (cut["file"], cut["why"], cut["line"]) == (str(orders), case.why, case.line)
    if case.line is not None:
        lines = orders.read_bytes().splitlines(keepends=True)
        assert cut["byte"] == len(b"".join(lines[: case.line - 1]))
    runs = {run["run_id"] for run in json.loads(listed.stdout)["runs"]}
    assert runs == set(case.events)
    for run_id in runs:
        shown = run_replay("show", run_id, "--store", url, "--json")
        data = json.loads(shown.stdout)
        assert data["cut"] == cut
        how = case.how.get(run_id, "")
        assert len(data["events"]) == case.events[run_id]
        assert (data["unreadable"] or {}).get("how", "") == how
        mark = {"missing": "is missing", "unreadable": "cannot be read", "doubtful": "in doubt", "": ""}[how]
        assert mark in run_replay("show", run_id, "--store", url).stdout
    refused = run_replay("import", str(orders), "--store", f"lmdb:{target}", code=4)
    assert str(orders) in refused.stderr
    assert not target.exists()


def test_half_a_packed_file(run_replay: Cli, orders: Path):
    """A file packed with gzip shows what can be unpacked of it, and the place is that in the unpacked file."""
    whole = orders.read_bytes()
    url = spoil(orders, lambda _: gzip.compress(whole)[:1000])
    listed = run_replay("ls", "--store", url, "--json")
    assert "of what it unpacks to; packed, it was cut short" in listed.stderr
    cut = json.loads(listed.stdout)["cut"]
    assert len(b"".join(whole.splitlines(keepends=True)[: cut["line"] - 1])) == cut["byte"]
    assert 0 < cut["runs"][0]["events"] < 6


def test_half_a_file_of_zstd(run_replay: Cli, orders: Path):
    """One packed with zstd shows what its whole blocks hold: some 128 KiB of what was packed each."""
    lines, noise = orders.read_bytes().splitlines(keepends=True), Random(1)
    padding = [
        b'{"published": "%d", "value": {"base64": "%s"}}\n' % (n, b64encode(noise.randbytes(90))) for n in range(2000)
    ]
    packed = zstandard.ZstdCompressor().compress(b"".join([*lines[:8], *padding, *lines[9:]]))
    url = spoil(orders, lambda _: packed[: len(packed) * 3 // 4])
    shown = run_replay("show", "order-1", "--store", url)
    assert "was cut short in line" in shown.stderr
    assert "run completed" in shown.stdout


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (lambda data: b"", "is empty: there is nothing to show"),
        (lambda data: data[:30], "was cut short at byte 30, within its first line: there is nothing to show"),
        (lambda data: zstandard.ZstdCompressor().compress(data)[:300], "nothing of its 300 bytes can be unpacked"),
        (lambda data: b"one,two\n1,2\n", "its first line does not say so"),
        (lambda data: data.replace(b'"format": 1', b'"format": 2'), "Upgrade dalsegno"),
    ],
    ids=["empty", "in its first line", "packed", "of another kind", "of a newer format"],
)
def test_nothing_to_show(left: Callable[[bytes], bytes], said: str, run_replay: Cli, orders: Path):
    """Of what is no exported file, or ends within its first line, there is only a sentence."""
    orders.write_bytes(left(orders.read_bytes()))
    for command in (("ls",), ("show", "order-1"), ("check",), ("verify", "--all", *APP)):
        assert said in run_replay(*command, "--store", f"file:{orders}", code=4).stderr


HALF = CASES["in the last of several runs"].spoil
COMMANDS = {
    "why order-2": 0,
    "stats": 0,
    "top": 0,
    "check": 1,
    "diff order-2 order-1": 1,
    "verify --all --app tests.tools.shop": 2,
    "verify order-1 --app tests.tools.shop": 0,
    "verify --all --app tests.tools.shop --processes 2": 2,
    "verify --all --app tests.tools.shop_changed": 1,
    "step order-2 --at 2 --app tests.tools.shop": 0,
    "debug order-2 --at 1 --app tests.tools.shop": 0,
    "where --app tests.tools.shop": 0,
    "coverage --app tests.tools.shop": 0,
    "fork order-2 --at 1 --dry-run --app tests.tools.shop": 2,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_reads_says_it(command: str, run_replay: Cli, orders: Path):
    """Each command that reads works on half a file, warns, and says in its data what is missing."""
    url = spoil(orders, HALF)
    found = run_replay(*command.split(), "--store", url, "--json", code=COMMANDS[command])
    assert f"warning: {orders} was cut short after line 12" in found.stderr
    cut = json.loads(found.stdout)["cut"]
    assert [(run["run_id"], run["events"], run["of"]) for run in cut["runs"]] == [("order-2#1", 2, 6)]


def test_what_is_beyond_the_cut_cannot_be_told(run_replay: Cli, orders: Path):
    """`verify` tells how far the history fits, `check` names file and run, `why` and `step` say where it ends."""
    url = spoil(orders, HALF)
    told = run_replay("verify", "--all", *APP, "--store", url, code=2).stdout
    assert "it fits up to event 2, which is missing, and nobody can tell about the rest" in told
    assert "1 fit, 0 diverge, 1 could not be told" in told
    problems = json.loads(run_replay("check", "--store", url, "--json", code=1).stdout)["problems"]
    assert [(one["run"], one["event"]) for one in problems] == [("", None), ("order-2#1", 2)]
    assert "can be read up to event 2" in run_replay("why", "order-2", "--store", url).stdout
    walked = run_replay("step", "order-2", *APP, "--store", url, stdin=b"g end\nq\n").stdout
    assert "end of what can be shown: event 2 is missing" in walked


def test_a_file_that_was_changed_is_never_said_to_fit(run_replay: Cli, orders: Path):
    """Where the checksum is wrong, every history is in doubt, and still checked for what it says."""
    url = spoil(orders, CASES["something changed"].spoil)
    assert "0 fit, 0 diverge, 2 could not be told" in run_replay("verify", "--all", *APP, "--store", url, code=2).stdout
    problems = json.loads(run_replay("check", "--store", url, "--json", code=1).stdout)["problems"]
    assert ["its checksum is wrong" in one["what"] for one in problems] == [True]


def test_the_page_says_it(run_replay: Cli, orders: Path, tmp_path: Path):
    """The page of a run that is cut has it at its head, and in the lane of the run."""
    url, page = spoil(orders, HALF), tmp_path / "page.html"
    run_replay("show", "order-2", "--html", str(page), "--store", url)
    text = page.read_text("utf-8")
    assert "event 2 is missing, so the rest is not shown: the file was cut short after line 12" in text


def test_half_a_run_is_not_passed_on(run_replay: Cli, orders: Path, tmp_path: Path):
    """Half a run is neither exported, where it would pass for a whole one, nor forked past its end; a whole one is."""
    url, out = spoil(orders, HALF), tmp_path / "out.jsonl"
    refused = run_replay("export", "--all", str(out), "--store", url, code=4)
    assert "order-2#1 is not whole and cannot be exported" in refused.stderr
    assert not out.exists()
    late = run_replay("fork", "order-2", "--at", "3", "--dry-run", *APP, "--store", url, code=2)
    assert "event 2 is missing" in late.stderr
    run_replay("export", "order-1", str(out), "--store", url)
    with open_for_reading(f"file:{out}") as store:
        assert [record.run_id for record in store.runs()] == ["order-1#1"]


def test_every_cut_of_a_file(orders: Path, url: str):
    """Wherever a file is cut, what is shown is a prefix of what was exported."""
    data = orders.read_bytes()
    with open_store(url) as store:
        orders_only = [record for record in store.runs() if record.workflow == "fulfil"]
        whole = {record.run_id: read_run(store, record).events for record in orders_only}
    first = data.index(b"\n") + 1
    for at in range(first, len(data), 37):
        orders.write_bytes(data[:at])
        with open_for_reading(f"file:{orders}") as half:
            for record in half.runs():
                kept = read_run(half, record)
                events = whole[record.run_id]
                assert kept.events == events[: len(kept.events)]
                assert (kept.unreadable is None) == (len(kept.events) == len(events))
