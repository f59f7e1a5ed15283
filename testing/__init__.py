"""What users test their workflows and stores with: simulation, faults, crash exploration, contracts."""
