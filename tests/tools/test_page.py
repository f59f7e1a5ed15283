"""The page as data and as a file: what is in it, how it is bounded, and that nothing in it can act."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from dalsegno.core import events as ev
from dalsegno.core.store import NewRun
from dalsegno.tools.family import Limits, family
from dalsegno.tools.page.contents import Contents
from dalsegno.tools.page.document import block, document
from dalsegno.tools.page.payloads import DECODED_MAX, TEXT_MAX, Payloads, error_text
from dalsegno.tools.timeline import timeline
from tests.tools.conftest import Cli
from tests.tools.histories import (
    BEGAN,
    CODEC,
    attempt_failed,
    child_started,
    completed,
    found,
    new_run,
    started,
    step,
    step_failed,
    store_of,
    timer,
)

EVIL = "</script><script>window.owned = 1</script><img src=x onerror='owned=1'>&\u2028\u202e\x00\x1b[2J\x9b"


def contents_of(*runs: NewRun, full: bool = False) -> Contents:
    """The contents of a page about order-1."""
    store = store_of(*runs)
    root = family(store, found(store, "order-1"), BEGAN + 1_000, Limits(depth=3))
    return Contents(root, CODEC, made_us=BEGAN + 2_000, full=full)


def one_run(*events: ev.Event) -> NewRun:
    """The run order-1."""
    return new_run([started(0), *events])


def named(contents: Contents, sort: str, record: list[Any]) -> dict[str, Any]:
    """A record by the names of its fields."""
    return dict(zip(contents.data["fields"][sort], record, strict=True))


def data_of(page: str) -> Any:
    """The data in a page."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(text)


def payloads_of(page: str) -> list[Any]:
    """The payloads in a page."""
    blocks = re.findall(r'<script type="application/json" id="payloads-\d+">(.*?)</script>', page)
    return [text for one in blocks for text in json.loads(one)]


# --- data ----------------------------------------------------------------------------------------------------------


def test_what_a_page_knows_of_a_run():
    """Runs, lanes and events by the names of their fields, on one clock that begins with the run."""
    child = new_run([started(20, "a", "pack", 7), completed(40, "packed")], ("order-1", 1, "2"), tags={"region": "eu"})
    contents = contents_of(
        one_run(attempt_failed("1", "charge", 1, 5, 9), step("1", "charge", 9, 12, {"sum": 3}, 2),
                child_started("2", "pack", 20, "a"), timer("3", "sleep", 50, 900)), child,
    )  # fmt: skip
    data = contents.data
    assert [(run["id"], run["status"], run["first"], run["events"]) for run in data["runs"]] == [
        ("order-1#1", "running", 0, 5), ("a#1", "completed", 5, 2)
    ]  # fmt: skip
    assert (data["start"], data["stop"], data["runs"][0]["ended"]) == (BEGAN, 1_000, None)
    lanes = [named(contents, "lane", record) for record in data["lanes"]]
    assert [(lane["name"], lane["began"], lane["ended"], lane["summary"]) for lane in lanes] == [
        ("fulfil", 0, None, "[]"), ("charge", 1, 12, '{"sum": 3}'), ("pack", 20, None, "[7]"), ("sleep", 50, None, "")
    ]  # fmt: skip
    spans = [named(contents, "span", span) for span in lanes[1]["spans"]]
    assert [(span["stretch"], span["began"], span["ended"], span["event"]) for span in spans] == [
        ("failed", 1, 5, 1), ("backoff", 5, 9, 1), ("work", 9, 12, 2)
    ]  # fmt: skip
    assert (lanes[2]["own"], lanes[2]["events"]) == (1, [3, 5, 6])
    assert named(contents, "span", lanes[3]["spans"][0])["due"] == 900
    failed = named(contents, "event", data["events"][1])
    assert (failed["what"], failed["attempt"], failed["took"], failed["error"]) == ("step attempt failed", 1, 4, True)
    assert failed["facts"] == [["retry at", 9]]


def test_every_string_is_clean():
    """Names, ids, reasons, tags, facts and summaries hold no character that acts on a reader's eyes or terminal."""
    bad = ev.ChildStarted(BEGAN + 5, "3", EVIL, b"", 9, EVIL)
    run = new_run(
        [started(0, "order-1", EVIL, EVIL, origin=EVIL), step("1", EVIL, 1, 2, EVIL), bad,
         step_failed("2", EVIL, 3, 4, ValueError(EVIL)), ev.CancelRequested(BEGAN + 6, EVIL)],
        tags={EVIL: EVIL}, published={EVIL: CODEC.encode(EVIL)},
    )  # fmt: skip
    contents = contents_of(run)
    said = json.dumps([contents.data, contents.title, list(contents.payloads())], ensure_ascii=False)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u202e]", said.replace("\\n", ""))
    assert "\\\\u202e" in said
    assert "\\\\x1b[2J" in said


def test_payloads_are_texts():
    """A value is indented JSON, a call its arguments, an error its traceback and what caused it, nothing is nothing."""
    try:
        try:
            raise KeyError("weight")
        except KeyError as error:
            raise ValueError("no weight") from error
    except ValueError as error:
        failed = step_failed("1", "weigh", 1, 2, error)
    run = new_run([started(0, "order-1", "fulfil", 7), failed, timer("2", "sleep", 3, 4), completed(5, {"a": [1]})])
    call, told, nothing, value = contents_of(run).payloads()
    assert call == ["[\n  7\n]", ""]
    assert nothing is None
    assert value == ['{\n  "a": [\n    1\n  ]\n}', ""]
    assert told is not None
    text = told[0]
    assert text.index("ValueError: no weight") < text.index("caused by") < text.index("KeyError: 'weight'")
    assert "Traceback (most recent call last)" in text


def test_errors_of_all_shapes():
    """Notes, attributes and the members of a group are told; where there is no traceback, type and message are."""
    group = ExceptionGroup("two", [ValueError("a"), OSError(2, "gone")])
    group.add_note("while packing")
    text = error_text(CODEC.describe_error(CODEC.encode_error(group)))
    assert "ExceptionGroup: two (2 sub-exceptions)\nwhile packing" in text
    assert "member 1\nValueError: a" in text
    assert "member 2\nFileNotFoundError: [Errno 2] gone" in text


def test_payloads_are_bounded():
    """A long payload is cut with its size named, a huge one is only named, and --full shows all of both."""
    long, huge = "x" * 100_000, "y" * (DECODED_MAX + 1)
    run = one_run(step("1", "long", 1, 2, long), step("2", "huge", 3, 4, huge))
    _, cut, left_out = contents_of(run).payloads()
    assert cut == ['"' + "x" * (TEXT_MAX - 1), "the first 64.0 KiB of 97.7 KiB; --full shows all"]
    assert left_out == ["", "4.0 MiB, left out; --full puts it in"]
    _, whole, also = contents_of(run, full=True).payloads()
    assert whole == [f'"{long}"', ""]
    assert also == [f'"{huge}"', ""]


def test_payloads_are_bounded_together(monkeypatch: pytest.MonkeyPatch):
    """When a page has grown large, values are only named from then on, and errors are still shown."""
    monkeypatch.setattr("dalsegno.tools.page.payloads.TOGETHER_MAX", 50)
    run = one_run(step("1", "a", 1, 2, "x" * 60), step("2", "b", 3, 4, 7), step_failed("3", "c", 5, 6, OSError("no")))
    *_, value, error = contents_of(run).payloads()
    assert value == ["", "1 B, left out since the page has grown large; --full puts it in"]
    assert error is not None
    assert "OSError: no" in error[0]


def test_what_cannot_be_decoded_is_named():
    """A payload that cannot be read has its size and the reason, and does not hold up the page."""
    broken = ev.StepCompleted(BEGAN + 2, "1", "odd", b"", 7, 1, 1, b"\xc1\xc1")
    row = timeline([started(0), broken]).rows[1]
    shown = Payloads(CODEC).shown(row)
    assert shown is not None
    assert shown.text == ""
    assert shown.cut.startswith("2 B, which cannot be read: ")
    _, text = contents_of(one_run(broken)).payloads()
    assert text == [shown.text, shown.cut]


# --- the file ------------------------------------------------------------------------------------------------------


def test_nothing_of_a_history_is_markup():
    """What is hostile stands in the page as data that ends no block, and comes back out of it as it was."""
    run = new_run([started(0, "order-1", EVIL), step("1", EVIL, 1, 2, EVIL)])
    page = "".join(document(contents_of(run)))
    assert page.count("<script") == page.count("</script>") == 3  # data, one block of payloads, the script
    assert "<img" not in page
    assert "onerror" in payloads_of(page)[1][0]
    assert data_of(page)["lanes"][1][2].startswith("</script><script>window.owned = 1</script>")
    (title,) = re.findall("<title>(.*)</title>", page)
    assert "&lt;/script&gt;" in title
    assert block("\ud800<") == '"\\ud800\\u003c"'


def test_the_policy_names_exactly_what_is_there():
    """The page allows its one script and its one style by their hashes, and nothing else to be run or fetched."""
    page = "".join(document(contents_of(one_run())))
    (policy,) = re.findall('<meta http-equiv="Content-Security-Policy" content="(.*?)">', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    script = page[page.rindex("<script>") + len("<script>") : page.rindex("</script>")]
    (style,) = re.findall("<style>(.*)</style>", page, re.DOTALL)
    assert rules == {
        "default-src": "'none'",
        "script-src": f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'",
        "style-src": f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert page.index("Content-Security-Policy") < page.index("<title>")


def test_the_page_fetches_nothing():
    """Neither style nor script names an address, and no element of the page has a source."""
    page = "".join(document(contents_of(one_run())))
    assert not re.search(r"\bsrc=|\bhref=|url\(|@import|fetch\(|XMLHttpRequest|WebSocket|innerHTML|eval\(", page)
    assert set(re.findall(r"https?://[^\s\"']+", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_payloads_come_in_blocks():
    """Payloads are split, so that a browser reads only the block that is asked for."""
    page = "".join(document(contents_of(one_run(*(step(str(n), "s", n, n + 1, n) for n in range(1, 600))))))
    assert len(re.findall('id="payloads-', page)) == 3
    assert [text[0] for text in payloads_of(page)[1:]] == [str(n) for n in range(1, 600)]


# --- the command ---------------------------------------------------------------------------------------------------


def test_show_writes_a_page(run_replay: Cli, url: str, tmp_path: Path):
    """--html writes one file with the run and its children, and says so; only its owner may read it."""
    file = tmp_path / "both.html"
    said = run_replay("show", "both-1", "--store", url, "--html", str(file))
    assert said.stderr == f"both-1#1 with 6 events and 2 child runs written to {file}\n"
    data = data_of(file.read_text("utf-8"))
    assert [run["workflow"] for run in data["runs"]] == ["both", "quick", "quick"]
    assert [record[2] for record in data["lanes"]] == ["both", "quick", "charge", "quick", "charge"]
    assert file.stat().st_mode & 0o077 == 0


def test_the_page_on_standard_output(run_replay: Cli, url: str):
    """--html - writes the page to standard output, and nothing else there."""
    page = run_replay("show", "both-1", "--children", "0", "--store", url, "--html", "-").stdout
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")
    data = data_of(page)
    assert [record[10] for record in data["lanes"]] == ["", "children are not shown", "children are not shown"]


def test_a_page_of_an_exported_file(run_replay: Cli, url: str, tmp_path: Path):
    """An exported file is as good a source as a store."""
    run_replay("export", "--all", str(tmp_path / "all.jsonl"), "--store", url)
    page = run_replay("show", "both-1", "--store", f"file:{tmp_path / 'all.jsonl'}", "--html", "-").stdout
    assert len(data_of(page)["runs"]) == 3


def test_a_page_that_cannot_be_written(run_replay: Cli, url: str, tmp_path: Path):
    """A folder that is not there is a sentence, and leaves nothing behind; so does a run that is not there."""
    said = run_replay("show", "both-1", "--store", url, "--html", str(tmp_path / "no" / "x.html"), code=2).stderr
    assert "there is no folder" in said
    run_replay("show", "nobody", "--store", url, "--html", str(tmp_path / "x.html"), code=1)
    assert list(tmp_path.glob("*.html")) == []


@pytest.mark.parametrize("options", [["--json"], ["--payloads"]])
def test_a_page_is_no_table(run_replay: Cli, url: str, options: list[str]):
    """What a page is not is refused beside it, and what only a page has is refused without it."""
    assert "leave out" in run_replay("show", "both-1", "--store", url, "--html", "-", *options, code=2).stderr
    assert "--full is about" in run_replay("show", "both-1", "--store", url, "--full", code=2).stderr
