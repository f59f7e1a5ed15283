"""What users test their workflows and stores with: simulation, faults, crash exploration, contracts."""

from dalsegno.testing.backend_contract import BackendContract
from dalsegno.testing.clock import VirtualClock
from dalsegno.testing.exploring import explore_crashes
from dalsegno.testing.faults import FaultPlan
from dalsegno.testing.faulty_store import FaultyStore
from dalsegno.testing.reporting import CrashFound, Report
from dalsegno.testing.simulation import Simulation
from dalsegno.testing.witness import PromiseBroken

__all__ = [
    "BackendContract",
    "CrashFound",
    "FaultPlan",
    "FaultyStore",
    "PromiseBroken",
    "Report",
    "Simulation",
    "VirtualClock",
    "explore_crashes",
]
