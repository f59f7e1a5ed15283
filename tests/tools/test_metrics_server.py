"""Metrics are served to whoever may see them, and to nobody else."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter

from dalsegno import BadOption
from dalsegno.tools.metrics_server import serving_metrics
from tests.tools.conftest import Cli

APP = "tests.tools.shop"
TOKEN = "a-token-of-some-length"


@pytest.fixture
def registry() -> CollectorRegistry:
    """One figure."""
    made = CollectorRegistry()
    Counter("cakes", "Eaten.", registry=made).inc(3)
    return made


def ask(port: int, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, str]:
    """Status and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def port(registry: CollectorRegistry) -> Iterator[int]:
    """Served on loopback without a token."""
    with serving_metrics(registry, 0, "127.0.0.1", None) as number:
        yield number


def test_the_page_is_there_on_loopback(port: int):
    """Without a token, for names of this machine, and at one path only."""
    status, page = ask(port)
    assert status == 200
    assert "cakes_total 3.0" in page
    assert ask(port, Host=f"localhost:{port}")[0] == 200
    assert ask(port, "/")[0] == 404
    assert ask(port, "/metrics/../secrets")[0] == 404
    assert ask(port, method="POST")[0] == 405


def test_a_name_that_leads_here_is_not_this_machines(port: int):
    """A page in a browser that has its own name point to this port is refused."""
    assert ask(port, Host="evil.example") == (403, "403 Forbidden\n")


def test_with_a_token_only_who_has_it(registry: CollectorRegistry):
    """A wrong token, none, and one that is no text are refused alike; the right one is let in by any name."""
    with serving_metrics(registry, 0, "127.0.0.1", TOKEN) as port:
        assert ask(port)[0] == 401
        assert ask(port, Authorization=f"Bearer {TOKEN}x")[0] == 401
        assert ask(port, Authorization="Bearer \xff")[0] == 401
        assert ask(port, Authorization=f"Basic {TOKEN}")[0] == 401
        assert ask(port, Authorization=f"Bearer {TOKEN}", Host="worker-7.example")[0] == 200


def test_who_says_nothing_holds_nobody_up(port: int):
    """A connection that stays silent does not keep others from being answered."""
    with socket.create_connection(("127.0.0.1", port)):
        assert ask(port)[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "worker.example"])
def test_beyond_loopback_it_takes_a_token(registry: CollectorRegistry, host: str):
    """Without one nothing is opened, and the sentence says what to do."""
    with (
        pytest.raises(BadOption, match=r"--metrics-token or DALSEGNO_METRICS_TOKEN"),
        serving_metrics(registry, 0, host, None),
    ):
        pass


def test_what_cannot_be_served_is_said(registry: CollectorRegistry):
    """A short token, a port that is taken, a host that is not ours."""
    with pytest.raises(BadOption, match="16 or more"), serving_metrics(registry, 0, "127.0.0.1", "short"):
        pass
    with pytest.raises(BadOption, match="16 or more"), serving_metrics(registry, 0, "127.0.0.1", "sixteen\r\nletters"):
        pass
    with serving_metrics(registry, 0, "127.0.0.1", None) as port:
        taken = f"cannot be served on 127.0.0.1 port {port}"
        with pytest.raises(BadOption, match=taken), serving_metrics(registry, port, "127.0.0.1", None):
            pass
    with pytest.raises(BadOption, match="cannot be served"), serving_metrics(registry, 0, "192.0.2.1", TOKEN):
        pass


def test_a_worker_serves_metrics_and_logs_json(url: str):
    """As a user does it: the worker says where, the page has its runs, and every line of its log is JSON."""
    program = str(Path(sys.executable).with_name("dalsegno"))
    command = [program, "worker", "--app", APP, "--store", url, "--json", "--metrics-port", "0", "--log-json"]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            text += worker.stdout.readline()
        port = int(json.loads(text)["metrics"].split(":")[2].split("/")[0])
        assert 'dalsegno_store_runs{status="completed"}' in ask(port)[1]
        for words in (["cancel", "order-3"],):
            subprocess.run([program, *words, "--store", url], cwd=root, check=True, capture_output=True)
        while 'dalsegno_runs_closed_total{status="cancelled",workflow="fulfil"}' not in ask(port)[1]:
            pass
        worker.send_signal(signal.SIGINT)
        _, words_ = worker.communicate(timeout=20)
    lines = [json.loads(line) for line in words_.splitlines() if line.startswith("{")]
    assert [line["run_id"] for line in lines if line.get("status") == "cancelled"] == ["order-3#1"]


def test_refusals_reach_the_command_line(run_dalsegno: Cli, url: str, monkeypatch: pytest.MonkeyPatch):
    """A worker that could not be watched as asked does not begin, and says why."""
    start = ["worker", "--app", APP, "--store", url, "--metrics-port", "0"]
    assert "give a token" in run_dalsegno(*start, "--metrics-host", "0.0.0.0", code=2).stderr

    monkeypatch.setitem(sys.modules, "dalsegno.tools.metrics", None)
    monkeypatch.delitem(sys.modules, "dalsegno.tools.metrics_server")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert "pip install 'dalsegno[metrics]'" in run_dalsegno(*start, code=2).stderr
