"""What a worker lets be seen of itself: options for metrics and logs, and the observers they ask for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, TypeVar

import attrs
import click

from dalsegno.core.engine.observing import Observer
from dalsegno.core.errors import BadOption
from dalsegno.tools.logs import RunLog

F = TypeVar("F", bound=Callable[..., Any])


@attrs.frozen(kw_only=True)
class Watching:
    """What was asked for."""

    metrics_port: int | None
    metrics_host: str
    metrics_token: str | None
    log_json: bool


def watching_options(function: F) -> F:
    """`--metrics-port` and its companions, and `--log-json`, as one argument `watching`."""

    @wraps(function)
    def gathered(*args: Any, **given: Any) -> Any:
        asked = {field.name: given.pop(field.name) for field in attrs.fields(Watching)}
        return function(*args, watching=Watching(**asked), **given)

    for option in (
        click.option("--log-json", is_flag=True, help="Log one JSON object a line, with the ids of runs and steps."),
        click.option(
            "--metrics-token",
            envvar="DALSEGNO_METRICS_TOKEN",
            metavar="TOKEN",
            help="What a scraper has to send as bearer token; needed beyond loopback. Better in the environment: "
            "DALSEGNO_METRICS_TOKEN.",
        ),
        click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Where to serve metrics."),
        click.option("--metrics-port", type=click.IntRange(0, 65535), help="Serve /metrics for Prometheus here."),
    ):
        gathered = option(gathered)
    return gathered  # type: ignore[return-value]  # it takes what click gives instead


@contextmanager
def watched(asked: Watching) -> Iterator[tuple[list[Observer], str]]:
    """The observers that are asked for, and a word on where the metrics are; both are served until the block ends.

    Raises `BadOption` for what cannot be served, and where what it takes is not installed.
    """
    observers, where = list[Observer](), ""
    with ExitStack() as held:
        if asked.log_json:
            observers.append(RunLog())
        if asked.metrics_port is not None:
            try:
                metrics = importlib.import_module("dalsegno.tools.metrics").Metrics()
                serving = importlib.import_module("dalsegno.tools.metrics_server").serving_metrics
            except ModuleNotFoundError as error:
                raise BadOption(f"metrics need {error.name}: pip install 'dalsegno[metrics]'") from error
            host = asked.metrics_host
            port = held.enter_context(serving(metrics.registry, asked.metrics_port, host, asked.metrics_token))
            observers.append(metrics)
            where = f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
        yield observers, where
