"""The numbers that the pages name are those of the code."""

from __future__ import annotations

import inspect
import re

import pytest

import dalsegno
from dalsegno import CheckpointPolicy, Codec, Retention, Retry, Worker
from dalsegno.backends import lmdb, lmdb_environment
from dalsegno.core import errors
from dalsegno.core.commands import Command
from dalsegno.core.engine import clockwork, leases, recovery, works
from dalsegno.core.interpreter import issue
from dalsegno.core.policies import TRANSIENT, TRANSIENT_ERRNO, StepOptions, WorkflowOptions
from dalsegno.core.store import Status
from dalsegno.core.values import exceptions, wire
from tests.docs.pages import DOCS


def rows(page: str, of: str = "") -> dict[str, str]:
    """The first two columns of a page's tables."""
    text = (DOCS / page).read_text("utf-8")
    text = text[text.index(of) :]
    return {m[1].strip("`"): m[2].strip("`") for m in re.finditer(r"^\| (.+?) +\| (.*?) +\|", text, re.M)}


def option(name: str) -> object:
    """The default of an option of `Worker`, which `Engine` takes, too."""
    for function in (Worker.__init__, works.Works.__init__):
        found = inspect.signature(function).parameters.get(name)
        if found is not None:
            return found.default
    raise AssertionError(f"nobody takes {name}")


def test_every_default_is_as_the_page_says():
    """The table of defaults holds each with its number."""
    said = rows("policies.md", of="## Every default")
    retry, checkpoint, retention = Retry(), CheckpointPolicy(), Retention()
    assert retention.completed is not None
    assert retention.failed is not None
    there = {
        "Retry.max_attempts": retry.max_attempts,
        "Retry.initial": retry.initial,
        "Retry.backoff": retry.backoff,
        "Retry.maximum": retry.maximum,
        "Retry.jitter": retry.jitter,
        "CheckpointPolicy.every_steps": checkpoint.every_steps,
        "CheckpointPolicy.every": checkpoint.every,
        "CheckpointPolicy.long_step": checkpoint.long_step,
        "Retention.completed": retention.completed / 86400,
        "Retention.failed": retention.failed / 86400,
        "Codec.max_bytes": Codec().max_bytes / 2**20,
        "Engine(step_threads=)": option("step_threads"),
        "Engine(durable=)": option("durable"),
        "Engine(grace=)": option("grace"),
        "Engine(lease=)": option("lease"),
        "Engine(watchdog=)": option("watchdog"),
        "Engine(put_away_after=)": option("put_away_after"),
        "Engine(live_max=)": option("live_max"),
        "a message from another process is seen after": clockwork.TICK_S,
        "a run that dies with its worker is quarantined after": recovery.DEATHS_MAX,
        "Info().continue_suggested": issue.CONTINUE_AFTER_EVENTS,
        "lmdb:…?map_size=": lmdb.MAP_SIZE / 2**30,
    }
    assert {name: float(said[name].replace(",", "")) for name in there} == there
    assert said["workflow(arguments=)"] == f'"{WorkflowOptions().arguments}"'
    assert said["workflow(on_parent_close=)"] == f'"{WorkflowOptions().on_parent_close}"'
    assert option("lease") == leases.LENGTH_S


def test_what_is_tried_again_is_listed():
    """Each kind of error that the code takes for passing, and no other number of them."""
    text = (DOCS / "policies.md").read_text("utf-8")
    listed = text[text.index("**Which errors are tried again?**") : text.index("* whatever `retry_on")]
    assert [kind.__name__ for kind in TRANSIENT if f"`{kind.__name__}`" not in listed] == []
    assert len(re.findall(r"\bE[A-Z]{3,}\b", listed)) == len(TRANSIENT_ERRNO)


def test_the_limits_are_those_of_the_code():
    """What the page on limits says is refused."""
    said = rows("limits.md")
    assert said["nesting of a value"] == f"{wire.DEPTH_MAX} levels"
    assert said["processes and threads that read an LMDB store at once"] == str(lmdb_environment.MAX_READERS)
    text = (DOCS / "limits.md").read_text("utf-8")
    assert f"{exceptions.TEXT_MAX // 1024} KiB of traceback, {exceptions.MESSAGE_MAX // 1024} KiB of message" in text
    assert f"{exceptions.CHAIN_MAX} causes" in text


@pytest.mark.parametrize("kind", [StepOptions, WorkflowOptions])
def test_every_option_of_a_definition_is_explained(kind: type):
    """The options of steps and workflows are on the page of commands."""
    text = (DOCS / "commands.md").read_text("utf-8") + (DOCS / "policies.md").read_text("utf-8")
    names = [field.name for field in kind.__attrs_attrs__]  # type: ignore[attr-defined]
    assert [name for name in names if not re.search(rf"`?\b{name}\b", text)] == []


def test_every_error_and_status_is_explained():
    """The page on errors has each error that there is, the page on concepts each status."""
    text = (DOCS / "errors.md").read_text("utf-8")
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.DalsegnoError)]
    assert [
        kind.__name__ for kind in kinds if f"`{kind.__name__}" not in text and f"raise {kind.__name__}" not in text
    ] == []
    concepts = (DOCS / "concepts.md").read_text("utf-8")
    assert [status.name for status in Status if f"`{status.name}`" not in concepts] == []


def test_every_command_of_the_face_is_explained():
    """The page of commands has each that a workflow can yield."""
    text = (DOCS / "commands.md").read_text("utf-8")
    face = [name for name in dalsegno.__all__ if isinstance(getattr(dalsegno, name), type)]
    named = [name for name in face if issubclass(getattr(dalsegno, name), Command) and name != "Command"]
    assert len(named) > 20
    assert [name for name in named if f"`{name}" not in text] == []
