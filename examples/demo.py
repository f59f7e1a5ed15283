"""The demo: audit a real source tree in a process that is killed twice on the way, and prove that nothing was lost.

A worker process (`demo_worker`) runs the audit on an LMDB store. This process only looks on: it counts the lines that
step bodies add to a ledger, kills the worker with SIGKILL when as many files are measured as chance has chosen, reads
the histories while nobody runs, and starts the worker again. When every file is measured it sends the approval that
the audit waits for. In the end it compares the ledger with the histories (`demo_proof`), has `replay verify` hold the
histories against the code, and shows what happened (`demo_show`).

The moments of the kills are shares of the files, not of time, so that they fall into the middle of the work on any
machine. The same seed chooses the same shares.
"""

from __future__ import annotations

import random
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dalsegno import Client, RunNotFound, StoreUnusable
from dalsegno.examples import audit
from dalsegno.examples.audit import Audited
from dalsegno.examples.audit_measure import packages_of
from dalsegno.examples.demo_proof import compare
from dalsegno.examples.demo_show import DemoResult, printable, show, timeline
from dalsegno.examples.demo_watch import Demo, Stage, Worker


def run_demo(
    root: Path | None,
    store: Path | None,
    *,
    interactive: bool,
    seed: int,
    kills: int = 2,
    json: bool,
    console: Console,
) -> DemoResult:
    """Audit the tree below `root` (None: the standard library of this Python) and show that it survived `kills` kills.

    `store` is where the LMDB store goes (None: a new folder for temporary files); the report and the ledger go beside
    it. With `json` nothing is shown but the result. `DemoResult.ok` tells success. Raises `DemoFailed` or a
    `DalsegnoError` where the demo could not be carried out at all, `NotADirectoryError` for a root that is none.
    """
    root = (root or Path(sysconfig.get_path("stdlib"))).resolve()
    files = sum(len(package.files) for package in packages_of(root, tests=True))
    store = (store or Path(tempfile.mkdtemp(prefix="dalsegno-demo-"), "store")).resolve()
    chance = random.Random(seed)
    shares = [(number + chance.uniform(0.2, 0.8)) / kills for number in range(kills)]
    shown = Console(quiet=True) if json and not interactive else console
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=shown,
        transient=True,
    )
    url = _url(store)
    with Client(url) as client, bar:
        stage = Stage(store, _free_id(client), url)
        stage.folder.mkdir(parents=True)
        demo = Demo(root, stage, client, files, bar)
        demo.note(
            f"auditing {printable(str(root))}: {files:,} files, seed {seed}, "
            f"kills planned at {', '.join(f'{s:.0%}' for s in shares) or 'no time'}"
        )
        for share in shares:
            with Worker(stage, root) as worker:
                if demo.kills:
                    demo.wait_for_life(worker)
                demo.kill(worker, round(share * files))
        with Worker(stage, root) as worker:
            demo.wait_for_life(worker)
            audited = demo.finish(worker, interactive)
        result = _judge(demo, audited, seed)
        show(result, json=json, console=console, replay=_replay())
        return result


def _url(store: Path) -> str:
    """The URL of the store. Where all folders are layers of a container it is allowed to be on one: this demo and the
    processes it starts are the only ones that open it."""
    url = f"lmdb:{store}"
    try:
        Client(url).close()
    except StoreUnusable as error:
        if getattr(error, "file_system", "") != "overlay":
            raise
        return f"{url}?allow_remote=true"
    return url


def _replay() -> str:
    """The command `replay` as it can be pasted: with its path, where this environment is not on PATH."""
    ours = Path(sys.executable).with_name("replay")
    if not ours.exists() or shutil.which("replay") == str(ours):
        return "replay"
    return shlex.quote(str(ours.relative_to(Path.cwd()) if ours.is_relative_to(Path.cwd()) else ours))


def _free_id(client: Client) -> str:
    """The first of audit-1, audit-2, … that has no run yet."""
    number = 1
    while True:
        try:
            client.get(f"audit-{number}")
        except RunNotFound:
            return f"audit-{number}"
        number += 1


def verify(store: str, ids: Sequence[str]) -> str:
    """Have `replay verify` replay histories against today's code; answers what does not fit, or nothing.

    In a process of its own, as anybody would do it: what is read there is what is on the disk.
    """
    command = [sys.executable, "-m", "dalsegno.tools.replay", "verify", *ids, "--app", audit.__name__, "--store", store]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip() or f"status {done.returncode}"


def _judge(demo: Demo, audited: Audited, seed: int) -> DemoResult:
    """Compare ledger and histories, and the histories with the code."""
    histories = list(demo.histories())
    mismatch = verify(demo.stage.url, [run.id for run, _ in histories])
    if not mismatch:
        demo.note(f"verified: the code of today fits all {len(histories)} histories")
    return DemoResult(
        root=str(demo.root),
        store=demo.stage.url,
        workflow_id=demo.stage.id,
        seed=seed,
        files=audited.files,
        findings=audited.findings,
        published=audited.published,
        html=audited.html,
        json=audited.json,
        ledger=str(demo.stage.ledger),
        seconds=demo.elapsed,
        kills=tuple(demo.kills),
        moments=tuple(demo.moments),
        bars=timeline(demo.began_at, [history for _, history in histories], demo.ledger.entries),
        proof=compare(demo.ledger.entries, demo.kills, demo.recorded()),
        runs=len(histories),
        events=sum(len(history) for _, history in histories),
        mismatch=mismatch,
    )
