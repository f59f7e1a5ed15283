"""`replay export` and `replay import`: runs out of a store into a file, and back into another one."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from dalsegno.core.errors import BadOption
from dalsegno.core.store import open_store
from dalsegno.tools.choosing import codec_of, filtered, generations, reading
from dalsegno.tools.exported import refuse_halves
from dalsegno.tools.failures import say
from dalsegno.tools.options import (
    RunName,
    app_option,
    busy,
    command_help,
    filter_options,
    json_option,
    now_us,
    show_json,
    store_option,
    watched,
)
from dalsegno.tools.stores import store_url
from dalsegno.tools.transfer import Exported, export_lines, import_runs, read_file, read_packed, take


@click.command(
    "export",
    help=command_help(
        "Write runs, finished or in flight, to a file as JSON lines.",
        "replay export order-42 order-42.jsonl",
        "An id means all its runs, id#2 only that one. FILE - is standard output. Payloads are written as they are "
        "stored, with their meaning beside them: a file may hold what is confidential. The form is described in "
        "dalsegno.core.transfer.",
    ),
)
@click.argument("runs", nargs=-1, type=RunName(), metavar="[RUN]...")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True))
@click.option("--all", "every", is_flag=True, help="Every run that the filters let through.")
@app_option(required=False)
@filter_options
@store_option
def export_runs(
    runs: tuple[str, ...], file: Path, every: bool, app: str | None, store: str | None, **filters: Any
) -> None:
    """Write runs to a file."""
    if bool(runs) == every:
        raise click.UsageError("name the runs and then a FILE, or say --all FILE")
    codec = codec_of(app)
    with reading(store) as opened:
        chosen = [one for run in runs for one in generations(opened, run)] or filtered(opened, now_us(), **filters)
        records = list({record.number: record for record in chosen}.values())
        refuse_halves(opened, records)
        taken = (take(opened, record) for record in watched(records[::-1], "exporting"))
        if str(file) == "-":
            for line in export_lines(taken, codec, now_us()):
                sys.stdout.buffer.write(line)
            return
        with whole_file(file) as out:
            out.writelines(export_lines(taken, codec, now_us()))
    say(f"{len(records)} run{'s' * (len(records) != 1)} exported to {file}", mark="")


@click.command(
    "import",
    help=command_help(
        "Put exported runs into a store; the whole file is verified before anything is written.",
        "replay import order-42.jsonl --store lmdb:./orders",
        "FILE - is standard input; a packed file of an archive is taken as well. A run that was in flight goes on when "
        "an engine next works on the store; what it left open (timers, children) is set up anew then. The store is "
        "made if it is not there. With --json: "
        '{"imported": [run ids], "skipped": [run ids]}.',
    ),
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--skip-existing", is_flag=True, help="Leave out runs whose id is taken, instead of importing nothing.")
@store_option
@json_option
def import_file(file: Path, skip_existing: bool, store: str | None, json_wanted: bool) -> None:
    """Put exported runs into a store."""
    runs: list[Exported]
    if str(file) == "-":
        runs = read_packed(sys.stdin.buffer.read(), "standard input", lambda lines: watched(lines, "verifying"))
    else:
        runs = read_file(file, lambda lines: watched(lines, "verifying"))
    with open_store(store_url(store, make=True)) as opened, busy("importing"):
        done = import_runs(opened, runs, now_us(), skip=skip_existing)
    imported = [one.run_id for one in done]
    skipped = [one.run_id for one in runs if one.run_id not in set(imported)]
    if json_wanted:
        show_json({"imported": imported, "skipped": skipped})
        return
    left_out = f", {len(skipped)} left out because their ids are taken" if skipped else ""
    say(f"{len(imported)} run{'s' * (len(imported) != 1)} imported{left_out}", mark="")


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name when it is whole, and not at all otherwise; only its owner may read it.

    What is no file (a device, a pipe) is written to as it is.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        with target.open("wb") as out:
            yield out
        return
    if not target.parent.is_dir():
        raise BadOption(f"{path} cannot be written: there is no folder {target.parent}")
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
