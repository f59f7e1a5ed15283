"""Why a run does not go on: one paragraph that somebody on call can act on, and the commands for it.

In this order: how the run stands and at which line; what it waits for, since when and until when; the last error and
the attempts so far; who works on it; what would make it go on. What is not known is said to be so: without the code a
history does not tell everything (see `standing`). Pure: a run as it is kept in, sentences out.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import attrs

from dalsegno.core import events as ev
from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.events import Event
from dalsegno.core.store import Lease, RunRecord, Status, StoredMessage
from dalsegno.core.values.codec import Codec
from dalsegno.tools.queued import Look
from dalsegno.tools.render import summary
from dalsegno.tools.standing import Standing, Wait, standing
from dalsegno.tools.stores import Kept
from dalsegno.tools.text import clock, duration, iso
from dalsegno.tools.timeline import Unreadable, words

ERROR_MAX = 300
WAITS_MAX = 5
OVERDUE_US = 60_000_000
"""A deadline that passed so long ago and was not acted on means that nobody works on the store."""
UNFIT = "the JSON given does not fit"
"""How the reason of a run begins that was blocked by a payload; `Codec.structure` says so."""


@attrs.frozen(kw_only=True)
class LastError:
    """The last failure in a history. `cause` is the event that it came out of, where that is another one, and `line`
    the line that yielded the command."""

    event: int
    what: str
    name: str
    error: str
    at_us: int
    attempts: int | None
    cause: int | None = None
    line: int | None = None


@attrs.frozen(kw_only=True)
class Advice:
    """What would make a run go on, or what to look at, and the command to type for it."""

    what: str
    command: str


@attrs.frozen(kw_only=True)
class Why:
    """What is to be said of a run. `lease_is_valid`: of its owner; None without one."""

    record: RunRecord
    lease_is_valid: bool | None
    standing: Standing
    last_error: LastError | None
    sentences: tuple[str, ...]
    advice: tuple[Advice, ...]
    look: Look


@attrs.frozen(kw_only=True)
class Case:
    """What is known of a run. `app` and `store` are the options as they were given, for commands to be proposed."""

    kept: Kept
    inbox: Sequence[StoredMessage]
    now_us: int
    codec: Codec
    definition: WorkflowDefinition[Any, Any] | None = None
    problem: str = ""
    app: str | None = None
    store: str | None = None
    lease: Lease | None = None
    look: Look = attrs.field(factory=Look)

    @property
    def lease_is_valid(self) -> bool:
        """Whether the run's owner has renewed its lease in time, as far as the clocks of both agree, and lives."""
        lease = self.lease
        return lease is not None and not lease.ended and self.now_us - lease.renewed_us <= lease.length_us

    @property
    def record(self) -> RunRecord:
        """The run's record."""
        return self.kept.record

    def command(self, *words: str, app: bool = False) -> str:
        """A command line to paste."""
        tail = [*(["--app", self.app or "MODULE"] if app else []), *(["--store", self.store] if self.store else [])]
        return shlex.join([*words, *tail])


def why(case: Case) -> Why:
    """Explain a run."""
    found = Standing(())
    if case.record.status.open and not case.record.queued:
        found = _tried_again(standing(case.kept.events, case.definition, case.codec), case.look)
    error = last_error(case.kept.events, case.codec)
    said = [_status(case), *_stands(case, found), *_error(case, error), *_who(case)]
    advice = _advice(case, found, error)
    said.append("To go on: " + "; ".join(one.what for one in advice) + "." if advice else "Nothing needs to be done.")
    return Why(
        record=case.record,
        lease_is_valid=None if case.lease is None else case.lease_is_valid,
        standing=found,
        last_error=error,
        sentences=tuple(filter(None, said)),
        advice=tuple(advice),
        look=case.look,
    )


def _tried_again(found: Standing, look: Look) -> Standing:
    """A step whose next attempt is out at a queue waits for its time no longer."""
    out = {task.step for task in look.tasks}
    waits = (attrs.evolve(wait, until_us=None) if wait.attempts and wait.id in out else wait for wait in found.waits)
    return attrs.evolve(found, waits=tuple(waits))


def last_error(events: Sequence[Event], codec: Codec) -> LastError | None:
    """The last event that tells of an error."""
    for index in range(len(events) - 1, -1, -1):
        event = events[index]
        if payload := getattr(event, "error", b""):
            error = summary(payload, codec, is_error=True, limit=ERROR_MAX)
            cause = _cause(events[:index], error, codec) if isinstance(event, ev.RunFailed) else None
            return LastError(
                event=index,
                what=words(type(event).__name__),
                name=getattr(event, "name", ""),
                error=error,
                at_us=event.at_us,
                attempts=getattr(event, "attempt", None),
                cause=cause,
                line=_line_of(events, index if cause is None else cause),
            )
    return None


def _cause(events: Sequence[Event], error: str, codec: Codec) -> int | None:
    """The last event that brought the error a run failed with; None where the workflow's own code raised it."""
    for index in range(len(events) - 1, -1, -1):
        payload = getattr(events[index], "error", b"")
        if payload and summary(payload, codec, is_error=True, limit=ERROR_MAX) == error:
            return index
    return None


def _line_of(events: Sequence[Event], index: int) -> int | None:
    """The line that yielded the command of an event; an outcome of a child is found by what began it."""
    id = getattr(events[index], "id", None)
    same = (event for event in events[: index + 1] if id is not None and getattr(event, "id", None) == id)
    return next((line for event in same if (line := getattr(event, "line", 0))), None)


# --- sentences -------------------------------------------------------------------------------------------------------


def _status(case: Case) -> str:
    record = case.record
    who = f"{record.run_id} ({record.workflow})"
    begun = f"started {_ago(record.created_at_us, case.now_us)}"
    if record.status.open:
        reason = f": {_first_line(record.reason)}" if record.reason else ""
        return f"{who} is {record.status.value}{reason}; it was {begun}."
    ended = record.closed_at_us if record.closed_at_us is not None else case.now_us
    took = duration(ended - record.created_at_us)
    reason = f": {_first_line(record.reason)}" if record.reason else ""
    return f"{who} has ended, {record.status.value}{reason}, {_ago(ended, case.now_us)} and after {took}."


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    cause = next((line.split(None, 1)[1] for line in lines if line.split(None, 1)[:1] == ["cause"]), "")
    return f"{lines[0]} ({cause})" if cause else lines[0] if lines else ""


def _half(found: Unreadable) -> str:
    if found.how == "doubtful":
        return f"{found.sentence}.".capitalize()
    return f"Its history can be read up to event {found.index}, and what follows here is as of there: {found.why}."


def _stands(case: Case, found: Standing) -> list[str]:
    said = []
    if case.kept.unreadable is not None:
        said.append(_half(case.kept.unreadable))
    if not case.record.status.open:
        return said
    if problem := case.problem or found.problem:
        said.append(f"The code of {case.app} cannot tell where it stands: {problem}.")
    for wait in found.waits[:WAITS_MAX]:
        said.append(_wait(wait, case))
    if len(found.waits) > WAITS_MAX:
        said.append(f"It waits for {len(found.waits) - WAITS_MAX} more.")
    said += _out(case, found)
    said += case.look.sentences(case.record)
    if not (found.waits or case.look.tasks or case.record.queued):
        last = case.kept.events[-1].at_us if case.kept.events else case.record.created_at_us
        after = f"after line {found.after_line}" if found.after_line else "at its beginning"
        doing = (
            "a step in its first attempt, by what the store says" if case.record.active else "a signal or a callback"
        )
        said.append(
            f"It stands {after} since {_ago(last, case.now_us)}, and the history does not name what it waits for"
        )
        said[-1] += f": {doing}." if not found.by_code else "."
    return said


def _out(case: Case, found: Standing) -> list[str]:
    """The steps that are out at queues, and that nothing else tells of."""
    told = {wait.id for wait in found.waits}
    left = [task for task in case.look.tasks if task.step not in told]
    said = [
        f"It waits for step {task.name!r} ({task.step}), {case.look.task(task, True)}." for task in left[:WAITS_MAX]
    ]
    return said + ([f"{len(left) - WAITS_MAX:,} more of its steps are out at queues."] if len(left) > WAITS_MAX else [])


def _wait(wait: Wait, case: Case) -> str:
    where = f" at line {wait.line}" if wait.line else ""
    if wait.file and wait.line:
        where = f" at {wait.file.rpartition('/')[2]}:{wait.line}" + (f" ({wait.source})" if wait.source else "")
    for_what = f"It waits{where} for {wait.what}"
    if wait.child:
        for_what += f", run {wait.child},"
    said = f"{for_what} since {_ago(wait.since_us, case.now_us)}"
    if wait.until_us is not None:
        ends = {"receive": "it times out", "step": "it is given up"}.get(wait.kind, "it is over")
        until = "the next attempt is due" if wait.attempts else ends
        said += f"; {until} {_when(wait.until_us, case.now_us)}"
    if wait.attempts:
        of = f" of {wait.attempts_max}" if wait.attempts_max else ""
        said += f", after {wait.attempts}{of} attempt{'s' * (wait.attempts != 1)} that failed"
    if wait.began:
        said += "; an attempt that may be made once has begun, and its outcome is not known"
    task = case.look.task_of(wait.id)
    return said + (f"; it is {case.look.task(task)}." if task is not None else ".")


def _error(case: Case, error: LastError | None) -> list[str]:
    if error is None:
        return []
    of = f" of {error.name!r}" if error.name else ""
    tries = f", attempt {error.attempts}" if error.attempts else ""
    at = _ago(error.at_us, case.now_us)
    said = f"The last error is of event {error.event} ({error.what}{of}{tries}), {at}: {error.error.rstrip('.')}."
    if error.cause is not None:
        event = case.kept.events[error.cause]
        name = f" {found!r}" if (found := getattr(event, "name", "")) else ""
        line = f", line {error.line}" if error.line else ""
        said += f" It came out of event {error.cause} ({words(type(event).__name__)}{name}{line})."
    return [said]


def _who(case: Case) -> list[str]:
    record = case.record
    if not record.status.open:
        return []
    said = [] if record.queued else [f"{_holder(case)}." if record.owner else "No engine has claimed it."]
    if record.deaths:
        times = "once" if record.deaths == 1 else f"{record.deaths} times"
        said.append(f"A process died {times} while it was active, with nothing recorded since.")
    waiting = [message for message in case.inbox if message.kind != "wake"]
    if waiting:
        kinds = ", ".join(f"{one.kind} {one.name!r}" if one.name else one.kind for one in waiting[:WAITS_MAX])
        more = f" and {len(waiting) - WAITS_MAX} more" if len(waiting) > WAITS_MAX else ""
        oldest = _ago(waiting[0].at_us, case.now_us)
        said.append(f"In its inbox, not taken in yet, the oldest since {oldest}: {kinds}{more}.")
    return said


def _holder(case: Case) -> str:
    record, lease = case.record, case.lease
    said = f"{record.owner} has claimed it (claim {record.epoch})"
    if lease is None:
        return said  # it has the store to itself, or has gone: a store that one engine has knows of no leases
    renewed = f"its lease of {duration(lease.length_us)} was renewed {_ago(lease.renewed_us, case.now_us)}"
    if lease.ended:
        return f"{said}; its process has ended, and another worker takes the run over"
    if not case.lease_is_valid:
        return f"{said}; {renewed} and has run out: the process is frozen or cut off, and another takes the run over"
    return f"{said}; {renewed} and is valid"


def _ago(at_us: int, now_us: int) -> str:
    return f"{clock(at_us)[:19]} ({duration(max(now_us - at_us, 0))} ago)"


def _when(at_us: int, now_us: int) -> str:
    if at_us > now_us:
        return f"{clock(at_us)[:19]} (in {duration(at_us - now_us)})"
    return f"since {clock(at_us)[:19]} ({duration(now_us - at_us)} overdue)"


# --- what would help -------------------------------------------------------------------------------------------------


def _advice(case: Case, found: Standing, error: LastError | None) -> list[Advice]:
    record, id = case.record, case.record.workflow_id
    if not record.status.open:
        return _after_the_end(case, error)
    if record.status is Status.PAUSED:
        return [Advice(what="resume it", command=case.command("dalsegno", "resume", id))]
    if record.status is Status.BLOCKED:
        return _unblock(case)
    advice = []
    if found.problem:
        what = "mend the code: an engine with this one would block the run"
        advice.append(Advice(what=what, command=case.command("replay", "verify", record.run_id, app=True)))
    if _nobody_works(case, found):
        what = "start a worker, since what is due is not acted on"
        advice.append(Advice(what=what, command=case.command("dalsegno", "worker", app=True)))
    advice += [one for wait in found.waits[:WAITS_MAX] if (one := _for(wait, case)) is not None]
    for what, typed in case.look.remedies(record):
        advice.append(Advice(what=what, command=case.command(*typed, app=typed[1] == "worker")))
    known = bool(found.waits or case.look.tasks or record.queued)
    if not known and not found.by_code and case.app is None:
        what = "ask again with its code, which knows"
        advice.append(Advice(what=what, command=case.command("replay", "why", record.run_id, app=True)))
    return advice


def _after_the_end(case: Case, error: LastError | None) -> list[Advice]:
    record, events = case.record, case.kept.events
    if record.status is Status.CONTINUED:
        following = f"{record.workflow_id}#{record.generation + 1}"
        return [Advice(what=f"it went on as {following}", command=case.command("replay", "why", following))]
    if record.status in (Status.COMPLETED, Status.CANCELLED, Status.TERMINATED):
        return []
    failed = [index for index, event in enumerate(events) if isinstance(event, ev.StepFailed | ev.ChildFailed)]
    at = failed[-1] if failed else len(events) - 1
    if at < 1:
        return []
    advice = []
    if (child := _child_of(events, at)) is not None:
        advice.append(
            Advice(what=f"see why its child {child} failed", command=case.command("replay", "why", child, app=True))
        )
    what = f"mend the code or the cause, and fork the run at event {at}, where it failed"
    advice.append(Advice(what=what, command=case.command("replay", "fork", record.run_id, "--at", str(at), app=True)))
    return advice


def _child_of(events: Sequence[Event], at: int) -> str | None:
    """The child that an event brings the failure of."""
    if not isinstance(events[at], ev.ChildFailed):
        return None
    id = getattr(events[at], "id", "")
    return next((one.workflow_id for one in events[:at] if isinstance(one, ev.ChildStarted) and one.id == id), None)


def _unblock(case: Case) -> list[Advice]:
    id, reason = case.record.workflow_id, case.record.reason
    resume = case.command("dalsegno", "resume", id)
    if reason.startswith("quarantined"):
        return [Advice(what="if it is not what kills its process, resume it", command=resume)]
    if (unfit := _unfit_payload(case)) is not None:
        fork = case.command("replay", "fork", case.record.run_id, "--at", str(unfit), "--set", "result=null", app=True)
        end = case.command("dalsegno", "terminate", id)
        return [
            Advice(what=f"fork it at event {unfit} with a payload that fits (instead of null)", command=fork),
            Advice(what="end this one", command=end),
            Advice(what="or start a worker whose code takes what was sent", command=resume),
        ]
    check = case.command("replay", "verify", case.record.run_id, app=True)
    return [
        Advice(what="see whether mended code fits its history", command=check),
        Advice(
            what="start a worker with that code, which tries it again",
            command=case.command("dalsegno", "worker", app=True),
        ),
        Advice(what="or have a running worker try again", command=resume),
    ]


def _unfit_payload(case: Case) -> int | None:
    """The event that brought JSON which the code cannot make its type of, if that is why the run is blocked."""
    if not case.record.reason.startswith(UNFIT):
        return None
    brought = (ev.SignalReceived, ev.CallbackCompleted)
    return next(
        (at for at in range(len(case.kept.events) - 1, 0, -1) if isinstance(case.kept.events[at], brought)), None
    )


def _nobody_works(case: Case, found: Standing) -> bool:
    overdue = any(wait.until_us is not None and case.now_us - wait.until_us > OVERDUE_US for wait in found.waits)
    unread = any(case.now_us - message.at_us > OVERDUE_US for message in case.inbox)
    return overdue or unread or (case.record.active and not case.record.owner)


def _for(wait: Wait, case: Case) -> Advice | None:
    id = case.record.workflow_id
    if wait.kind == "receive":
        command = case.command("dalsegno", "signal", id, wait.name, "null")
        return Advice(what=f"send the signal {wait.name!r} (null stands for its payload)", command=command)
    if wait.child:
        return Advice(
            what=f"see why its child {wait.child} has not ended", command=case.command("replay", "why", wait.child)
        )
    if wait.kind == "callback":
        command = case.command("replay", "show", case.record.run_id, "--payloads")
        return Advice(what=f"whoever has the token of callback {wait.id} is to complete it", command=command)
    if wait.kind == "step" and wait.attempts and case.look.task_of(wait.id) is None:
        command = case.command("replay", "show", case.record.run_id)
        return Advice(what=f"mend what {wait.name!r} fails of before its attempts are used up", command=command)
    return None


# --- as data ---------------------------------------------------------------------------------------------------------


def why_data(found: Why, codec: Codec) -> dict[str, Any]:
    """What `why --json` prints, besides the run."""
    error = found.last_error
    return {
        "text": " ".join(found.sentences),
        "waits": [
            {
                **attrs.asdict(wait, filter=lambda field, _: field.name not in ("error", "since_us", "until_us")),
                "since": iso(wait.since_us),
                "until": iso(wait.until_us),
                "error": summary(wait.error, codec, is_error=True, limit=ERROR_MAX) if wait.error else "",
            }
            for wait in found.standing.waits
        ],
        "after_line": found.standing.after_line,
        "by_code": found.standing.by_code,
        "problem": found.standing.problem,
        "last_error": None
        if error is None
        else {**attrs.asdict(error, filter=lambda field, _: field.name != "at_us"), "at": iso(error.at_us)},
        "owner": found.record.owner,
        "lease_valid": found.lease_is_valid,
        "claim": found.record.epoch,
        "deaths": found.record.deaths,
        **found.look.data(found.record),
        "advice": [attrs.asdict(one) for one in found.advice],
    }
