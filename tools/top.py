"""`replay top`: what goes on in a store, drawn again every other second.

What is shown is computed by `watching` and looks as `overview` says; here are the clock, the screen and the keys.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count as counting
from time import perf_counter
from typing import Any, Final

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from dalsegno.tools.choosing import codec_of, tell_cut
from dalsegno.tools.exported import cut_data
from dalsegno.tools.options import (
    Age,
    app_option,
    busy,
    command_help,
    console,
    json_option,
    now_us,
    show,
    show_json,
    store_option,
)
from dalsegno.tools.overview import frame_data, overview
from dalsegno.tools.serving import stopping_on_signals
from dalsegno.tools.stores import open_for_reading, store_url
from dalsegno.tools.text import as_json, duration, without_password
from dalsegno.tools.watching import Watch

INTERVAL: Final = 2_000_000
COUNTING: Final = 200_000  # between frames while runs are counted
LISTEN_S: Final = 0.1  # for a key, before looking whether a signal has come
GONE: Final = "q"  # what a terminal that was closed says
LEAVE: Final = frozenset("qQ")


@click.command(
    "top",
    help=command_help(
        "Watch a store: rates, runs by status and workflow, queues, which runs wait longest, which steps fail.",
        "replay top --store lmdb:./orders",
        "q or Ctrl-C leaves. It only reads; a frame costs what has happened since the last one and some 40 ms, and "
        "nothing in a calm. With --once, or where the output is no terminal, it prints one frame, and with --interval "
        "or --count one after another. "
        'With --json: {"at", "store", "runs", "counted", "complete": whether all runs have been counted, "statuses": '
        '{status: runs}, "file_bytes", "rates": null or {"over_s", "started", "closed", "steps", "events"} a second, '
        '"workflows": {name: {status: runs}}, "waiting": [{"run_id", "workflow", "since", "for"}], "failing": '
        '[{"workflow", "step", "retrying": runs, "attempts", "failed", "error", "run_id", "at"}], '
        '"queues": as in `dalsegno queues`, "cut"}; with '
        "--interval or --count such an object on each line.",
    ),
)
@click.option("--once", is_flag=True, help="Print one frame and leave.")
@click.option("--interval", type=Age(), metavar="AGE", help="Time between frames.  [2s]")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Leave after N frames.")
@app_option(required=False)
@store_option
@json_option
def top_of_store(
    once: bool, interval: int | None, count: int | None, app: str | None, store: str | None, json_wanted: bool
) -> None:
    """Watch a store."""
    if once and (interval is not None or count is not None):
        raise click.UsageError("--once is one frame; leave out --interval and --count")
    codec, url = codec_of(app), store_url(store)
    name = without_password(url)
    single = once or (interval is None and count is None and (json_wanted or not sys.stdout.isatty()))
    stop = threading.Event()
    with open_for_reading(url) as opened, stopping_on_signals(stop):
        tell_cut(opened)
        cut, watch = cut_data(opened), Watch(opened, codec)
        if not single and not json_wanted and sys.stdout.isatty():
            live(watch, name, interval or INTERVAL, count, stop)
            return
        for number in counting(1):
            with busy("counting runs"):
                frame = watch.frame(now_us(), everything=True)
            if json_wanted:
                print_data(frame_data(frame, name) | {"cut": cut}, single)
            else:
                show(overview(frame, name), *([] if single else [Text("")]))
            sys.stdout.flush()
            if single or number == count or stop.wait((interval or INTERVAL) / 1e6):
                return


def print_data(frame: dict[str, Any], single: bool) -> None:
    """Print a frame for programs."""
    if single:
        show_json(frame)
    else:
        click.echo(as_json(frame, one_line=True))


def live(watch: Watch, url: str, interval: int, count: int | None, stop: threading.Event) -> None:
    """Draw frame after frame on a screen of their own, until a key or a signal says to leave."""
    out = console()
    with keys() as pressed, Live(console=out, screen=True, auto_refresh=False) as view:
        for number in counting(1):
            begun = perf_counter()
            frame = watch.frame(now_us())
            took = duration(round((perf_counter() - begun) * 1e6))
            foot = Text(f"\nq leaves; every {duration(interval)}; this look took {took}", style="dim")
            view.update(Group(overview(frame, url, out.height - 2), foot), refresh=True)
            if number == count or left(pressed, stop, interval if frame.complete else COUNTING):
                return


def left(pressed: Callable[[float], str], stop: threading.Event, wait_us: int) -> bool:
    """Wait for the next frame; whether it is time to leave instead."""
    until = perf_counter() + wait_us / 1e6
    while (rest := until - perf_counter()) > 0 and not stop.is_set():
        if LEAVE & set(pressed(min(rest, LISTEN_S))):
            return True
    return stop.is_set()


@contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """A function that waits so many seconds for keys; the terminal is put back as it was, whatever happens."""
    if not sys.stdin.isatty():
        yield _no_keys
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([fd], [], [], seconds)
        if not ready:
            return ""
        try:
            return os.read(fd, 64).decode("latin-1") or GONE
        except OSError:
            return GONE

    tty.setcbreak(fd)
    try:
        yield pressed
    finally:
        with suppress(termios.error):  # the terminal was closed
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _no_keys(seconds: float) -> str:
    threading.Event().wait(seconds)
    return ""
