"""`replay verify` over many histories and in the forms of build servers, and what `replay diff` says of times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import attrs
import pytest

from dalsegno.core import events as ev
from dalsegno.core.errors import BadOption
from dalsegno.core.store import Backend, NewRun
from dalsegno.core.values.codec import Codec
from dalsegno.tools.app import load_app
from dalsegno.tools.comparing import compare, timings
from dalsegno.tools.reports import diff_data
from dalsegno.tools.stores import all_runs
from dalsegno.tools.verdicts import junit, sarif
from dalsegno.tools.verifying import Finding, Verdict, grouped, sampled, verify, verify_in_processes
from tests.tools.conftest import Cli

APP = "tests.tools.shop"
CHANGED = "tests.tools.shop_changed"


def many(store: Backend, id: str, count: int) -> None:
    """Copies of a run, with its history as it is."""
    record = store.find(id)
    assert record is not None
    events = tuple(store.history(record.number))
    run = NewRun(
        workflow_id="",
        workflow=record.workflow,
        events=events,
        created_at_us=record.created_at_us,
        digest=record.digest,
        status=record.status,
        closed_at_us=record.closed_at_us,
    )
    store.create([attrs.evolve(run, workflow_id=f"{id}-copy-{number}") for number in range(count)])


# --- in processes ----------------------------------------------------------------------------------------------------


def test_processes_find_the_same(store: Backend):
    """Histories shared out among processes get the verdicts, in the order, that one process gives them."""
    many(store, "order-1", 120)
    records = list(all_runs(store))
    app = load_app(CHANGED)
    shared = list(verify_in_processes(store, records, app, 2))
    assert shared == list(verify(store, records, app))
    assert len(shared) == len(records)


def test_a_process_that_dies(store: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Code that ends its process is a sentence that says how to see it."""
    (tmp_path / "deadly.py").write_text(
        "import multiprocessing, os\n"
        "from tests.tools.shop import *\n"
        "if multiprocessing.parent_process() is not None:\n"
        "    os._exit(3)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BadOption, match="--processes 1 shows"):
        list(verify_in_processes(store, list(all_runs(store)), load_app("deadly"), 2))


def test_verify_in_processes_from_the_command_line(run_replay: Cli, url: str):
    """--processes changes nothing in what is reported."""
    args = ("verify", "--all", "--app", CHANGED, "--store", url)
    one = run_replay(*args, "--processes", "1", code=1).stdout
    assert run_replay(*args, "--processes", "2", code=1).stdout == one
    assert "cause" in one


# --- which runs ------------------------------------------------------------------------------------------------------


def test_only_open_runs(run_replay: Cli, url: str):
    """--open leaves out what has ended, and needs no --all; filters are enough as well."""
    found = json.loads(run_replay("verify", "--open", "--app", APP, "--store", url, "--json").stdout)
    assert {one["run_id"] for one in found["runs"]} == {"order-3#1", "nap-1#1"}
    found = json.loads(run_replay("verify", "--workflow", "both", "--app", APP, "--store", url, "--json").stdout)
    assert len(found["runs"]) == 1
    assert run_replay("verify", "--since", "1d", "--app", APP, "--store", url).exit_code == 0


def test_a_sample(store: Backend, run_replay: Cli, url: str):
    """A sample is the same each time, and has every workflow in it."""
    many(store, "order-1", 50)
    records = list(all_runs(store))
    chosen = sampled(records, 10)
    assert chosen == sampled(records, 10)
    assert {record.workflow for record in chosen} == {record.workflow for record in records}
    assert 10 <= len(chosen) <= 10 + 4
    assert len({record.number for record in chosen}) == len(chosen)
    assert sampled([], 5) == []
    shown = run_replay("verify", "--sample", "4", "--app", APP, "--store", url).stdout
    assert "0 diverge" in shown


# --- groups ----------------------------------------------------------------------------------------------------------


def test_a_group_says_what_is_needed(run_replay: Cli, url: str):
    """Number of runs, how many are open, an example, both sides, the cause, and the lines then and now."""
    shown = run_replay("verify", "--all", "--app", CHANGED, "--store", url, code=1).stdout
    assert "3 runs of 'fulfil' diverge (1 open): order-" in shown
    assert "cause     nothing in the code calls step 'charge' any more" in shown
    assert "shop_changed.py:" in shown
    assert ", recorded at line " in shown


def test_other_sides_are_other_groups():
    """Runs are together only when both sides are the same but for id, place and values."""
    one = Finding(
        run_id="a",
        workflow="w",
        open=True,
        verdict=Verdict.DIVERGES,
        event=3,
        recorded="step 'x' (id 2, line 5)",
        yielded="step 'y' (id 2, w.py:9)",
        differs="name",
    )
    again = attrs.evolve(one, run_id="b", event=9, recorded="step 'x' (id 5, line 5)", open=False)
    other = attrs.evolve(one, run_id="c", yielded="step 'z' (id 2, w.py:9)")
    groups = grouped([one, again, other])
    assert sorted((group.run_ids, group.open) for group in groups) == [(("a", "b"), 1), (("c",), 1)]


def test_a_renamed_workflow(run_replay: Cli, url: str):
    """Code that lacks the workflow says how to keep the name its runs know."""
    shown = run_replay("verify", "nap-1", "--app", CHANGED, "--store", url, code=2).stdout
    assert '@workflow(name="nap") keeps the name' in shown


# --- for build servers ----------------------------------------------------------------------------------------------


def findings(store: Backend) -> list[Finding]:
    return list(verify(store, all_runs(store), load_app(CHANGED)))


def test_junit(store: Backend):
    """A suite for each workflow, a case for each run, with what diverged and what could not be told."""
    found = [*findings(store), attrs.evolve(findings(store)[0], run_id="odd\x1b[2J\x00#1", verdict=Verdict.UNKNOWN)]
    top = Xml.fromstring(junit(found))
    assert (top.get("tests"), top.get("failures"), top.get("errors")) == ("9", "3", "2")
    (suite,) = (each for each in top if each.get("name") == "fulfil")
    failed = next(case for case in suite if case.get("name") == "order-1#1")
    failure = failed.find("failure")
    assert failure is not None
    assert "recorded step 'charge'" in str(failure.get("message"))
    assert "left its recorded path at event 1" in str(failure.text)
    assert str(failed.get("file")).endswith("shop_changed.py")


def test_sarif(store: Backend):
    """A result for each group, at the line of the code of today, with a path relative to where one stands."""
    root = Path(__file__).parents[2]
    log: dict[str, Any] = json.loads(sarif(findings(store), root))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    assert {rule["id"] for rule in run["tool"]["driver"]["rules"]} == {"history-mismatch", "cannot-tell"}
    mismatch = next(result for result in run["results"] if result["ruleId"] == "history-mismatch")
    where = mismatch["locations"][0]["physicalLocation"]
    assert where["artifactLocation"]["uri"] == "tests/tools/shop_changed.py"
    assert (root / "tests/tools/shop_changed.py").read_text().splitlines()[
        where["region"]["startLine"] - 1
    ].strip() == ("yield from reserve(order)")
    assert (mismatch["properties"]["runs"], mismatch["properties"]["open"]) == (3, 1)
    elsewhere = json.loads(sarif(findings(store), Path("/nowhere")))
    assert "file:///" in json.dumps(elsewhere)


def test_files_are_written(run_replay: Cli, url: str, tmp_path: Path):
    """--junit and --sarif write beside the report; a folder that is not there is told before anything is replayed."""
    one, other = tmp_path / "v.xml", tmp_path / "v.sarif"
    args = ("verify", "--all", "--app", CHANGED, "--store", url)
    run_replay(*args, "--junit", str(one), "--sarif", str(other), code=1)
    assert Xml.parse(one).getroot().get("failures") == "3"
    assert json.loads(other.read_text())["runs"][0]["results"]
    assert "there is no folder" in run_replay(*args, "--junit", str(tmp_path / "no/v.xml"), code=2).stderr


# --- times -----------------------------------------------------------------------------------------------------------

CODEC = Codec()


def run_of(*steps: tuple[str, int]) -> list[ev.Event]:
    events: list[ev.Event] = [ev.RunStarted(0, "w", "w-1", 1, CODEC.encode_call((), {}), b"")]
    at = 0
    for number, (name, took) in enumerate(steps, 1):
        at += took
        events.append(ev.StepCompleted(at, str(number), name, b"1" * 8, 5, 1, took, CODEC.encode(None)))
    return events


def test_times_of_one_shape():
    """Runs that did the same are compared by what they took, the largest difference first."""
    a, b = run_of(("charge", 10), ("ship", 1000)), run_of(("charge", 15), ("ship", 9000))
    took = timings(compare(a, b, CODEC), a, b)
    assert took is not None
    assert (took.a_us, took.b_us) == (1010, 9015)
    assert [(span.name, span.more_us) for span in took.spans] == [("ship", 8000), ("charge", 5)]
    assert diff_data(compare(a, b, CODEC), a, b)["timings"]["took_us"] == {"a": 1010, "b": 9015}


def test_times_of_other_shapes():
    """Runs that did other things have no times to compare."""
    a, b = run_of(("charge", 10)), run_of(("charge", 10), ("ship", 9))
    assert timings(compare(a, b, CODEC), a, b) is None
    assert diff_data(compare(a, b, CODEC), a, b)["timings"] is None


def test_diff_shows_times(run_replay: Cli, url: str):
    """Two orders of one shape differ in payloads, by path with both sides, and their times stand below."""
    shown = run_replay("diff", "order-1", "order-2", "--store", url, code=1).stdout
    assert "Times: A took" in shown
    assert "B - A" in shown
    assert "Times" not in run_replay("diff", "order-1", "stock-1", "--store", url, code=1).stdout
