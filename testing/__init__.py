"""What users test their workflows and stores with: simulation, faults, crash exploration, contracts."""

from dalsegno.testing.backend_contract import BackendContract
from dalsegno.testing.clock import VirtualClock
from dalsegno.testing.exploring import explore_crashes
from dalsegno.testing.faults import FaultPlan
from dalsegno.testing.faulty_store import FaultyStore
from dalsegno.testing.guard import DeterminismWarning, NondeterministicCall, determinism_guard
from dalsegno.testing.histories import (
    Execution,
    assert_sound,
    check_delivery,
    check_executions,
    check_grown,
    check_history,
    check_store,
)
from dalsegno.testing.replaying import assert_replays, record_history
from dalsegno.testing.reporting import CrashFound, Report
from dalsegno.testing.simulation import Simulation
from dalsegno.testing.witness import PromiseBroken

__all__ = [
    "BackendContract",
    "CrashFound",
    "DeterminismWarning",
    "Execution",
    "FaultPlan",
    "FaultyStore",
    "NondeterministicCall",
    "PromiseBroken",
    "Report",
    "Simulation",
    "VirtualClock",
    "assert_replays",
    "assert_sound",
    "check_delivery",
    "check_executions",
    "check_grown",
    "check_history",
    "check_store",
    "determinism_guard",
    "explore_crashes",
    "record_history",
]
