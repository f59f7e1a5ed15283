"""The page in a browser: what it draws, what it answers, and that nothing hostile in it runs or is fetched.

The browser is the system's Chromium, which `.ci/run` installs where it may; it is never downloaded. Every test fails if
the page raised an error, wrote to the console, or asked for anything but itself.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from dalsegno.core import events as ev
from dalsegno.core.store import NewRun, Status
from dalsegno.tools.family import Limits, family, with_pending
from dalsegno.tools.page.contents import Contents
from dalsegno.tools.page.document import document
from dalsegno.tools.standing import Wait
from dalsegno.tools.text import duration
from tests.tools.histories import (
    BEGAN,
    CODEC,
    MS,
    S,
    attempt_failed,
    child_completed,
    child_started,
    completed,
    failed,
    fired,
    found,
    new_run,
    started,
    step,
    step_failed,
    store_of,
    timer,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking " \
        "--disable-component-update --disable-sync"  # fmt: skip

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed (.ci/run installs it where it may): no page was looked at"
)

EVIL = (
    "</script><script>window.owned=1</script><img src=x onerror=window.owned=1>"
    "\u202egnp.exe\u2028\x00\x1b[2J\x9b{{data}}&lt;"
)
TIMES = "\N{MULTIPLICATION SIGN}"


class Opener:
    """Opens pages from files, and keeps what they said on the console and what they asked for."""

    def __init__(self, browser: Browser, contexts: dict[str, BrowserContext], folder: Path) -> None:
        self._browser, self._contexts = browser, contexts
        self.file = folder / "page.html"
        self.said: list[str] = []
        self.asked: set[str] = set()
        self.pages: list[Page] = []

    def __call__(self, contents: Contents, **options: Any) -> Page:
        self.file.write_text("".join(document(contents)), "utf-8")
        given = {"viewport": {"width": 1280, "height": 800}, "timezone_id": "Asia/Tokyo"} | options
        key = repr(given)
        if key not in self._contexts:
            self._contexts[key] = self._browser.new_context(**given)
        self.pages.append(page := self._contexts[key].new_page())
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.add(request.url))
        page.goto(self.file.as_uri())
        expect(page.locator("html")).to_have_attribute("data-ready", "true")
        return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, with no screen and no network of its own."""
    # Playwright's driver is told not to look for anything to download or report.
    os.environ.setdefault("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def contexts(browser: Browser) -> dict[str, BrowserContext]:
    """Windows of one kind share what belongs to a profile; pages keep nothing there."""
    return {}


@pytest.fixture
def opened(browser: Browser, contexts: dict[str, BrowserContext], tmp_path: Path) -> Iterator[Opener]:
    """Opens pages, and sees in the end that they did nothing but show themselves."""
    opener = Opener(browser, contexts, tmp_path)
    yield opener
    for page in opener.pages:
        page.close()
    assert opener.said == []
    assert opener.asked == {opener.file.as_uri()}


def contents_of(*runs: NewRun, around: int | None = None, waits: tuple[Wait, ...] = (), reason: str = "") -> Contents:
    """The contents of a page about order-1, ten seconds after it began. With a reason it is blocked."""
    store = store_of(*runs)
    root = family(store, found(store, "order-1"), BEGAN + 10 * S, Limits(depth=3))
    root.line = with_pending(root.line, waits)
    if reason:
        root.kept = attrs.evolve(root.kept, record=attrs.evolve(root.record, status=Status.BLOCKED, reason=reason))
    return Contents(root, CODEC, made_us=BEGAN + 11 * S, around=around)


def shop() -> Contents:
    """A run with everything: attempts and the waits between, branches, a scope, a race, children, a message."""
    inner = new_run([started(3200 * MS, "c", "wrap"), step("1", "fold", 3300 * MS, 3400 * MS), completed(3500 * MS)],
                    ("a", 1, "2"))  # fmt: skip
    child = new_run(
        [
            started(3 * S, "a", "pack", 7),
            step("1", "pick", 3 * S, 3100 * MS),
            child_started("2", "wrap", 3200 * MS, "c"),
            child_completed("2", 3500 * MS),
            completed(3600 * MS, "packed"),
        ],
        ("order-1", 1, "4"),
    )
    parent = new_run(
        [
            started(0),
            attempt_failed("1", "charge", 0, 200 * MS, 500 * MS),
            attempt_failed("1", "charge", 500 * MS, 700 * MS, 1 * S, 2),
            step("1", "charge", 1 * S, 1200 * MS, {"receipt": "R-7"}, 3),
            *(step(f"2.{n}", "measure", 1300 * MS, 1500 * MS, n) for n in (1, 2, 3)),
            step("3.1.1", "pick", 1600 * MS, 1700 * MS),
            timer("3.1.2", "sleep", 1700 * MS, 2 * S),
            fired("3.1.2", 2 * S),
            ev.ScopeCompleted(BEGAN + 2 * S, "3", 12, CODEC.encode("tidy")),
            child_started("4", "pack", 3 * S, "a"),
            child_completed("4", 3600 * MS, "packed"),
            ev.SignalReceived(BEGAN + 4 * S, 1, "approval", CODEC.encode({"granted": True})),
            completed(5 * S, "done"),
        ]
    )
    return contents_of(parent, child, inner)


def long(count: int) -> Contents:
    """A run of so many steps, one after another, every hundredth of which failed once."""
    events: list[ev.Event] = [started(0)]
    for n in range(1, count - 1):
        if n % 100 == 0:
            events.append(attempt_failed(str(n), "fetch", n * MS, n * MS + 100, n * MS + 200))
        events.append(step(str(n), "fetch" if n % 2 else "parse", n * MS + 300, n * MS + 900, {"number": n}))
    return contents_of(new_run([*events, completed(count * MS)]))


def lane(page: Page, name: str) -> Locator:
    """The row of the lane with this name."""
    return page.locator(".row", has=page.locator(".text", has_text=re.compile(f"^{re.escape(name)}$")))


def names(page: Page) -> list[str]:
    """The names of the lanes in sight."""
    return page.locator(".row .text").all_text_contents()


def box(found: Locator) -> tuple[float, float]:
    """Where something begins and ends from left to right."""
    bounds = found.bounding_box()
    assert bounds is not None
    return bounds["x"], bounds["x"] + bounds["width"]


def text_of(page: Page) -> str:
    """Everything that is to be read on the page."""
    return str(page.evaluate("document.body.innerText"))


# --- what is drawn -------------------------------------------------------------------------------------------------


def test_the_head_says_who_and_how(opened: Opener):
    """Workflow, id, status, when in the reader's own zone, how long, how much, and how much failed."""
    page = opened(shop())
    head = page.locator("#head").inner_text()
    for said in ("fulfil", "order-1#1", "completed", "2023-11-15 07:13:20.000", "took 5.00 s", "15 events",
                 "2 child runs with 8", "2 failures"):  # fmt: skip
        assert said in head
    assert page.title() == "order-1#1 · fulfil"


def test_every_kind_of_thing_is_drawn(opened: Opener):
    """Steps, attempts with the waits between, waits, groups, scopes, children with theirs, and messages have lanes."""
    page = opened(shop())
    assert names(page) == [
        "fulfil", "charge", f"3 {TIMES} measure", "measure", "measure", "measure", "scope", "pick", "sleep", "pack",
        "pick", "wrap", "fold", "signal approval",
    ]  # fmt: skip
    bars = lane(page, "charge").locator(".bar")
    assert [bar.get_attribute("class") for bar in bars.all()] == [
        "bar failed", "bar backoff", "bar failed", "bar backoff", "bar work"
    ]  # fmt: skip
    edges = [box(bar) for bar in bars.all()]
    assert all(abs(one[1] - other[0]) < 2 for one, other in pairwise(edges))
    assert lane(page, "signal approval").locator(".point").count() == 1
    assert lane(page, "sleep").locator(".bar.wait").count() == 1
    assert page.locator('.row[aria-level="3"]', has_text="fold").count() == 1


def test_bars_are_to_scale(opened: Opener):
    """A bar begins and ends where its times lie, and a child's steps lie within the child."""
    page = opened(shop())
    left, right = box(page.locator("#axis-times"))
    second = (right - left) / 5
    for name, began, ended in (
        ("fulfil", 0, 5),
        ("charge", 0, 1.2),
        ("sleep", 1.7, 2),
        ("pack", 3, 3.6),
        ("fold", 3.3, 3.4),
    ):
        first, last = lane(page, name).locator(".bar").first, lane(page, name).locator(".bar").last
        assert box(first)[0] == pytest.approx(left + began * second, abs=2)
        assert box(last)[1] == pytest.approx(left + ended * second, abs=2)
    assert lane(page, "charge").locator(".took").inner_text() == "1.20 s"


def test_durations_read_as_in_the_terminal(opened: Opener):
    """The page writes durations the way the terminal does."""
    lengths = [7, 999, 1_000, 12_340, 999_999, 1_500_000, 59_000_000, 75_000_000, 7_500_000_000, 200_000_000_000]
    page = opened(contents_of(new_run([started(0), *(step(str(n), "s", 0, us) for n, us in enumerate(lengths, 1))])))
    shown = page.locator(".row.step .took").all_text_contents()
    assert shown == [duration(us) for us in lengths]


def test_an_open_run_says_what_it_waits_for(opened: Opener):
    """What is open has no end, the head names it with how long and until when, also what only the code knew."""
    run = new_run([started(0), timer("1.1", "sleep", 2 * S, 70 * S), child_started("1.2", "pack", 2 * S, "gone")])
    wait = Wait(
        id="1.3", kind="receive", name="approval", line=31, since_us=BEGAN + 2 * S, source='x = Receive("approval")'
    )
    page = opened(contents_of(run, waits=(wait,)))
    assert page.locator(".waiting").inner_text() == (
        "Waits for sleep (8.00 s so far, until 2023-11-15 07:14:30); pack (8.00 s so far); "
        "receive approval (8.00 s so far)."
    )
    assert page.locator(".row .bar.open").count() == 4  # the run, and the three
    lane(page, "receive approval").locator(".name").click()
    assert 'x = Receive("approval")' in page.locator("#details").inner_text()
    lane(page, "pack").locator(".name").click()
    assert "its history is not in this store" in page.locator("#details").inner_text()


def test_a_blocked_run_says_why(opened: Opener):
    """The reason why a run is blocked stands at the top, with its lines."""
    reason = "workflow 'order-1' left its recorded path at event 1\n  recorded  step 'audit'\n  yielded   step 'pick'"
    page = opened(contents_of(new_run([started(0), step("1", "audit", 1, 2)]), reason=reason))
    assert page.locator("#head pre.reason").inner_text() == reason
    assert page.locator("#head .status").inner_text() == "blocked"


def test_a_failed_run_opens_at_its_failure(opened: Opener):
    """The step that made the run fail is selected, and its error and what caused it are there to read."""
    try:
        try:
            raise KeyError("weight")
        except KeyError as cause:
            raise ValueError("no weight") from cause
    except ValueError as caught:
        error = caught
    run = new_run(
        [started(0), step("1", "pick", 0, S), step_failed("2", "weigh", S, 2 * S, error), failed(2 * S, error)]
    )
    page = opened(contents_of(run))
    assert page.locator('.row[aria-selected="true"] .text').inner_text() == "weigh"
    told = page.locator("#details pre.error").inner_text()
    assert told.index("ValueError: no weight") < told.index("caused by") < told.index("KeyError: 'weight'")
    assert "ValueError: no weight" in page.locator("#head .reason").inner_text()


# --- what it answers -----------------------------------------------------------------------------------------------


def test_a_click_shows_what_an_event_carried(opened: Opener):
    """A click on a bar opens the details at that event: its number, attempt, times, payload, and a command to paste."""
    page = opened(shop())
    expect(page.locator("#details")).to_be_hidden()
    lane(page, "charge").locator(".bar.failed").nth(1).click()
    chosen = page.locator("#details .event.chosen")
    assert "#2" in chosen.inner_text()
    assert "attempt 2 · took 200 ms" in chosen.inner_text()
    assert "TimeoutError: attempt 2: no answer" in chosen.inner_text()
    assert page.locator("#details .event").count() == 3
    assert json.loads(page.locator("#details pre.value").inner_text()) == {"receipt": "R-7"}
    assert "replay step 'order-1#1' --at 2 --app MODULE" in page.locator("#details").inner_text()
    lane(page, "pack").locator(".bar").first.click()
    assert "a#1" in page.locator("#details .facts").nth(1).inner_text()
    page.keyboard.press("Escape")
    expect(page.locator("#details")).to_be_hidden()


def test_it_opens_at_an_event(opened: Opener):
    """A page made with --around opens with that event's details, though it lies inside something folded."""
    page = opened(contents_of(new_run([started(0), *(step(f"1.{n}.1", "deep", n, n + 1, n) for n in range(1, 600))]),
                              around=500))  # fmt: skip
    assert "#500" in page.locator("#details .event.chosen").inner_text()
    expect(page.locator('.row[aria-selected="true"]')).to_be_in_viewport()


def test_filtering(opened: Opener):
    """Text finds lanes by name, id and payload, with what is around them; nothing that fits is said to be so."""
    page = opened(shop())
    page.locator("#filter").fill("FOLD")
    assert names(page) == ["pack", "wrap", "fold"]
    assert page.locator("#said").inner_text() == "3 of 14 lanes are shown"
    page.locator("#filter").fill("r-7")
    assert names(page) == ["charge"]
    page.locator("#filter").fill("scope")
    assert names(page) == ["scope"]
    lane(page, "scope").locator(".twist").click()
    assert names(page) == ["scope", "pick", "sleep"]
    page.locator("#filter").fill("nothing like it")
    expect(page.locator("#empty")).to_be_visible()
    page.locator("#filter").press("Escape")
    assert len(names(page)) == 14
    assert page.locator("#filter").input_value() == ""


def test_kinds_can_be_hidden(opened: Opener):
    """Each kind has a button with its number, and what only holds hidden things goes with them; so have failures."""
    page = opened(shop())
    assert [" ".join(text.split()) for text in page.locator("#kinds button").all_inner_texts()] == [
        "Steps 7", "Children 2", "Waits 1", "Messages 1", "Only failed 1"
    ]  # fmt: skip
    page.locator("#kinds button", has_text="Steps").click()
    assert names(page) == ["fulfil", "scope", "sleep", "pack", "wrap", "signal approval"]
    page.locator("#kinds button", has_text="Steps").click()
    page.locator("#failures").click()
    assert names(page) == ["charge"]
    expect(page.locator("#failures")).to_have_attribute("aria-pressed", "true")


def test_zooming(opened: Opener):
    """Buttons, keys, a drag over the strip and a double click change which part of the time is drawn."""
    page = opened(shop())
    bar = lane(page, "charge").locator(".bar.work")
    before = bar.bounding_box()
    assert before is not None
    page.locator("#in").click()
    assert lane(page, "charge").locator(".hint").count() == 1  # the middle of the run is shown; this lay before it
    lane(page, "charge").locator(".hint").click()
    after = bar.bounding_box()
    assert after is not None
    assert after["width"] > 2 * before["width"]
    page.locator("#chart").press("0")
    strip = page.locator("#overview").bounding_box()
    assert strip is not None
    y = strip["y"] + 20
    page.mouse.move(strip["x"] + strip["width"] * 0.6, y)
    page.mouse.down()
    page.mouse.move(strip["x"] + strip["width"] * 0.7, y, steps=4)
    page.mouse.move(strip["x"] + strip["width"] * 0.8, y)
    page.mouse.up()
    shown = page.locator("#axis-times .tick").all_text_contents()
    assert shown[0] == "3.0 s"
    assert all(3 <= float(text.removesuffix(" s")) <= 4 for text in shown)
    page.locator("#fit").click()
    lane(page, "sleep").locator(".bar").dblclick()
    assert bar_width(page, "sleep") > 0.7 * sum(
        (-1, 1)[n] * edge for n, edge in enumerate(box(page.locator("#axis-times")))
    )


def test_only_what_is_in_view(opened: Opener):
    """Lanes that have nothing in the time that is shown can be hidden, and come back when the time is another."""
    page = opened(shop())
    lane(page, "sleep").locator(".bar").dblclick()
    page.locator("#near").click()
    assert names(page) == ["fulfil", "scope", "pick", "sleep"]
    assert page.locator("#said").inner_text() == "4 of 14 lanes are shown"
    page.locator("#fit").click()
    assert len(names(page)) == 14
    lane(page, "sleep").locator(".bar").dblclick()
    page.locator("#chart").press("n")
    expect(page.locator("#near")).to_have_attribute("aria-pressed", "false")
    assert "charge" in names(page)


def bar_width(page: Page, name: str) -> float:
    """How wide the first bar of a lane is."""
    left, right = box(lane(page, name).locator(".bar").first)
    return right - left


def test_the_wheel_zooms_where_the_pointer_is(opened: Opener):
    """With Ctrl the wheel zooms around the pointer: what lies under it stays there."""
    page = opened(shop())
    left, right = box(lane(page, "fold").locator(".bar"))
    bounds = lane(page, "fold").bounding_box()
    assert bounds is not None
    page.mouse.move((left + right) / 2, bounds["y"] + 12)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -400)
    page.keyboard.up("Control")
    expect(page.locator(".shade.left")).not_to_have_css("width", "0px")
    after = box(lane(page, "fold").locator(".bar"))
    assert after[1] - after[0] > 2 * (right - left)
    assert sum(after) / 2 == pytest.approx((left + right) / 2, abs=3)


def test_keys(opened: Opener):
    """The chart can be read with the keyboard alone: selecting, folding, details, failures, filter."""
    page = opened(shop())
    chart = page.locator("#chart")
    chart.focus()
    selected = page.locator('.row[aria-selected="true"]')
    group = f"3 {TIMES} measure"
    for key, name in [("ArrowDown", "charge"), ("ArrowDown", group), ("ArrowRight", "measure"),
                      ("End", "signal approval"), ("Home", "fulfil"), ("n", "charge")]:  # fmt: skip
        page.keyboard.press(key)
        assert selected.locator(".text").inner_text() == name
        assert chart.get_attribute("aria-activedescendant") == selected.get_attribute("id")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    expect(selected).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowLeft")
    expect(selected).to_have_attribute("aria-expanded", "false")
    assert "measure" not in names(page)
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_be_focused()
    page.keyboard.press("Escape")
    expect(chart).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#filter")).to_be_focused()


def test_folding(opened: Opener):
    """All can be folded and unfolded; a folded lane shows as a strip what runs inside, and how much failed."""
    broken = step_failed("1", "weigh", 3 * S, 4 * S, ValueError("no"))
    child = new_run([started(3 * S, "a", "pack"), broken, failed(4 * S, ValueError("no"))], ("order-1", 1, "1"))
    page = opened(contents_of(new_run([started(0), child_started("1", "pack", 3 * S, "a")]), child))
    page.locator("#fold").click()
    assert names(page) == ["fulfil", "pack"]
    assert lane(page, "pack").locator(".strip.failed").count() == 1
    assert lane(page, "pack").locator(".count").inner_text() == "1 failed"
    page.locator("#unfold").click()
    assert names(page) == ["fulfil", "pack", "weigh"]
    assert lane(page, "pack").locator(".strip").count() == 0


def test_idle_time_is_drawn_short(opened: Opener):
    """Three days of sleep in a run of two seconds do not hide the two seconds; the button shows them to scale."""
    day = 86_400 * S
    run = new_run([started(0), step("1", "charge", 0, S), timer("2", "sleep", S, 3 * day), fired("2", 3 * day),
                   step("3", "ship", 3 * day, 3 * day + S), completed(3 * day + S)])  # fmt: skip
    page = opened(contents_of(run))
    expect(page.locator("#idle")).to_have_attribute("aria-pressed", "true")
    assert bar_width(page, "charge") > 200
    assert page.locator("#axis-times .gap").inner_text() == "2d 23h"
    page.locator("#idle").click()
    assert bar_width(page, "charge") < 5
    assert page.locator("#axis-times .gap").count() == 0


def test_a_tip_says_what_is_under_the_pointer(opened: Opener):
    """Over a bar one reads what it is, how long it took, and what came of it; over the chart, the time."""
    page = opened(shop())
    lane(page, "charge").locator(".bar.failed").first.hover()
    assert page.locator("#tip").inner_text().splitlines() == [
        "charge", "failed for 200 ms, attempt 1", "from +0", "TimeoutError: attempt 1: no answer"
    ]  # fmt: skip
    assert re.fullmatch(r"\+\d+(\.\d+)? ms", page.locator(".cross span").inner_text())
    lane(page, "charge").locator(".bar.backoff").first.hover()
    assert "waited for the next attempt for 300 ms" in page.locator("#tip").inner_text()


# --- any window, any size, paper -----------------------------------------------------------------------------------


def test_ten_thousand_events(opened: Opener):
    """A long history has no more rows than are in sight, and its last lane is there when one goes to it."""
    page = opened(long(10_000))
    assert (
        "10,000 events" in page.locator("#head").inner_text() or "10,099 events" in page.locator("#head").inner_text()
    )
    assert page.locator(".row").count() < 60
    page.locator("#chart").press("End")
    expect(page.locator('.row[aria-selected="true"]')).to_be_in_viewport()
    assert page.locator(".row").count() < 60
    page.keyboard.press("Enter")
    assert json.loads(page.locator("#details pre.value").inner_text()) == {"number": 9_998}
    page.locator("#filter").fill('"number": 5000')
    assert page.locator(".row").count() == 1
    page.locator("#filter").fill("")
    page.locator("#failures").click()
    assert page.locator("#chart").get_attribute("aria-rowcount") == "100"


def test_many_messages_of_one_name(opened: Opener):
    """Thousands of points in one lane are drawn as those that can be told apart."""
    signals = [ev.SignalReceived(BEGAN + n * 100, n, "tick", CODEC.encode(n)) for n in range(1, 5_000)]
    page = opened(contents_of(new_run([started(0), *signals])))
    assert 100 < lane(page, "signal tick").locator(".point").count() <= 400
    lane(page, "signal tick").locator(".point").nth(50).dispatch_event("click")
    assert page.locator("#details .event").count() == 60
    assert page.locator("#details .event.chosen").count() == 1


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (800, "dark"), (1600, "dark")])
def test_any_window(opened: Opener, width: int, scheme: str):
    """Nothing sticks out of a narrow window, and the details never cover the lane they are about."""
    page = opened(shop(), viewport={"width": width, "height": 740}, color_scheme=scheme)
    page.locator("#chart").press("End")
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    row, panel = page.locator('.row[aria-selected="true"]').bounding_box(), page.locator("#details").bounding_box()
    assert row is not None
    assert panel is not None
    assert row["y"] + row["height"] <= panel["y"] + 1 or row["x"] + row["width"] <= panel["x"] + 1
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


def test_paper(opened: Opener):
    """Printed, all lanes are there, with the axis and the failures in full, and the window stays as it is."""
    run = new_run([started(0), *(step(str(n), "s", n * MS, n * MS + 900) for n in range(1, 200)),
                   step_failed("200", "weigh", S, 2 * S, ValueError("no weight"))])  # fmt: skip
    page = opened(contents_of(run), color_scheme="dark")
    before = page.locator(".row").count()
    page.evaluate("""addEventListener("beforeprint", () => {
      const count = (selector) => document.querySelectorAll(selector).length;
      window.printed = [count(".row"), document.getElementById("printed").innerText, count(".tick")];
    })""")
    assert len(page.pdf(prefer_css_page_size=True)) > 10_000
    rows, failures, ticks = page.evaluate("window.printed")
    assert rows == 201
    assert "step failed: weigh" in failures
    assert "ValueError: no weight" in failures
    assert ticks > 3
    assert page.locator(".row").count() == before < 60
    assert page.locator("#printed").inner_text() == ""
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    expect(page.locator("#tools")).to_be_hidden()


def test_a_history_of_which_nothing_can_be_read(opened: Opener):
    """A run whose first event is of a later release still has a page, which says so."""
    page = opened(contents_of(new_run([started(0)], records=[b"\x91\xcd\x27\x0f"])))
    assert "Event 1 cannot be read, so the rest is not shown" in page.locator("#head .reason").inner_text()
    lane(page, "fulfil").locator(".name").click()
    assert "event 1 cannot be read" in page.locator("#details").inner_text()
    unreadable = attrs.evolve(new_run([started(0)]), events=(b"\x91\xcd\x27\x0f",))
    page = opened(contents_of(unreadable))
    assert "Event 0 cannot be read" in page.locator("#head .reason").inner_text()
    assert names(page) == ["fulfil"]


def test_impossible_times(opened: Opener):
    """Times out of a damaged record, before the beginning or after all ends, are drawn somehow and break nothing."""
    far = 2**63
    events = [
        started(0),
        ev.StepCompleted(far, "1", "late", b"", 7, 1, 5, CODEC.encode(1)),
        ev.StepCompleted(-far, "2", "early", b"", 7, 1, 5, CODEC.encode(1)),
        ev.StepCompleted(BEGAN, "3", "long", b"", 7, 1, 2**64 - 1, CODEC.encode(1)),
        ev.TimerSet(BEGAN + 5, "4", "sleep", "", b"", 8, 2**64 - 1),
    ]
    page = opened(contents_of(new_run(events)))
    for name in ("late", "early", "long", "sleep"):
        lane(page, name).locator(".name").click()
        assert name in page.locator("#details h2").inner_text()
        page.locator("#chart").press("z")
        page.locator("#chart").press("0")
    assert "until 10000-01-01 08:59:59" in page.locator(".waiting").inner_text()  # the last second of 9999, in Tokyo


# --- what must not happen ------------------------------------------------------------------------------------------


def test_nothing_hostile_runs_or_acts(opened: Opener):
    """Markup, control characters and turned directions in names and payloads are shown as text, wherever one looks."""
    run = new_run(
        [started(0, "order-1", EVIL, EVIL, origin=EVIL), step("1", EVIL, MS, 2 * MS, {EVIL: EVIL}),
         attempt_failed("2", EVIL, 3 * MS, 4 * MS, 5 * MS), step_failed("2", EVIL, 5 * MS, 6 * MS, ValueError(EVIL)),
         ev.ChildStarted(BEGAN + 7 * MS, EVIL, EVIL, b"", 9, EVIL), timer("4", EVIL, 8 * MS, S, EVIL),
         ev.SignalReceived(BEGAN + 9 * MS, 1, EVIL, CODEC.encode(EVIL)), ev.CancelRequested(BEGAN + 9 * MS, EVIL),
         failed(10 * MS, ValueError(EVIL))],
        tags={EVIL: EVIL}, published={EVIL: CODEC.encode(EVIL)}
    )  # fmt: skip
    wait = Wait(id="9", kind=EVIL, name=EVIL, source=EVIL, since_us=BEGAN)
    page = opened(contents_of(run, waits=(wait,), reason=EVIL))
    seen = []
    page.locator("#unfold").evaluate("button => button.click()")
    for row in page.locator(".row").all():
        row.locator(".name").click()
        for thing in row.locator(".bar, .point").all():
            thing.dispatch_event(
                "pointermove", {"bubbles": True, "pointerType": "mouse", "clientX": 700, "clientY": 300}
            )
        seen.append(text_of(page))
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    seen.append(text_of(page))
    told = "\n".join(seen)
    assert "<img src=x onerror=window.owned=1>" in told
    assert "\\u202egnp.exe\\u2028" in told
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", told)
    assert page.evaluate("[typeof owned, document.scripts.length, document.images.length]") == ["undefined", 3, 0]
    assert page.evaluate("document.querySelectorAll('#head *, #details *, .row *').length") > 50


def test_the_policy_holds_even_if_the_page_had_a_hole(opened: Opener):
    """Were markup, a script, a style, a picture or a request smuggled in, the page's own policy would refuse it."""
    page = opened(shop())
    server = socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    owned, display, refused = page.evaluate(
        """async (server) => {
      const refused = [];
      addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
      const attempt = async (act) => { try { await act(); } catch (error) { refused.push(error.name); } };
      const put = (tag, properties) => document.body.append(Object.assign(document.createElement(tag), properties));
      await attempt(() => { document.body.innerHTML = "<img src=x onerror='window.owned = 1'>"; });
      await attempt(() => put("script", { text: "window.owned = 1" }));
      await attempt(() => setTimeout("window.owned = 1"));
      await attempt(() => put("img", { src: server + "/picture" }));
      await attempt(() => put("style", { textContent: "body { display: none }" }));
      await attempt(() => fetch(server + "/data"));
      const all = ["img-src", "connect-src", "style-src-elem", "require-trusted-types-for"];
      // They are told of later.
      while (!all.every((kind) => refused.includes(kind))) await new Promise(requestAnimationFrame);
      return [typeof window.owned, getComputedStyle(document.body).display, refused];
    }""",
        f"http://127.0.0.1:{server.getsockname()[1]}",
    )
    assert (owned, display) == ("undefined", "flex")
    assert "TypeError" in refused
    assert opened.said
    assert all("Content Security Policy" in line or "Trusted" in line for line in opened.said), opened.said
    with pytest.raises(BlockingIOError):
        server.accept()  # nobody has called
    server.close()
    opened.said.clear()
    opened.asked.intersection_update({opened.file.as_uri()})  # Chromium reports requests it was about to refuse, too
