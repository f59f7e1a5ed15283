"""The loop: one object, without threads of its own, that moves every run. Threads (or a simulator) call it.

For one run, an activation goes like this, and the order is the crash story:

1. *take* what has arrived (a step's outcome, messages, a timer). A crash here loses nothing: messages and timers are
   still in the store, and a body whose outcome was not recorded runs again.
2. *load* the run if it is not in memory: replay its history. Nothing is written.
3. *fold* each arrival as an event and let the workflow's code go on; what it asks for is noted, not done.
4. *commit* events, timers, children, messages as one transition. A crash before it is a crash at 1; after it, recovery
   finds the events and starts what they leave open. A commit whose outcome is unknown is looked up, not guessed.
5. *start* bodies, wake children and the runs that got messages. A crash here, or in a body, is found at recovery: the
   run is marked active, its open steps have no outcome, and they run again (or, with `once=True`, are reported).

Results of idempotent steps may skip 4 for a while, as the checkpoint policy allows: a crash repeats those bodies.

A transition may be refused. Then nothing of it happened; the run is read again and the same arrivals are folded anew,
with what has come in meanwhile first.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from dalsegno.core.engine import ahead
from dalsegno.core.engine.arrivals import MAIL, START, Arrivals, Flushed, Input
from dalsegno.core.engine.bodies import Job, run_body
from dalsegno.core.engine.breaches import StoreBroken
from dalsegno.core.engine.closing import Closing
from dalsegno.core.engine.committer import Committer, Write
from dalsegno.core.engine.crew import UNKNOWN_US, Hands
from dalsegno.core.engine.ending import Ended
from dalsegno.core.engine.ends import Ends
from dalsegno.core.engine.live import STUBBORN, Activation, Also, LiveRun, is_loaded
from dalsegno.core.engine.notes import Notes
from dalsegno.core.engine.pacing import Pacing
from dalsegno.core.engine.recovery import Loader
from dalsegno.core.engine.requests import Requests
from dalsegno.core.engine.surroundings import Surroundings
from dalsegno.core.engine.tasks import Assignment, Tasks
from dalsegno.core.engine.timeouts import Timeouts
from dalsegno.core.engine.watchdog import Interrupted, Overrun, Watchdog
from dalsegno.core.engine.whereabouts import named
from dalsegno.core.errors import DecodeError, StoreDamaged, StoreError, WorkflowError
from dalsegno.core.events import RunStarted
from dalsegno.core.store import Applied, Refusal, Refused, RunRecord, Status, Transition

SHORT_US = 500
"""A body expected to take longer than this does not start while writes wait for its thread."""

BRIEF_US = 100
"""About what an activation takes, when the run is in memory."""

REST_US = 1_000_000
"""How long a run rests of which the store takes nothing at all, while it takes that of others."""

log = logging.getLogger("dalsegno.engine")


class Loop:
    """All runs of one engine. Thread-safe; see `LiveRun` for whose turn it is."""

    def __init__(
        self,
        around: Surroundings,
        committer: Committer,
        durable: Callable[[], Hands[LiveRun]],
        bodies: Callable[[], Hands[Job]],
        special: Callable[[Job], bool],
        watch: Callable[[int], None],
        hurry: Callable[[int], None],
        wake: Callable[[], None],
    ) -> None:
        self.around, self.committer = around, committer
        self._backend, self._codec, self._clock = around.backend, around.codec, around.clock
        self.observed = around.observed
        self._durable, self.bodies, self._special, self._watch = durable, bodies, special, watch
        self._hurry, self._wake = hurry, wake
        self.notes = Notes(around)
        self.tasks = Tasks(around, committer, self.notes, self.start_tasks, self._heard)
        self.requests = Requests(around)
        self.arrivals = Arrivals(around, self.requests)
        self.closing = Closing(around)
        self.loader = Loader(around)
        self.pacing = Pacing(around, committer)
        self.ends = Ends()
        self.live: dict[int, LiveRun] = {}
        self.idle: dict[int, LiveRun] = {}
        self.deferred: dict[int, LiveRun] = {}
        self.troubled: dict[int, LiveRun] = {}
        self.next_deadline_us: int | None = None
        self._ready: deque[Job] = deque()  # bodies that may start, and are handed to the crew together
        self.registry = threading.Lock()
        self.timeouts = Timeouts(around.clock)
        self.draining = False
        self.watchdog: Watchdog | None = None
        self.leased: Callable[[], bool] = lambda: True

    # --- arrivals --------------------------------------------------------------------------------------------------

    def adopt(self, record: RunRecord, first: RunStarted | None = None) -> None:
        """Take on a run that was just created or claimed for this engine."""
        self.ends.forget(record.workflow_id)
        with self.registry:
            run = self.live.get(record.number)
            if run is None:
                run = self.live[record.number] = LiveRun(record.number, record, first)
        run.stored_active = record.active
        self.hand(run, START)

    def rejoin(self, record: RunRecord) -> None:
        """Take on a run that is this engine's, unless it is in memory."""
        if record.number not in self.live:
            self.adopt(record)

    def deliver(self, number: int, arrived: Input) -> None:
        """Hand something to a run, which is loaded when its turn comes."""
        with self.registry:  # so that it is not put away between being found and being told
            run = self.live.get(number)
            if run is None:
                run = self.live[number] = LiveRun(number)
            run.inputs.append(arrived)
        if run.seize():
            self.enqueue(run)

    def hand(self, run: LiveRun, arrived: Input) -> None:
        """Hand something to a run that is in memory."""
        run.inputs.append(arrived)
        if run.seize():
            self.enqueue(run)

    def enqueue(self, run: LiveRun) -> None:
        """Have a run advanced; its turn is taken."""
        if self.observed is not None:
            self.observed.run_queued(run)
        self._durable().put((run,), BRIEF_US if is_loaded(run) else UNKNOWN_US)

    def work(self, job: Job) -> None:
        """Run a body on this thread, then move its run on: the thread that has the outcome resumes the workflow."""
        committer, run = self.committer, job.run
        if not job.brief and committer.eager and committer.lead():
            self.bodies().nudge()  # what that freed is for others: this thread is about to be busy
        if run.running.get(job.id) is not job:
            if self.observed is not None:
                self.observed.job_dropped(job)
            return  # cancelled before it began
        if not self.leased():  # while it was queued: the run may be somebody else's
            self._ready.append(job)
            return
        job.thread = threading.current_thread()
        if job.options.timeout is not None:
            self.timeouts.watch(job)
        run_body(job, self._codec, self._clock, self.observed, self._backend)
        self.pacing.took(job.name, job.took_us)
        if type(run) is Assignment:
            run.ended(job)
            committer.lead()
            return
        run.inputs.append(job)
        if run.seize():
            self.advance(run)
        # A thread without another job flushes; one that has only the body behind a checkpoint leaves that to others.
        if job.took_us > SHORT_US or (committer.eager and self.bodies().waiting <= (run.ahead is not None)):
            committer.lead()

    def _heard(self, number: int) -> None:
        """A run has been told the outcome of a task; if it is in memory, it is this engine's to move on."""
        if number in self.live:
            self.deliver(number, MAIL)
        self._wake()  # there are hands for another task

    def finished(self, job: Job) -> None:
        """A body that ran elsewhere (event loop, executor) has an outcome."""
        self.pacing.took(job.name, job.took_us)
        self.outcome(job)

    def outcome(self, job: Job) -> None:
        """Hand the outcome of an attempt to whom it belongs."""
        if type(job.run) is Assignment:
            job.run.ended(job)
            self.bodies().nudge()
            self.committer.lead()
        else:
            self.hand(job.run, job)

    # --- the activation --------------------------------------------------------------------------------------------

    def advance(self, run: LiveRun) -> None:
        """Fold what has arrived and see it recorded. The caller holds the run's turn and gives it away here."""
        if self.observed is not None:
            self.observed.run_taken(run)
        if self.idle:
            self.idle.pop(run.number, None)
        if self.troubled:
            self.troubled.pop(run.number, None)
        if run.ahead is not None and not self._catch_up(run):
            return
        act = run.activation
        if act is None:
            act = run.activation = Activation()
        try:
            if not (self._absorb(run, act) if self.watchdog is None else self.watchdog.over(self._absorb, run, act)):
                return
        except StoreError as error:  # also while its end or its block was being written
            self.trouble(run, error)
            return
        self._conclude(run, act)

    def _absorb(self, run: LiveRun, act: Activation) -> bool:
        """Fold what has arrived, and what follows from it; false if the run is no longer ours to move."""
        try:
            if run.interpreter is None and not self._load(run, act):
                return False
            interpreter, inputs, absorb = run.interpreter, run.inputs, self.arrivals.absorb
            assert interpreter is not None
            while inputs:
                arrived = inputs.popleft()
                if run.ahead is not None and not ahead.is_repeatable(arrived):
                    inputs.appendleft(arrived)  # it came just now, behind what was sorted: it is sorted first
                    break
                act.inputs.append(arrived)
                absorb(run, act, arrived)
                if interpreter.outcome is not None:
                    if self.closing.has_sent_to_itself(run, act):
                        act.urgent = True  # this is recorded first; it ends when it has seen what it sent
                        break
                    self.closing.by_code(run, act)
                    break
        except Ended as ended:
            self.closing.by_force(run, act, ended)
        except (WorkflowError, DecodeError) as error:
            return self._block(run, act, str(error))
        except StoreDamaged as error:
            if vars(error).get("run") != run.number:
                raise  # not of this run's own
            return self._block(run, act, str(error))
        except StoreError:
            raise
        except (Interrupted, Overrun):
            return self._overran(run, act)
        except Exception as error:
            log.exception("run %s: a bug in dalsegno, or in a definition", run.number, extra=named(run.record))
            return self._block(run, act, f"{type(error).__name__}: {error}")
        return True

    def _overran(self, run: LiveRun, act: Activation) -> bool:
        """Block a run whose code was interrupted, with the facts it was told; what it made of the last one, if it went
        on all the same, is not asked for. Its code is not asked to clean up either. False if it was given up before."""
        note, interpreter, run.interpreter = run.note, run.interpreter, None
        if interpreter is not None:
            STUBBORN.append(interpreter)
        return not note.given_up and self._block(run, act, note.where)

    def set_aside(self, run: LiveRun, reason: str) -> Transition:
        """Forget a run whose thread will not come back; answers what blocks it in the store, with the facts that its
        code was told: the thread is inside, and will find when it leaves that they are not its own any more."""
        act = Activation() if run.activation is None or run.ahead is not None else run.activation
        self.closing.set_aside(run, act, reason)
        with self.registry:
            if self.live.get(run.number) is run:
                del self.live[run.number]
        run.running.clear()
        return act.transition(run)

    def _load(self, run: LiveRun, act: Activation) -> bool:
        """Bring a run into memory; false if it is no longer ours to move."""
        just_created = run.first is not None  # then nobody has written to it before it was ours
        begun_us = self._clock.steady_us() if self.observed is not None else 0
        if not self.loader.load(run, act):
            self._let_go(run)
            return False
        if self.observed is not None:
            self.observed.loaded(run, just_created, begun_us)
        act.inputs.append(START)  # so that a refused first transition is thought over again, too
        if not just_created:
            run.inputs.appendleft(MAIL)
        assert run.record is not None
        if not just_created:
            self.ends.forget(run.record.workflow_id)
        # With more than its first event, something was recorded: and published, except by a fork or an import.
        self.requests.settle(run, act, replayed=run.head > 1 and not run.record.restore)
        return True

    def _conclude(self, run: LiveRun, act: Activation) -> None:
        """Decide between starting bodies at once and recording first."""
        if act.empty and run.stored_active == bool(act.bodies or run.running):
            run.activation = None
            self._go_on(run, act.bodies)
        elif not act.urgent and run.stored_active and self.pacing.may_wait(run, act):
            if not act.since_us:
                act.since_us = self._clock.steady_us()
            if not self.pacing.is_full(run, act):
                bodies, act.bodies = act.bodies, []
                self.deferred[run.number] = run
                self._go_on(run, bodies)
            elif run.ahead is None and self.pacing.goes_ahead:
                self._work_ahead(run, act)
            else:
                self.submit(run, act)
        else:
            self.submit(run, act)

    def _go_on(self, run: LiveRun, bodies: list[Job]) -> None:
        """Start bodies that wait for no record, and give the turn up."""
        if bodies:
            self._start(run, bodies)
            self.start_ready()
        self.pass_turn(run)

    def _work_ahead(self, run: LiveRun, act: Activation) -> None:
        """Queue a checkpoint, and start the bodies behind it without waiting for it; see `ahead`."""
        self.deferred.pop(run.number, None)
        self.committer.submit(ahead.Checkpoint(run, act, self.checkpointed))
        run.ahead, run.activation = act, None
        self._go_on(run, act.bodies)

    def checkpointed(self, run: LiveRun, answered: ahead.Answered) -> None:
        """The store has answered a checkpoint. Called by whoever led the flush, while somebody else may have the turn;
        no code of the workflow runs here."""
        run.inputs.append(answered)
        if run.seize():
            found = ahead.sort(run)
            if found is None or self._settle(run, found):
                self.pass_turn(run)

    def _catch_up(self, run: LiveRun) -> bool:
        """Look for the answer to a run's checkpoint; false if the run is not to be moved now, its turn given away."""
        answered = ahead.sort(run)
        if answered is not None:
            return self._settle(run, answered)
        if run.inputs:
            return True
        self.pass_turn(run)
        return False

    def _settle(self, run: LiveRun, answered: ahead.Answered) -> bool:
        """Take the answer to a checkpoint; false if the caller has lost the turn by it."""
        verdict, act = answered.answer, run.ahead
        assert act is not None
        if isinstance(verdict, Applied):
            run.ahead, run.stored_active = None, True
            if self.observed is not None:
                self.observed.committed(run, act)
            if run.interpreter is not None:
                run.head += len(act.events)
            if not run.stalled:
                return True
            run.stalled = False
            assert run.activation is not None
            self._conclude(run, run.activation)
        elif isinstance(verdict, Refused):
            self._refused(run, ahead.rejoin(run, act), verdict)
        else:
            self.failed(run, ahead.rejoin(run, act), verdict)
        return False

    def submit(self, run: LiveRun, act: Activation) -> None:
        """Queue the run's transition; the turn stays taken until the store has answered. Behind a checkpoint that is on
        its way it is not queued before that has been answered."""
        if run.ahead is not None:
            run.stalled = True
            self.pass_turn(run)
            return
        if self.deferred:
            self.deferred.pop(run.number, None)
        self.committer.submit(Submission(self, run, act))

    def committed(self, run: LiveRun, act: Activation, verdict: Applied | Refused, active: bool) -> None:
        """The store has answered the run's transition."""
        if isinstance(verdict, Refused):
            self._refused(run, act, verdict)
            return
        run.head += len(act.events)
        run.activation = None
        run.stored_active = active
        if self.observed is not None:
            self.observed.committed(run, act)
        if act.more is not None:
            if act.more.status is Status.COMPLETED:
                self.ends.keep(run.workflow_id, act.events[-1])
            if not self._follow(run, act.more, verdict):
                return
        if act.bodies:
            self._start(run, act.bodies)
        self.pass_turn(run)

    def _follow(self, run: LiveRun, more: Also, applied: Applied) -> bool:
        """Do what follows from the seldom parts of an applied transition; false if it was the run's last."""
        if more.restored and run.record is not None:
            run.record = attrs.evolve(run.record, restore=False)
        for deadline_us, _ in more.timers_set:
            self.expect_timer(deadline_us)
        if more.tasks or more.tasks_dropped:
            self._wake()
        if more.last:
            self._let_go(run)
        for record in applied.created:
            if record.owner == self.around.owner and record.status is Status.RUNNING:
                self.adopt(record)
        for number in applied.sent:
            self.deliver(number, MAIL)
        if more.last:
            self._watch(run.number)
            return False
        for id in more.checkpoints:
            run.inputs.append(Flushed(id))
        return True

    def _refused(self, run: LiveRun, act: Activation, refused: Refused) -> None:
        """Nothing of the transition happened: think it over from what is stored now."""
        try:
            gone = refused.why in (Refusal.GONE, Refusal.CLOSED)
            gone = gone or (refused.why is Refusal.EPOCH and not self._is_ours(run))
        except StoreError as error:
            self.trouble(run, error)
            return
        if gone:
            log.info("run %s is no longer this engine's: %s", run.number, refused.why.value, extra=named(run.record))
            self._let_go(run)
            self._watch(run.number)  # whoever waits for its end has to look elsewhere
            return
        if refused.why is Refusal.HEAD:
            log.warning("run %s: %s; it is read again", run.number, refused.why.value, extra=named(run.record))
        if refused.why is Refusal.CHILD:
            run.refused |= {refused.detail}
        elif refused.why is Refusal.TASK:
            run.begun |= {refused.detail}
        self._take_back(run, act)
        run.inputs.extendleft(reversed([a for a in act.inputs if a is not MAIL]))
        run.forget()
        run.activation = None
        self.enqueue(run)  # the turn is still ours; loading puts the mail first

    def _is_ours(self, run: LiveRun) -> bool:
        """Whether this engine still holds the run; it may have claimed it twice, and go on with the later lease."""
        record = self.around.backend.record(run.number)
        return record is not None and record.status.open and record.owner == self.around.owner

    def _start(self, run: LiveRun, jobs: list[Job]) -> None:
        """Let bodies start: everything they stand on is durable, or may be repeated."""
        for job in jobs:
            run.running[job.id] = job
            job.notes = self.notes
            self._ready.append(job)

    def start_tasks(self, jobs: list[Job]) -> None:
        """Let the bodies of tasks start."""
        self._ready.extend(jobs)
        self.start_ready()

    def start_ready(self) -> None:
        """Hand bodies to the step crew, those that one flush has freed together: it wakes as many threads as they are
        worth. Handed over one by one they would wake a thread each, to quarrel over the interpreter lock."""
        ready = self._ready
        if not ready or not self.leased():  # without a lease the runs may be somebody else's by now
            return
        jobs, total_us, mean_us = list[Job](), 0.0, self.pacing.mean_us
        while ready:
            try:
                job = ready.popleft()
            except IndexError:
                break  # another thread has taken it along
            if self._special(job):
                continue
            jobs.append(job)
            expected_us = mean_us.get(job.name, UNKNOWN_US)
            job.brief = expected_us <= SHORT_US
            total_us += expected_us
        if jobs:
            if self.observed is not None:
                self.observed.jobs_queued(jobs)
            self.bodies().put(jobs, int(total_us))

    def pass_turn(self, run: LiveRun) -> None:
        """Give the turn up; if something has arrived meanwhile, queue the run again."""
        if not run.running and not run.inputs and run.activation is None and run.ahead is None:
            run.idle_since_us = self._clock.steady_us()
            self.idle[run.number] = run
        if run.yield_turn():
            self.enqueue(run)

    def _let_go(self, run: LiveRun) -> None:
        """Forget a run that has ended, is blocked, or is somebody else's. The turn is never given back: what still
        arrives for this object has nobody to go to; a later message makes a new one."""
        with self.registry:
            if self.live.get(run.number) is run:
                del self.live[run.number]
        self.idle.pop(run.number, None)
        self.deferred.pop(run.number, None)
        run.activation = run.ahead = None
        for job in list(run.running.values()):
            if job.cancel is not None:
                job.cancel()
        run.running.clear()  # bodies that still run learn it from `step_context().cancelled`
        run.drop_code()

    def lose(self, run: LiveRun) -> None:
        """Forget a run that somebody else has taken, unless it is just being moved."""
        if run.seize():
            self._let_go(run)
            self._watch(run.number)

    def _block(self, run: LiveRun, act: Activation, reason: str) -> bool:
        """Record that the run cannot go on with this code, and why; what has happened so far is kept. False if that has
        to wait for a checkpoint: then the run is read again behind it, and comes here once more."""
        if run.ahead is not None:
            self._take_back(run, act)
            run.laid_by = [*act.inputs, *run.laid_by]
            run.forget()
            run.activation = None
            self.pass_turn(run)
            return False
        named_ = run.record.run_id if run.record else run.number
        log.warning("run %s is blocked: %s", named_, reason, extra=named(run.record))
        self.closing.set_aside(run, act, reason)
        return True

    @staticmethod
    def _take_back(run: LiveRun, act: Activation) -> None:
        """Have the outcomes in an activation count as not yet folded."""
        for arrived in act.inputs:
            if type(arrived) is Job:
                run.running[arrived.id] = arrived

    def trouble(self, run: LiveRun, error: Exception) -> None:
        """The store failed while this run was being moved: nothing is lost, the tick tries again."""
        log.warning("run %s waits for the store: %s", run.number, error, extra=named(run.record))
        act, run.activation = run.activation, None
        if act is not None:
            self._take_back(run, act)
            run.inputs.extendleft(reversed(act.inputs))
        run.forget()
        self.troubled[run.number] = run  # with its turn still taken, so that nobody else moves it

    def failed(self, run: LiveRun, act: Activation, error: Exception) -> None:
        """A transition was not written. Where the store takes others and not this one, the run is blocked without it:
        what it came to happens again when it is tried again, as after a crash."""
        if not isinstance(error, StoreBroken | StoreDamaged):
            self.trouble(run, error)
            return
        tried = act.more is not None and act.more.status is Status.BLOCKED and not act.events
        if not tried:
            log.warning("run %s is blocked: %s", run.number, error, extra=named(run.record))
            run.forget()
            arrived = act.inputs
            act = run.activation = Activation()
            act.inputs = arrived  # to be thought over again if this is not taken either
            try:
                self.closing.set_aside(run, act, str(error))
                self.submit(run, act)
                return
            except Exception as worse:
                error = worse
        run.rests_until_us = self._clock.steady_us() + REST_US
        self.trouble(run, error)

    def expect_timer(self, deadline_us: int) -> None:
        """Have the tick look for due timers not later than this."""
        if self.next_deadline_us is None or deadline_us < self.next_deadline_us:
            self.next_deadline_us = deadline_us
            self._hurry(deadline_us)


class Submission(Write):
    """A run's transition on its way to the store. One object, where two callbacks with what they hold would be eight:
    each would be looked at by the garbage collector, while hundreds of runs wait for one flush."""

    __slots__ = ("_act", "_active", "_loop", "_run")

    def __init__(self, loop: Loop, run: LiveRun, act: Activation) -> None:
        self.what = transition = act.transition(run)
        self.lazy, self.doubtful = not act.lets_start, False
        self._loop, self._run, self._act, self._active = loop, run, act, transition.active

    def done(self, answer: Any) -> None:
        self._loop.committed(self._run, self._act, answer, self._active)

    def failed(self, error: Exception) -> None:
        self._loop.failed(self._run, self._act, error)
