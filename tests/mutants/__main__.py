"""`python -m tests.mutants [NAME…]`: plant each bug, or those named, and show how long it takes to find it.

Ends with status 1 if one survives or an entry does not apply any more, and with 2 if a test fails without any bug.
"""

from __future__ import annotations

import argparse
import os
import queue
import sys
import tempfile
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from tests.mutants.planting import Copy, Mutant, Outcome, load

WIDTH_IN_FILES = 150


def examine_all(mutants: list[Mutant], copies: list[Copy], progress: Progress) -> list[Outcome]:
    """Examine bugs in as many copies at once as there are."""
    waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in mutants:
        waiting.put(mutant)
    task, outcomes = progress.add_task("planting", total=len(mutants)), list[Outcome]()

    def work(copy: Copy) -> None:
        while True:
            try:
                outcome = copy.examine(waiting.get_nowait())
            except queue.Empty:
                return
            outcomes.append(outcome)
            progress.update(task, advance=1, description=outcome.mutant.name)

    threads = [threading.Thread(target=work, args=(copy,)) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(outcomes, key=lambda outcome: (outcome.mutant.file, outcome.mutant.name))


def table(outcomes: list[Outcome]) -> Table:
    """The bugs, what found them, and how fast."""
    shown = Table(title=f"{sum(outcome.fine for outcome in outcomes)} of {len(outcomes)} planted bugs found")
    for heading in ("bug", "in", "found by"):
        shown.add_column(heading, overflow="fold")
    shown.add_column("seconds", justify="right")
    for outcome in outcomes:
        by = outcome.by.rpartition("::")[2] if outcome.fine else f"[bold red]{outcome.verdict}[/]: {outcome.by}"
        by = f"{by} (hung)" if outcome.verdict == "hung" else by
        shown.add_row(outcome.mutant.name, outcome.mutant.file, by, f"{outcome.seconds:.1f}")
    return shown


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Plant known bugs and look for them.")
    parser.add_argument("names", nargs="*", help="which (default: all)")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="so many at once")
    options = parser.parse_args()
    mutants = [mutant for mutant in load() if not options.names or mutant.name in options.names]
    console, begun = Console(), time.monotonic()
    if not console.is_terminal:
        console = Console(width=WIDTH_IN_FILES)
    if unknown := set(options.names) - {mutant.name for mutant in mutants}:
        parser.error(f"there is no planted bug called {', '.join(sorted(unknown))}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, Progress(*columns, console=console) as progress:
        copies = [Copy(Path(folder, f"copy-{number}")) for number in range(min(options.jobs, len(mutants)))]
        for copy in copies:  # this compiles what no bug is planted in, and shows that the tests pass without one
            sound = copy.run(sorted({mutant.caught_by for mutant in mutants}), keep_compiled=True)
            if sound.returncode:
                console.print(sound.stdout, sound.stderr, "[bold red]These tests fail without any bug.[/]")
                return 2
        outcomes = examine_all(mutants, copies, progress)
    console.print(table(outcomes))
    slowest = max(outcome.seconds for outcome in outcomes)
    console.print(f"{time.monotonic() - begun:.0f} s in all; the slowest took {slowest:.1f} s to be found")
    return 0 if all(outcome.fine for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
