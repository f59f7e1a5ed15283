"""The dashboard and the alert rules in docs/ ask for what a worker tells."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dalsegno import Engine, Flow, Queue, Retry, Sleep, step, workflow
from dalsegno.tools import operate, replay
from dalsegno.tools.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "docs" / "grafana" / "dashboard.json").read_text("utf-8"))
RULES: list[dict[str, Any]] = yaml.safe_load((ROOT / "docs" / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
TARGETS = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
EXPRESSIONS = [*TARGETS, *[(rule["alert"], rule["expr"]) for rule in RULES]]
ADDED = {"job", "instance", "le"}  # by Prometheus, and the buckets'


@step(retry=Retry(max_attempts=2, initial=0.001, jitter=0))
def tries(left: int) -> None:
    """A step."""


@step
async def listens() -> None:
    """A step on the event loop."""


@workflow
def fine() -> Flow[None]:
    """Ends well."""
    yield from tries(1)
    yield from listens.options(queue="mail")()
    yield from Sleep(timedelta(milliseconds=1))


@workflow
def astray() -> Flow[None]:
    """Yields what is no command."""
    yield 17  # type: ignore[misc]


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The names of all samples of a worker that has done a little of everything, each with the labels it has."""
    metrics, url = Metrics(), f"lmdb:{tmp_path_factory.mktemp('store') / 's'}"
    with Engine(url, workflows=[fine, astray]) as engine:
        blocked = engine.start(astray)
        while blocked.status.value != "blocked":
            pass
    with Engine(url, workflows=[fine, astray], observers=[metrics], queues=[Queue("mail")]) as engine:
        engine.start(fine).result(timeout=20)
        metrics.store_failed(OSError("as if the disk were full"))
        while b'dalsegno_runs_blocked_total{workflow="astray"} 1.0' not in generate_latest(metrics.registry):
            pass
        page = generate_latest(metrics.registry).decode()
    return {
        sample.name: set(sample.labels) for family in text_string_to_metric_families(page) for sample in family.samples
    }


def asked(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics an expression asks for, with the labels it compares."""
    for found in re.finditer(r"\b((?:dalsegno|process)_\w+)(?:\{([^}]*)\})?", expression):
        yield found[1], set(re.findall(r"(\w+)\s*[=!]~?", found[2] or ""))


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_what_is_asked_for_is_there(title: str, expression: str, scrape: dict[str, set[str]]):
    """Every metric of an expression is in a scrape, with the labels it is compared or summed by."""
    metrics = list(asked(expression))
    assert metrics
    for name, labels in metrics:
        assert name in scrape
        assert labels - ADDED <= scrape[name]
    had = set.union(*(scrape[name] for name, _ in metrics)) | ADDED
    for group in re.findall(r"by \(([^)]*)\)", expression):
        assert {label.strip() for label in group.split(",")} <= had
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)


def test_what_a_worker_tells_is_shown(scrape: dict[str, set[str]]):
    """No family is left out of the dashboard: what nobody looks at need not be counted."""
    shown = {name for _, expression in TARGETS for name, _ in asked(expression)}
    families = {re.sub(r"_(bucket|sum|count|total|created)$", "", name) for name in scrape}
    unseen = families - {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in shown}
    assert {name for name in unseen if name.startswith("dalsegno_")} == set()


def test_the_dashboard_can_be_imported():
    """It asks for a data source when it is imported, and each panel uses it, says what it shows, and has its place."""
    assert DASHBOARD["id"] is None
    assert [each["name"] for each in DASHBOARD["__inputs"]] == ["DS_PROMETHEUS"]
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {"${DS_PROMETHEUS}"}
    assert all(panel["description"] for panel in panels)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken = set[tuple[int, int]]()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells
        assert max(x for x, _ in cells) < 24
        taken |= cells
    used = set(re.findall(r"\$(\w+)", " ".join(expression for _, expression in TARGETS))) - {"__rate_interval"}
    assert used == {variable["name"] for variable in DASHBOARD["templating"]["list"]}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_to_do(rule: dict[str, Any]):
    """Each has a threshold that lasts, a summary, and a sentence with what to do, whose commands exist."""
    assert re.fullmatch(r"\d+m", rule["for"])
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    text = rule["annotations"]["description"]
    assert text.endswith(".")
    for program, command in re.findall(r"`(replay|dalsegno) (\w+)", text):
        main = {"replay": replay.main, "dalsegno": operate.main}[program]
        assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0
