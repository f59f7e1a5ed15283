"""The alert rules, held against Prometheus' own tool where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "docs" / "alerts.yml"
PROMTOOL = shutil.which("promtool")

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian has it in `prometheus`)")

FIRES: dict[str, dict[str, str]] = {
    "DalsegnoRunsBlocked": {'dalsegno_store_runs{status="blocked"}': "2+0x60"},
    "DalsegnoSuccessRateLow": {
        'dalsegno_runs_closed_total{workflow="w",status="completed"}': "0+1x60",
        'dalsegno_runs_closed_total{workflow="w",status="failed"}': "0+1x60",
    },
    "DalsegnoRecoverySlow": {
        'dalsegno_recovery_seconds_bucket{le="1"}': "0+0x60",
        'dalsegno_recovery_seconds_bucket{le="3"}': "0+9x60",
        'dalsegno_recovery_seconds_bucket{le="+Inf"}': "0+9x60",
    },
    "DalsegnoQueueAge": {'dalsegno_queue_age_seconds{queue="steps"}': "31+1x60"},
    "DalsegnoStoreQueueAge": {'dalsegno_store_queue_age_seconds{queue="mail",kind="step"}': "601+60x60"},
    "DalsegnoFlushSlow": {
        'dalsegno_flush_seconds_bucket{le="0.3"}': "0+0x60",
        'dalsegno_flush_seconds_bucket{le="1"}': "0+9x60",
        'dalsegno_flush_seconds_bucket{le="+Inf"}': "0+9x60",
    },
    "DalsegnoStoreNearQuota": {
        'dalsegno_store_bytes{what="events"}': "81+0x60",
        'dalsegno_store_bytes{what="quota"}': "100+0x60",
    },
    "DalsegnoStoreStalled": {"dalsegno_store_stalled": "1+0x60", "dalsegno_store_up": "1+0x60"},
    "DalsegnoTimersLate": {
        'dalsegno_timer_late_seconds_bucket{le="3"}': "0+0x60",
        'dalsegno_timer_late_seconds_bucket{le="10"}': "0+9x60",
        'dalsegno_timer_late_seconds_bucket{le="+Inf"}': "0+9x60",
    },
    "DalsegnoNoWorker": {"up": "0+0x60"},
    "DalsegnoWatchdogStruck": {"dalsegno_watchdog_strikes_total": "0+1x60"},
    "DalsegnoLeasesLost": {"dalsegno_leases_lost_total": "0+1x60"},
    "DalsegnoTakeovers": {"dalsegno_takeovers_total": "0+9x60"},
}
"""Series, in Prometheus' own notation, a value a minute, at which each alert has to fire within an hour."""

CALM = {
    'dalsegno_store_runs{status="blocked"}': "0+0x60",
    'dalsegno_runs_closed_total{workflow="w",status="completed"}': "0+9x60",
    'dalsegno_runs_closed_total{workflow="w",status="failed"}': "0+0x60",
    'dalsegno_queue_age_seconds{queue="steps"}': "0+0x60",
    'dalsegno_store_queue_age_seconds{queue="mail",kind="step"}': "5+0x60",
    'dalsegno_store_bytes{what="events"}': "10+0x60",
    'dalsegno_store_bytes{what="quota"}': "100+0x60",
    "dalsegno_store_stalled": "0+0x60",
    "dalsegno_store_up": "1+0x60",
    'dalsegno_pool_size{pool="step"}': "16+0x60",
    "dalsegno_watchdog_strikes_total": "0+0x60",
    "dalsegno_leases_lost_total": "0+0x60",
    "dalsegno_takeovers_total": "0+0x60",
}
"""A day on which nothing is wrong."""


def promtool(*arguments: str) -> str:
    """What the tool says; it has to be content."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def at_work(series: str) -> str:
    """A series as one worker's."""
    name, _, labels = series.rstrip("}").partition("{")
    given = ",".join(filter(None, [labels, 'job="dalsegno"', 'instance="a:9464"']))
    return f"{name}{{{given}}}"


def test_prometheus_takes_the_rules():
    """Expressions, templates and durations are as Prometheus wants them."""
    assert "SUCCESS" in promtool("check", "rules", str(RULES))


def test_each_alert_fires_when_it_should_and_none_on_a_calm_day(tmp_path: Path):
    """In Prometheus' own evaluation, minute by minute, of series as a worker's."""
    names = [rule["alert"] for rule in yaml.safe_load(RULES.read_text("utf-8"))["groups"][0]["rules"]]
    assert sorted(names) == sorted(FIRES)

    def case(series: dict[str, str], wanted: str, firing: bool) -> dict[str, object]:
        tested = f'count(ALERTS{{alertname="{wanted}",alertstate="firing"}}) or vector(0)'
        return {
            "interval": "1m",
            "input_series": [{"series": at_work(name), "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f"({tested}) > bool 0",
                    "eval_time": "50m",
                    "exp_samples": [{"labels": "{}", "value": int(firing)}],
                }
            ],
        }

    cases = [case(series, name, True) for name, series in FIRES.items()]
    calm = [case(CALM, name, False) for name in FIRES]
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [*cases, *calm]}))
    promtool("test", "rules", str(file))
