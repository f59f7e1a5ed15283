"""Pacing: how long bodies are expected to take, and how long results may wait to be durable.

A checkpoint (a flush of what idempotent steps returned) is due after so many results or so much time, before a long
body, and before any body that must not be repeated needlessly. The adaptive policy sets the interval to the Young/Daly
optimum, sqrt(2 C M): C the measured cost of a flush, M the mean time between failures seen by this run.

How often a run has failed has to outlive its failures. The store has it: a run's epoch is one more each time that
another engine takes it over, and is never set back. Restarts in good order are counted with the others, for a run in
the middle of its work is handed from one engine to the next by them, too; where they are frequent, checkpoints are
somewhat closer than they need be.
"""

from __future__ import annotations

import math

from dalsegno.core.engine.committer import Committer
from dalsegno.core.engine.live import Activation, LiveRun
from dalsegno.core.engine.surroundings import Surroundings

UNFAILED_S = 60.0
"""A run that has not failed yet, and is younger, is taken to have gone a minute without: nothing is known yet."""
LEAST_MTBF_S = 0.1
"""Failing more often than this, no process gets as far as to run a step."""


class Pacing:
    """Measured durations by step name, and the checkpoint policy."""

    def __init__(self, around: Surroundings, committer: Committer) -> None:
        self._policy, self._clock, self._committer = around.checkpoint, around.clock, committer
        self.mean_us: dict[str, float] = {}

    def took(self, name: str, us: int) -> None:
        """A body has taken so long."""
        mean = self.mean_us.get(name)
        # Slow outliers count at once, quick ones slowly: a wrong "short" costs others their thread.
        if mean is None or us > 4 * mean:
            self.mean_us[name] = float(us)
        else:
            self.mean_us[name] = mean + (us - mean) / 8

    def is_full(self, run: LiveRun, act: Activation) -> bool:
        """Whether what `act` holds, only results of idempotent steps, is to be flushed now."""
        if act.results >= self._policy.every_steps:
            return True
        return act.since_us != 0 and self._policy.measured and self.is_old(run, act, self._clock.steady_us())

    @property
    def goes_ahead(self) -> bool:
        """Whether runs go on during such a flush. Who asks for one after every step wants each result to be durable."""
        return self._policy.every_steps > 1

    def may_wait(self, run: LiveRun, act: Activation) -> bool:
        """Whether nothing in `act`, only results of idempotent steps, must be durable before what comes next."""
        if not (act.more is None or act.more.only_tells):
            return False
        if not act.bodies and not run.running:
            return False  # the run comes to rest: nothing would be saved by waiting
        mean = self.mean_us
        longest = self._policy.long_step * 1e6
        return all(
            b.options.idempotent and not b.options.long and mean.get(b.name, 0) < longest for b in act.bodies
        ) and all(job.options.idempotent for job in run.running.values())

    def is_old(self, run: LiveRun, act: Activation, now_us: int) -> bool:
        """Whether results have waited as long as the policy lets them."""
        return now_us - act.since_us >= self.limit_us(run)

    def limit_us(self, run: LiveRun) -> int:
        """How long results of a run may wait."""
        limit = self._policy.every
        if self._policy.measured:
            limit = min(limit, self.optimum_s(run))
        return round(limit * 1e6)

    def optimum_s(self, run: LiveRun) -> float:
        """The Young/Daly interval for a run, in seconds."""
        mtbf = UNFAILED_S
        if run.record is not None and run.interpreter is not None:
            age_s = (run.interpreter.now_us - run.record.created_at_us) / 1e6
            failures = max(run.epoch - 1, run.record.deaths)
            mtbf = max(LEAST_MTBF_S, age_s / (failures + 1)) if failures else max(UNFAILED_S, age_s)
        return math.sqrt(2 * self._committer.cost_us / 1e6 * mtbf)
