"""What the commands share: options, arguments, how they print, and progress on stderr.

Tables and colours are for people; `--json` prints one JSON document on stdout instead, whose form each command's help
names and docs/schemas describes. What does not fit on the screen goes through a pager. Anything that takes longer than
a second shows a bar, on stderr and only where that is a terminal.

Shell completion is click's: `eval "$(_REPLAY_COMPLETE=bash_source replay)"`, and the same with `_DALSEGNO_COMPLETE` and
`dalsegno`; zsh and fish likewise. Run ids, names and tags are completed from the store that is meant (`proposing`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dalsegno.core.store import Status
from dalsegno.tools.proposing import queues_like, runs_like, urls_like, words_like
from dalsegno.tools.text import as_json, clean, parse_age

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType  # generic at run time in the newest releases of click only

WIDE = 160  # columns, where the output is no terminal that would say

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def command_help(line: str, example: str, more: str = "") -> str:
    """The help of a command: one line, one example to paste, and what else is to be known."""
    return f"{line}\n\n\b\nExample:\n  {example}\n" + (f"\n{more}" if more else "")


# --- options -------------------------------------------------------------------------------------------------------


class AppName(_Type):
    """A module; a shell completes the path of its file, which is taken as well."""

    name = "module"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


def store_option(function: F) -> F:
    """`--store URL`."""
    return click.option(
        "--store",
        "store",
        metavar="URL",
        type=StoreUrl(),
        help="lmdb:PATH, postgresql://…; to look into: file:EXPORTED, archive:FOLDER. Else $DALSEGNO_STORE, else the "
        "nearest folder .dalsegno.",
    )(function)


def json_option(function: F) -> F:
    """`--json`."""
    return click.option("--json", "json_wanted", is_flag=True, help="Print one JSON document instead of tables.")(
        function
    )


def app_option(required: bool) -> Callable[[F], F]:
    """`--app package.module[:NAME]`."""
    return click.option(
        "--app",
        "app",
        metavar="MODULE[:NAME]",
        type=AppName(),
        required=required,
        help="The module that defines the workflows and steps.",
    )


class Age(_Type):
    """An age such as `90s`, `1h30m` or `7d`, as microseconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else parse_age(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Name(_Type):
    """A text that is stored, so it has to be one: bytes that are no UTF-8 are refused here."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not _is_text(value):
            self.fail(f"'{clean(value)}' is not UTF-8", param, ctx)
        return value


class KeyValue(Name):
    """A tag, `key=value`."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, rest = super().convert(value, param, ctx).partition("=")
        if not (key and equals):
            self.fail(f"{value!r} is no tag; write key=value", param, ctx)
        return key, rest

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        with suppress(Exception):  # as above
            tags = words_like(
                ctx.params.get("store"), incomplete, lambda one: [f"{k}={v}" for k, v in one.tags.items()]
            )
            return list(map(CompletionItem, tags))
        return []


class Json(_Type):
    """A value written as JSON."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except RecursionError:
            self.fail("the JSON is nested too deep to be read", param, ctx)
        except ValueError as error:
            self.fail(f"'{clean(value, 60)}' is not JSON ({error}); a string is written '\"text\"'", param, ctx)


class RunName(Name):
    """A run: its workflow id for the newest, `id#2` for that generation. Completed from the store."""

    name = "run"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        other = ctx.params.get("other") if param.name == "b" else None  # of `diff`, whose second run may be elsewhere
        with suppress(Exception):  # a shell that completes has no use for an error
            found = runs_like(other or ctx.params.get("store"), incomplete)
            return [CompletionItem(id, help=f"{one.workflow} {one.status.value}") for id, one in found.items()]
        return []


class WorkflowName(Name):
    """The name of a workflow. Completed from the runs in the store."""

    name = "workflow"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        with suppress(Exception):  # as above
            found = words_like(ctx.params.get("store"), incomplete, lambda record: [record.workflow])
            return list(map(CompletionItem, found))
        return []


class QueueName(Name):
    """A queue. Completed from the store."""

    name = "queue"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        with suppress(Exception):  # as above
            return list(map(CompletionItem, queues_like(ctx.params.get("store"), incomplete)))
        return []


class StoreUrl(_Type):
    """A store. Completed by its kind, and then from the folders and files here."""

    name = "url"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        with suppress(Exception):  # as above
            return list(map(CompletionItem, urls_like(incomplete)))
        return []


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def filter_options(function: F) -> F:
    """`--status`, `--workflow`, `--tag`, `--queue`, `--age`, `--since`: which runs."""
    options = (
        click.option(
            "--status",
            multiple=True,
            type=click.Choice([*(status.value for status in Status), "open", "closed"]),
            help="Only runs that stand so; may be given several times.",
        ),
        click.option("--workflow", type=WorkflowName(), help="Only runs of this workflow."),
        click.option("--tag", "tags", multiple=True, type=KeyValue(), help="Only runs that carry this tag."),
        click.option("--queue", type=QueueName(), help="Only open runs in this queue, or with a step at it."),
        click.option("--age", type=Age(), help="Only runs created at least so long ago (90s, 15m, 7d)."),
        click.option("--since", type=Age(), help="Only runs created within the last 90s, 15m, 7d."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def statuses(names: Iterable[str]) -> tuple[Status, ...]:
    """The statuses that `--status` means."""
    found: list[Status] = []
    for name in names:
        several = {"open": [s for s in Status if s.open], "closed": [s for s in Status if not s.open]}
        found += several.get(name) or [Status(name)]
    return tuple(dict.fromkeys(found))


# --- printing ------------------------------------------------------------------------------------------------------


def console(*, markup: bool = False) -> Console:
    """Where tables go. Without a terminal: no colours, and lines long enough that nothing is lost. `markup` lets the
    markup of one's own texts through."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE
    return Console(file=sys.stdout, highlight=False, markup=markup, emoji=False, width=width)


def show(*parts: RenderableType) -> None:
    """Print for people."""
    out = console()
    for part in parts:
        out.print(part)


def show_long(*parts: RenderableType) -> None:
    """Print for people what may be long. On a terminal, what does not fit on the screen goes through a pager: that of
    `$PAGER`, or else less; `PAGER=cat` turns that off."""
    out = console()
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        show(*parts)
        return
    with out.capture() as captured:
        for part in parts:
            out.print(part)
    text = captured.get()
    if text.count("\n") < out.height:
        sys.stdout.write(text)
    else:
        click.echo_via_pager(text.removesuffix("\n"))


def show_json(data: object) -> None:
    """Print for programs."""
    click.echo(as_json(data))


# --- progress ------------------------------------------------------------------------------------------------------


def watched(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The same items, with a bar on stderr once it takes more than a second."""
    begun, shown = monotonic(), False
    known = total if total is not None else len(items) if isinstance(items, Sized) else None
    with _bar() as bar:
        task = bar.add_task(what, total=known)
        for count, item in enumerate(items):
            if not shown and monotonic() - begun > 1:
                bar.start()
                shown = True
            if shown:
                bar.update(task, completed=count)
            yield item


@contextmanager
def _bar() -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=_stderr(), transient=True, disable=not sys.stderr.isatty())
    try:
        yield bar
    finally:
        bar.stop()


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Say on stderr what is going on, while one call takes as long as it takes."""
    if not sys.stderr.isatty():
        yield
        return
    with _stderr().status(what):
        yield


def _stderr() -> Console:
    return Console(file=sys.stderr, highlight=False, markup=False, emoji=False)


def now_us() -> int:
    """The time, as stores write it."""
    return time_ns() // 1000
